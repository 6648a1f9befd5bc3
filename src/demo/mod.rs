//! `beaufort demo`: a service under a load that comes and goes, the decisions as they fall, and what it all took.
//!
//! A client of a Beaufort that it starts itself: all is made and read over the HTTP API. Owns the play ([`profile`]), the terminal
//! ([`screen`]) and the cleaning up ([`stage`]). Start reading at [`run`].

mod screen;
mod stage;
mod summary;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args as ClapArgs;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::load::profile::{Phase, Profile};
use crate::load::stats::{Live, Report};
use crate::load::{self, Options, resolve};
use stage::{CLUSTER, LOG_GROUP, SERVICE, Stage};
use summary::Summary;
use watch::Watched;

const EXAMPLES: &str = "\
Examples:
  beaufort demo                 live on this terminal, some two minutes
  beaufort demo --keep          and stay, to look around with the endpoint that it shows
  beaufort demo --once --json   without a terminal: did it scale out and in again?

Needs Docker and nothing else: the sample service's image is made of this program. All of it is removed at the end.";

/// Show a service scale with its load, and explain itself
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Without a terminal and in less than 90 seconds: plain lines, and exit code 0 only if it scaled out and in again
    #[arg(long)]
    pub once: bool,
    /// Stay when the load is over, to look around; Ctrl-C ends it
    #[arg(long)]
    pub keep: bool,
    /// The summary as JSON on the last line
    #[arg(long)]
    pub json: bool,
    /// Docker's address: unix:///PATH or tcp://HOST:PORT
    #[arg(long, env = "DOCKER_HOST", value_name = "ADDRESS")]
    pub docker_host: Option<String>,
}

/// How long the play goes on after the scale-in: the tasks that leave should fail no request.
const LINGER_MS: i64 = 3_000;

/// What is being played.
pub(crate) struct Play {
    pub endpoint: String,
    pub profile: Profile,
    pub live: Live,
    pub watched: Watched,
    pub began: Instant,
    /// Back at so many tasks after having been scaled out, the play is over.
    pub ends_at: u32,
}

impl Play {
    pub(crate) fn phase(&self) -> &str {
        self.profile.phase_at(self.began.elapsed()).map_or("end", |(index, _)| &self.profile.phases()[index].name)
    }
}

/// Calm, ramp, spike, plateau, drop and calm again. A task can do about 45 requests a second: one is enough for the calm, and the
/// plateau keeps four just below the target.
fn profile(once: bool) -> Profile {
    let (calm, high, spike) = (8.0, 95.0, 110.0);
    let seconds = if once { [4.0, 4.0, 4.0, 10.0, 1.0, 50.0] } else { [10.0, 12.0, 6.0, 24.0, 3.0, 120.0] };
    let rates = [(calm, calm), (calm, high), (spike, spike), (high, high), (high, calm), (calm, calm)];
    let names = ["calm", "ramp", "spike", "plateau", "drop", "low"];
    let phases = names.iter().zip(rates).zip(seconds).map(|((name, (from, to)), lasts)| Phase::new(name, from, to, lasts));
    Profile::new(phases.collect()).expect("the phases are constants within the bounds")
}

/// When the phase of this name begins.
fn begins(profile: &Profile, name: &str) -> Duration {
    profile.phases().iter().take_while(|p| p.name != name).map(|p| p.lasts).sum()
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = on_signal()?;
    println!("starting Beaufort, and the sample service on it");
    let stage = tokio::select! {
        stage = Stage::open(args.docker_host.clone()) => stage?,
        () = stop.cancelled() => anyhow::bail!("interrupted before anything was made"),
    };
    let played = tokio::select! {
        played = play(&args, &stage, &stop) => played,
        // While the service is being made; later the play ends itself, and tells what it has seen.
        () = async { stop.cancelled().await; tokio::time::sleep(Duration::from_secs(8)).await } => Err(anyhow::anyhow!("interrupted")),
    };
    println!("removing the tasks, their containers, the image and the data");
    let struck = stage.strike().await;
    let summary = played?;
    struck?;
    println!("\n{summary}\n");
    let verdict = summary.missing();
    if let Some(missing) = &verdict {
        eprintln!("{}", if stop.is_cancelled() { "ended early" } else { missing });
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    // A person may leave whenever they have seen enough.
    Ok(if verdict.is_none() || (stop.is_cancelled() && !args.once) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let asked = stop.clone();
    // Further signals change nothing: leaving things behind is no choice here.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        }
    });
    Ok(stop)
}

