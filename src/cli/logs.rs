//! `beaufort logs`: what containers wrote, merged by time. The lines come from CloudWatch Logs; the streams of a service's or a task's
//! containers are found through their task definitions.

mod streams;

use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Refused, Service as Api};
use super::screen::{self, Ink, Paint, parse_span};
use super::subject::Subject;
use super::{ClusterOption, Target};
use crate::clock::{Clock, SystemClock};
use crate::model::{Millis, Timestamp};
use streams::{Source, What};

const EXAMPLES: &str = "\
Examples:
  beaufort logs service/web -f
  beaufort logs task/0123abcd --since 10m
  beaufort logs --group /ecs/web --tail 20
  beaufort logs service/web --json | jq -r .message

Containers whose logDriver is awslogs are read, those that have stopped too. Without --since the newest 100 lines are shown.";

/// Read what containers wrote.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    /// service/NAME or task/ID
    #[arg(value_name = "SUBJECT", required_unless_present = "group", conflicts_with = "group")]
    pub subject: Option<Subject>,
    /// A log group in place of a service or a task
    #[arg(long, short, value_name = "NAME")]
    pub group: Option<String>,
    /// With --group: one log stream of it
    #[arg(long, value_name = "NAME", requires = "group")]
    pub stream: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Go on showing lines as they are written
    #[arg(long, short)]
    pub follow: bool,
    /// Lines no older than this: 90s, 10m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub since: Option<Millis>,
    /// Only the newest N lines
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub tail: Option<u32>,
    /// Begin every line with its time (UTC)
    #[arg(long, short)]
    pub timestamps: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// New tasks are looked for at every so many looks.
const LOOKS_PER_SEARCH: u32 = 4;
const TAIL: usize = 100;
/// Lines held for sorting at most; a page holds ten thousand.
const MAX_LINES: usize = 200_000;
/// Pages of one stream in one look: a container that writes faster is caught up with at the next.
const PAGES_PER_LOOK: usize = 5;

#[derive(Debug, Deserialize)]
struct Page {
    events: Vec<Event>,
    #[serde(rename = "nextForwardToken")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Event {
    timestamp: i64,
    message: String,
}

struct Line {
    at: Timestamp,
    /// Among the sources, in their order.
    source: usize,
    message: String,
}

pub async fn run(target: Target, args: LogsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let what = What::of(&args)?;
    let mut finder = streams::Finder::default();
    let mut sources = finder.find(&client, &what).await?;
    if sources.is_empty() && !args.follow {
        return Err(what.nothing().into());
    }
    let printer = Printer { paint: Paint::stdout(), json: args.json, timestamps: args.timestamps };
    let mut lines = first_lines(&client, &mut sources, &args).await?;
    let labelled = sources.len() > 1 || (args.follow && what.may_grow());
    screen::say(&printer.print(&mut lines, &sources, labelled))?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut looks = 0;
    // Until the person has seen enough.
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        looks += 1;
        if looks % LOOKS_PER_SEARCH == 0 && what.may_grow() {
            streams::update(&mut sources, finder.find(&client, &what).await?);
        }
        let mut lines = Vec::new();
        for at in 0..sources.len() {
            let before = lines.len();
            read_on(&client, &mut sources, at, PAGES_PER_LOOK, 0, &mut lines).await?;
            sources[at].quiet(lines.len() == before);
        }
        screen::say(&printer.print(&mut lines, &sources, labelled))?;
        sources.retain(|s| !s.is_done());
    }
}

/// What is there already: the newest lines, or all since a time.
async fn first_lines(client: &Client, sources: &mut [Source], args: &LogsArgs) -> anyhow::Result<Vec<Line>> {
    let start = args.since.map_or(0, |ms| (SystemClock.now() - ms).0.max(0));
    let tail = args.tail.map(|n| n as usize).or(args.since.is_none().then_some(TAIL));
    let mut lines = Vec::new();
    for at in 0..sources.len() {
        match tail {
            Some(0) => skip(client, &mut sources[at], start).await?,
            Some(n) => {
                let input = json!({ "startFromHead": false, "limit": n, "startTime": start });
                if let Some(page) = get(client, &sources[at], input).await? {
                    take(page, at, sources, &mut lines);
                }
            }
            None => {
                let pages = (MAX_LINES - lines.len().min(MAX_LINES)).div_ceil(10_000);
                read_on(client, sources, at, pages, start, &mut lines).await?;
            }
        }
    }
    if tail.is_none() && lines.len() >= MAX_LINES {
        eprintln!("only {MAX_LINES} lines are shown: ask for less with --since, or one task at a time");
    }
    lines.sort_by_key(|l| l.at);
    let first = tail.map_or(0, |n| lines.len().saturating_sub(n));
    Ok(lines.split_off(first))
}

