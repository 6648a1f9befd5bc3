//! `beaufort replay`: a journal told line by line, the same beside what a policy would have said, or held against this version.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::past::{Past, decisions, document, moment, service};
use super::screen::{self, Ink, Paint};
use super::subject::parse_service;
use super::why;
use super::{ClusterOption, Target};
use crate::model::{ServiceKey, Timestamp};
use crate::replay::files::Files;
use crate::replay::recording::{Window, plan};
use crate::replay::report::Options;
use crate::replay::sides::{Row, Side, compare};
use crate::replay::transcript::{Filter, Line, Place, lines};
use crate::replay::verify::{Differs, Verified};

const EXAMPLES: &str = "\
Examples:
  beaufort replay                                              the decisions of the server, oldest first
  beaufort replay /var/lib/beaufort --since 1h | less          commits and decisions of a data directory, also while its server runs
  beaufort replay /var/lib/beaufort --service web --follow
  beaufort replay --service web --since 3h --policy cpu-70.json   what was decided, and what that policy would have said
  beaufort replay backup.sqlite --verify                       does this version decide as the one that wrote the journal?

A data directory gives every commit; a server gives its ledger of decisions. With --policy each answer is to what was recorded at
that moment, with the capacity that there was; `beaufort backtest` lets the policy have its way. --verify makes every scaling
decision again from what it was made of, and ends with 1 when one comes out otherwise.";

/// Tell what was decided and why, commit by commit
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// A data directory, or a backup's file; without it, a server is asked
    #[arg(value_name = "JOURNAL")]
    pub journal: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "DIR", conflicts_with = "journal")]
    pub data_dir: Option<PathBuf>,
    /// Only what is about this service: NAME or CLUSTER/NAME
    #[arg(long, short, value_name = "SERVICE")]
    pub service: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// From when on: so long ago, or a time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to when
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Leave out the commits
    #[arg(long)]
    pub decisions_only: bool,
    /// Go on telling what happens
    #[arg(long, short, conflicts_with_all = ["until", "policy", "verify"])]
    pub follow: bool,
    /// Beside what was decided, what the policies of this file would have decided
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub policy: Option<PathBuf>,
    /// Make every scaling decision again, and tell which come out otherwise
    #[arg(long)]
    pub verify: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Pages of a server's ledger that are held at once, as it gives the newest first.
const PAGES: usize = 100;
/// Without a --since, a policy is tried on so much.
const TRIED: &str = "3h";
/// Causes of one commit that are named.
const CAUSES: usize = 3;