async fn play(args: &Args, stage: &Stage, stop: &CancellationToken) -> anyhow::Result<Summary> {
    tokio::select! {
        set = stage.set() => set?,
        () = stop.cancelled() => anyhow::bail!("interrupted while the service was made"),
    }
    let profile = profile(args.once);
    let service = resolve::Service {
        cluster: CLUSTER.to_owned(),
        name: SERVICE.to_owned(),
        path: "/".to_owned(),
        container_port: None,
        health: Some("/healthz".to_owned()),
        elsewhere: None,
    };
    let first = resolve::once(&stage.api, &service, &[]).await?;
    let (sender, targets) = channel::channel(first);
    // The play's own end, which an interruption brings about too.
    let over = stop.child_token();
    let following = tokio::spawn(resolve::follow(stage.api.clone(), service, Duration::from_millis(250), sender, over.clone()));
    let play = Play {
        endpoint: stage.api.endpoint().to_owned(),
        live: Live::new(&profile),
        watched: Watched::new(SystemClock.now(), begins(&profile, "ramp"), begins(&profile, "low")),
        began: Instant::now(),
        ends_at: if args.once { stage::MOST_TASKS } else { 2 },
        profile,
    };
    // The generator has a thread of its own, so that drawing and polling do not delay its requests.
    let generator = generate(&play, targets, over.clone())?;
    let watching = {
        let (watched, api, over) = (play.watched.clone(), stage.api.clone(), over.clone());
        tokio::spawn(async move { watched.follow(api, over).await })
    };
    let shown = if args.once { tell(&play, &over).await } else { screen::show(&play, stop, &over, args.keep).await };
    over.cancel();
    let _ = tokio::join!(following, watching);
    let report = generator.await.context("the load generator ended unexpectedly")?;
    shown?;
    if args.keep && args.once && !stop.is_cancelled() {
        println!("{} still serves: AWS_ENDPOINT_URL={0}; Ctrl-C ends and removes it", play.endpoint);
        stop.cancelled().await;
    }
    // What was decided since the last look.
    let _ = play.watched.look(&stage.api).await;
    Ok(summary::summarize(&play.watched.recording(), report))
}

fn generate(
    play: &Play,
    targets: channel::Receiver<Vec<load::Target>>,
    over: CancellationToken,
) -> anyhow::Result<tokio::sync::oneshot::Receiver<Report>> {
    let (done, report) = tokio::sync::oneshot::channel();
    let (profile, live) = (play.profile.clone(), play.live.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the load generator's runtime")?;
    let body = move || {
        let options = Options { in_flight: 1_000, timeout: Duration::from_secs(15), settle: Duration::from_secs(3) };
        let _ = done.send(runtime.block_on(load::run(&profile, targets, &options, &live, &over)));
    };
    std::thread::Builder::new().name("load".to_owned()).spawn(body).context("the load generator's thread")?;
    Ok(report)
}

impl Play {
    /// Scaled out and in again, or at the end of the profile.
    pub(crate) fn is_over(&self) -> bool {
        let recording = self.watched.recording();
        let decided = recording.decisions.iter().find(|d| d.code == "scaled_in" && d.at_ms > recording.falls_ms);
        let now = self.watched.last();
        let fewer = decided.zip(now).is_some_and(|(decided, now)| {
            now.running < self.ends_at && now.running == now.desired && now.at_ms > decided.at_ms + LINGER_MS
        });
        fewer || self.began.elapsed() > self.profile.length()
    }
}

/// Plain lines: the decisions as they fall, and a line of numbers every other second.
async fn tell(play: &Play, over: &CancellationToken) -> anyhow::Result<()> {
    println!("Beaufort at {}, service {CLUSTER}/{SERVICE}, logs in {LOG_GROUP}", play.endpoint);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let (mut told, mut turn) = (0, 0u32);
    while !over.is_cancelled() && !play.is_over() {
        tick.tick().await;
        turn += 1;
        let recording = play.watched.recording();
        for decision in &recording.decisions[told..] {
            println!("{:>7.1} s  {}: {}: {}", decision.at_ms as f64 / 1e3, decision.subject, decision.action, decision.reason);
        }
        told = recording.decisions.len();
        if turn.is_multiple_of(8)
            && let Some(now) = recording.samples.last()
        {
            let at = play.began.elapsed();
            let second = play.live.last_second(at);
            println!(
                "{:>7.1} s  {:<8} offered {:>3}/s completed {:>3}/s p99 {:>6} cpu {:>5} desired {} running {} alarms {}",
                at.as_secs_f64(),
                play.phase(),
                second.offered,
                second.completed,
                second.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms")),
                now.cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.0} %")),
                now.desired,
                now.running,
                play.watched.alarms().iter().map(|a| format!("{} {}", a.side, a.state)).collect::<Vec<_>>().join(", "),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_play_is_short_and_has_time_to_scale_in() {
        let once = profile(true);
        assert!(once.length() <= Duration::from_secs(75), "starting and cleaning take time too");
        // Thirty datapoints of a second before the low alarm, and some room.
        assert!(once.length() - begins(&once, "low") >= Duration::from_secs(45));
        assert_eq!(begins(&once, "ramp"), Duration::from_secs(4));
        assert_eq!(begins(&profile(false), "low"), Duration::from_secs(55));
    }
}