/// Goes to the end of what is there without showing it.
async fn skip(client: &Client, source: &mut Source, start: i64) -> anyhow::Result<()> {
    let page = get(client, source, json!({ "startFromHead": false, "limit": 1, "startTime": start })).await?;
    source.token = page.and_then(|p| p.next);
    Ok(())
}

/// Everything after what was read of this source, within a bound of pages.
async fn read_on(
    client: &Client,
    sources: &mut [Source],
    at: usize,
    pages: usize,
    start: i64,
    lines: &mut Vec<Line>,
) -> anyhow::Result<()> {
    for _ in 0..pages {
        let mut input = json!({ "startFromHead": true });
        match &sources[at].token {
            Some(token) => input["nextToken"] = json!(token),
            None => input["startTime"] = json!(start),
        }
        let Some(page) = get(client, &sources[at], input).await? else { return Ok(()) };
        if page.events.is_empty() {
            sources[at].token = page.next;
            return Ok(());
        }
        take(page, at, sources, lines);
    }
    Ok(())
}

fn take(page: Page, at: usize, sources: &mut [Source], lines: &mut Vec<Line>) {
    sources[at].token = page.next;
    lines.extend(page.events.into_iter().map(|e| Line { at: Timestamp(e.timestamp), source: at, message: e.message }));
}

/// None: the group or the stream is not there yet, as its container has written nothing.
async fn get(client: &Client, source: &Source, mut input: Value) -> anyhow::Result<Option<Page>> {
    input["logGroupName"] = json!(source.group);
    input["logStreamName"] = json!(source.stream);
    match client.call(Api::Logs, "GetLogEvents", &input).await {
        Ok(page) => Ok(Some(serde_json::from_value(page)?)),
        Err(error) if !source.asked_for && is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.code == "ResourceNotFoundException")
}

struct Printer {
    paint: Paint,
    json: bool,
    timestamps: bool,
}

impl Printer {
    fn print(&self, lines: &mut [Line], sources: &[Source], labelled: bool) -> String {
        // Stable: lines of one stream keep their order.
        lines.sort_by_key(|l| l.at);
        let width = sources.iter().map(|s| s.label.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for line in lines {
            let source = &sources[line.source];
            if self.json {
                let (group, stream) = (&source.group, &source.stream);
                let value = json!({ "at": line.at.iso(), "group": group, "stream": stream, "source": source.label, "message": line.message });
                text.push_str(&format!("{value}\n"));
                continue;
            }
            if self.timestamps {
                text.push_str(&format!("{} ", self.paint.ink(Ink::Faint, &line.at.iso())));
            }
            if labelled {
                text.push_str(&format!("{} ", self.paint.ink(Ink::Source(source.number), &format!("{:<width$}", source.label))));
            }
            // As it was written: colours of a program are its own affair, and its lines end here.
            text.push_str(line.message.trim_end_matches(['\r', '\n']));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(label: &str, number: usize) -> Source {
        Source { number, ..Source::new("g", &format!("s/{label}"), label) }
    }

    #[test]
    fn merged_by_time_with_who_said_it() {
        let sources = [source("app", 0), source("proxy", 1)];
        let line = |ms, source, message: &str| Line { at: Timestamp(ms), source, message: message.to_owned() };
        let lines = || vec![line(2, 0, "second\r\n"), line(3, 0, "third"), line(1, 1, "first"), line(3, 0, "fourth")];
        let printer = Printer { paint: Paint::off(), json: false, timestamps: false };
        assert_eq!(printer.print(&mut lines(), &sources, true), "proxy first\napp   second\napp   third\napp   fourth\n");
        assert_eq!(printer.print(&mut lines(), &sources, false), "first\nsecond\nthird\nfourth\n");
        let dated = Printer { timestamps: true, ..printer };
        assert_eq!(dated.print(&mut lines()[..1], &sources, false), "1970-01-01T00:00:00.002Z second\n");
        let json = Printer { paint: Paint::off(), json: true, timestamps: false };
        let text = json.print(&mut lines()[2..3], &sources, true);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            json!({ "at": "1970-01-01T00:00:00.001Z", "group": "g", "stream": "s/proxy", "source": "proxy", "message": "first" })
        );
    }
}