pub async fn run(target: Target, args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let past = Past::open(&target.endpoint, args.journal.as_deref().or(args.data_dir.as_deref()))?;
    if let Some(path) = &args.policy {
        return beside(&past, &args, document(path)?).await;
    }
    let filter = filter(&args, past.now())?;
    if args.verify {
        return verify(&past, &args, filter).await;
    }
    let paint = Paint::stdout();
    let mut place = Place::default();
    loop {
        place = tell(&past, &filter, place, &mut |line| screen::say(&shown(line, args.json, paint))).await?;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn filter(args: &ReplayArgs, now: Timestamp) -> anyhow::Result<Filter> {
    let at = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
    let service = args.service.as_deref().map(parse_service).transpose().map_err(anyhow::Error::msg)?;
    Ok(Filter {
        service: service.map(|(of, name)| ServiceKey::new(of.as_deref().unwrap_or(&args.cluster.cluster), name)),
        since: at(&args.since)?,
        until: at(&args.until)?,
        decisions_only: args.decisions_only || args.verify,
    })
}

/// Every line behind `place`, oldest first; answers where it ended.
async fn tell(
    past: &Past,
    filter: &Filter,
    place: Place,
    each: &mut dyn FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<Place> {
    let client = match past {
        Past::Files(files) => {
            let mut lines = lines(&files.journal, filter.clone(), place)?;
            for line in lines.by_ref() {
                each(&line?)?;
            }
            return Ok(lines.place());
        }
        Past::Server { client, .. } => client,
    };
    let (service, after) = (filter.service.as_ref().map(ToString::to_string), place.record.to_string());
    let mut query = vec![("after", after.as_str())];
    query.extend(service.as_deref().map(|service| ("service", service)));
    let mut found = decisions(client, &query, filter.since, filter.until, PAGES).await?;
    found.reverse();
    let mut last = place;
    for (number, decision) in found {
        last.record = number;
        each(&Line::Decision { number, decision })?;
    }
    Ok(last)
}

fn shown(line: &Line, json: bool, paint: Paint) -> String {
    let value = line.json();
    match line {
        _ if json => format!("{value}\n"),
        Line::Decision { .. } => why::decision(&value, "", paint),
        Line::Commit { at, revision, causes, changes } => {
            let more = causes.len().saturating_sub(CAUSES);
            let mut text = causes.iter().take(CAUSES).map(|cause| screen::printable(cause)).collect::<Vec<_>>().join("; ");
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
            let changes = screen::printable(&changes.join(", "));
            let changes = if changes.is_empty() { String::new() } else { format!(": {changes}") };
            format!("{}  {} {text}{changes}\n", paint.ink(Ink::Faint, &clock(*at)), paint.ink(Ink::Good, &format!("#{revision}")))
        }
    }
}

fn clock(at: Timestamp) -> String {
    at.iso().replace('T', " ").replace('Z', "")
}

async fn verify(past: &Past, args: &ReplayArgs, filter: Filter) -> anyhow::Result<ExitCode> {
    let (mut verified, paint) = (Verified::default(), Paint::stdout());
    let mut look = |line: &Line| {
        let Line::Decision { decision, .. } = line else { return Ok(()) };
        let Some(differs) = verified.look(decision) else { return Ok(()) };
        screen::say(&differs_text(&differs, args.json, paint))
    };
    tell(past, &filter, Place::default(), &mut look).await?;
    let Verified { same, reworded, parted, without_inputs } = verified;
    if args.json {
        screen::say(&format!(
            "{}\n",
            json!({ "kind": "verified", "same": same, "reworded": reworded, "otherwise": parted, "without_inputs": without_inputs })
        ))?;
    } else {
        screen::say(&format!(
            "{same} scaling decisions come out the same, {reworded} in other words, {parted} otherwise; {without_inputs} do not hold what they were made of\n"
        ))?;
    }
    Ok(if parted == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn differs_text(differs: &Differs, json: bool, paint: Paint) -> String {
    let (was, is) = (&differs.was, &differs.is);
    if json {
        let side = |(action, code, reason): &(String, _, String)| json!({ "action": action, "code": code, "reason": reason });
        let kind = if differs.only_words { "reworded" } else { "otherwise" };
        return format!(
            "{}\n",
            json!({ "kind": kind, "at": differs.at.iso(), "subject": differs.subject, "was": side(was), "is": side(is) })
        );
    }
    let (mark, ink) = if differs.only_words { ("words", Ink::Warn) } else { ("otherwise", Ink::Bad) };
    format!(
        "{}  {} {}\n    was {}: {}\n    is  {}: {}\n",
        paint.ink(Ink::Faint, &clock(differs.at)),
        paint.ink(ink, mark),
        differs.subject,
        was.0,
        screen::printable(&was.2),
        is.0,
        screen::printable(&is.2)
    )
}

async fn beside(past: &Past, args: &ReplayArgs, document: crate::replay::given::Document) -> anyhow::Result<ExitCode> {
    let now = past.now();
    let since = moment(args.since.as_deref().unwrap_or(TRIED), now)?.floor(1_000);
    let until = args.until.as_deref().map_or(Ok(now), |text| moment(text, now))?.min(now).floor(1_000);
    if since >= until {
        return Err(
            Failure::new("nothing lies between --since and --until", "--since is to be before --until, and before now").into()
        );
    }
    let key = service(args.service.as_deref(), &args.cluster.cluster, std::slice::from_ref(&document))?;
    let window = Window { since, until, step_ms: 1_000 };
    let known = past.known(&key, since, until).await?;
    let given = document.of(&key, &known.alarms, &Files::home(), since).map_err(Failure::from)?;
    let plan = plan(&key, &given.contenders.iter().collect::<Vec<_>>(), window, now);
    let record = plan.record(&past.answers(&plan).await?, None);
    let rows = compare(&known, &given, &record, window, Options::default()).map_err(Failure::from)?;
    let paint = Paint::stdout();
    if args.json {
        let side = |side: &Option<Side>| {
            side.as_ref().map(|s| {
                json!({ "at": s.step.at.iso(), "policy": s.policy, "from": s.step.from, "to": s.step.to, "reason": s.reason })
            })
        };
        let lines = rows.iter().map(|row| {
            format!(
                "{}\n",
                json!({ "at": row.at.iso(), "same": row.is_same(), "was": side(&row.was), "would": side(&row.would) })
            )
        });
        screen::say(&lines.collect::<String>())?;
    } else {
        screen::say(&beside_text(&key, &given.name, &rows, paint))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn beside_text(key: &ServiceKey, name: &str, rows: &[Row], paint: Paint) -> String {
    const ACTION: usize = 20;
    let mut text = format!(
        "{}\n",
        paint.ink(Ink::Strong, &format!("service/{key}: what was decided, and what {name} would have said of the same"))
    );
    let head = format!("{:<23}     {:<ACTION$}  {name}", "time (UTC)", "decided");
    text.push_str(&format!("{}\n", paint.ink(Ink::Faint, &head)));
    let action =
        |side: &Option<Side>| side.as_ref().map_or("-".to_owned(), |s| format!("desired {} -> {}", s.step.from, s.step.to));
    for row in rows {
        let (mark, ink) = if row.is_same() { ("=", Ink::Good) } else { ("≠", Ink::Warn) };
        text.push_str(&format!(
            "{}  {}  {:<ACTION$}  {}\n",
            paint.ink(Ink::Faint, &clock(row.at)),
            paint.ink(ink, mark),
            action(&row.was),
            action(&row.would)
        ));
        let mut why = |whose: &str, side: &Option<Side>| {
            if let Some(side) = side {
                let line = format!("{:23}     {whose} {}: {}", "", side.policy, screen::printable(&side.reason));
                text.push_str(&format!("{}\n", paint.ink(Ink::Faint, &line)));
            }
        };
        if !row.is_same() {
            why("decided by", &row.was);
            why("would be by", &row.would);
        } else {
            why("both:", &row.was);
        }
    }
    let same = rows.iter().filter(|row| row.is_same()).count();
    text.push_str(&format!("{same} of {} the same\n", rows.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
    use crate::replay::tests::NOON;

    fn web() -> ServiceKey {
        ServiceKey::new("shop", "web")
    }

    #[test]
    fn lines_of_a_journal() {
        let commit = Line::Commit {
            at: NOON,
            revision: 42,
            causes: ["a", "b", "c\u{1b}[2J", "d", "e"].map(str::to_owned).to_vec(),
            changes: vec!["service shop/web desired 4".to_owned(), "2 of task".to_owned()],
        };
        let reason = Reason::new(ReasonCode::ScaledOut, "CPUUtilization averages 80: 4 tasks are needed").with("running", 2);
        let subject = Subject::Service(web());
        let decision = Decision { at: NOON, subject, action: "desired 2 -> 4".to_owned(), reason, trace: None };
        let text = shown(&commit, false, Paint::off())
            + &shown(&Line::Decision { number: 7, decision: decision.clone() }, false, Paint::off());
        assert_eq!(
            text,
            "\
2026-11-20 10:20:00.000  #42 a; b; c\u{fffd}[2J and 2 more: service shop/web desired 4, 2 of task
2026-11-20 10:20:00.000  service/shop/web desired 2 -> 4: CPUUtilization averages 80: 4 tasks are needed (running 2)
"
        );
        let json = shown(&Line::Decision { number: 7, decision }, true, Paint::off());
        assert!(json.starts_with(r#"{"action":"desired 2 -> 4","at":"2026-11-20T10:20:00.000Z","code":"scaled_out""#), "{json}");
    }

    #[test]
    fn both_sides_where_they_part() {
        let side = |policy: &str, from, to, reason: &str| {
            let step = crate::decide::backtest::figures::Move { at: NOON, from, to };
            Some(Side { step, policy: policy.to_owned(), reason: reason.to_owned() })
        };
        let rows = [
            Row { at: NOON, was: side("cpu", 2, 4, "80 of 50"), would: side("cpu-40", 2, 4, "80 of 40") },
            Row { at: NOON + 5_000, was: None, would: side("cpu-40", 4, 5, "48 of 40") },
        ];
        assert_eq!(
            beside_text(&web(), "cpu-40", &rows, Paint::off()),
            "\
service/shop/web: what was decided, and what cpu-40 would have said of the same
time (UTC)                  decided               cpu-40
2026-11-20 10:20:00.000  =  desired 2 -> 4        desired 2 -> 4
                            both: cpu: 80 of 50
2026-11-20 10:20:05.000  ≠  -                     desired 4 -> 5
                            would be by cpu-40: 48 of 40
1 of 2 the same
"
        );
    }
}
