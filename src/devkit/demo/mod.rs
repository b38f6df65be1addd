//! `dispatch demo`: two hundred jobs through two real workers, one of which is killed, against simulated providers, one of
//! which fails for a while; then everything that was promised is verified.
//!
//! `world` is who and what there is, `script` what happens, `traffic` carries it out, `faults` what goes wrong on
//! purpose, `fleet` the processes, `play` the run itself, `verify` what must hold in the end.

mod faults;
mod fleet;
mod play;
mod progress;
mod script;
mod summary;
mod traffic;
mod verify;
mod world;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use self::fleet::{Fleet, Left, environment};
use self::play::Play;
use self::progress::Progress;
use self::script::JOBS;
use self::summary::{Summary, print};
use self::traffic::SOURCE;
use self::verify::Check;
use super::install::{self, Wanted};

/// All is over by then, counted from the start of the servers.
const LIMIT: Duration = Duration::from_secs(60);
/// What verifying and stopping may take of it.
const RESERVE: Duration = Duration::from_secs(7);
/// The exit code of a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;

/// How the demo is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Leave everything running at the end, and say how to look around.
    pub keep: bool,
    /// One JSON object on stdout instead of text for people.
    pub json: bool,
}

/// Runs the demo. Exit code 0: everything that was promised holds; 1: not, and what does not is told; 130: interrupted. Takes
/// at most 60 s, what must be installed first apart. Everything that was started has stopped then, unless it is to be kept.
///
/// # Errors
/// Something could not be started, or the run could not be brought to its end.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let progress = Progress::new(JOBS as u64);
    tokio::select! {
        outcome = Box::pin(demo(options, &progress)) => outcome,
        _ = interrupt.recv() => Ok(interrupted(&progress)),
        _ = terminate.recv() => Ok(interrupted(&progress)),
    }
}

/// Whatever runs stops when the run is dropped.
fn interrupted(progress: &Progress) -> ExitCode {
    progress.finish();
    progress.say("interrupted: everything that was started stops");
    ExitCode::from(INTERRUPTED)
}

async fn demo(options: DemoOptions, progress: &Progress) -> anyhow::Result<ExitCode> {
    install(progress).await?;
    let started = Instant::now();
    let binary = std::env::current_exe().context("this program's own path is not known")?;
    progress.say("starting a private Postgres and RabbitMQ, and the providers' simulator");
    let reported = progress.clone();
    let starting = Fleet::start(binary.clone(), options.keep, move |line| reported.say(line));
    let in_time = tokio::time::timeout(LIMIT, starting).await;
    let (mut fleet, world) = in_time.map_err(|_| anyhow!("the servers did not start within {} s", LIMIT.as_secs()))??;
    progress.tick();
    let playing = async {
        fleet.start_workers().await?;
        progress.say("two workers run");
        let mut play = Play::new(&mut fleet, &world, progress, started + LIMIT - RESERVE).await?;
        play.run().await?;
        play.verify(started).await
    };
    let played = tokio::time::timeout_at((started + LIMIT).into(), playing).await;
    progress.finish();
    match played {
        Ok(Ok((summary, checks))) => end(options, fleet, &binary, &summary, &checks).await,
        Ok(Err(error)) => Err(error.context(fleet.abandon())),
        Err(_) => bail!("the demo did not end within {} s; {}", LIMIT.as_secs(), fleet.abandon()),
    }
}

/// Finds or installs the servers' programs, on a thread of its own: apt cannot be waited for otherwise.
async fn install(progress: &Progress) -> anyhow::Result<()> {
    let (done, outcome) = oneshot::channel();
    let progress = progress.clone();
    std::thread::spawn(move || {
        let installed = install::ensure(Wanted { postgres: true, rabbitmq: true }, &|line| progress.say(line));
        // Nobody waits where the demo was interrupted.
        let _interrupted = done.send(installed);
    });
    outcome.await.context("the installation ended without a word")??;
    Ok(())
}

/// Tells what came of it, and stops or leaves what runs.
async fn end(options: DemoOptions, fleet: Fleet, binary: &Path, summary: &Summary, checks: &[Check]) -> anyhow::Result<ExitCode> {
    let holds = checks.iter().all(|check| check.outcome.is_ok());
    let text = summary.text(checks);
    if options.json {
        if !holds {
            tell(&text);
        }
        print(&serde_json::to_string(summary)?)?;
    } else {
        print(&text)?;
    }
    if options.keep {
        tell(&how_to_look_around(fleet, binary).await?);
    } else {
        let logs = fleet.folder.path.clone();
        fleet.stop(!holds).await?;
        if !holds {
            tell(&format!("the workers' logs and the witness log are in {}", logs.display()));
        }
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn how_to_look_around(fleet: Fleet, binary: &Path) -> anyhow::Result<String> {
    let exports: String = environment(&fleet.links).iter().map(|(name, value)| format!("  export {name}='{value}'\n")).collect();
    let (simulator, folder, witness) = (fleet.links.simulator_url.clone(), fleet.folder.path.clone(), fleet.witness());
    let management = fleet.servers.management_url.clone().unwrap_or_default();
    let Left { pids, ports } = fleet.leave().await?;
    let dispatch = binary.display();
    let (folder, witness) = (folder.display(), witness.display());
    let workers: String = ports
        .iter()
        .map(|port| format!("  curl -s http://127.0.0.1:{port}/readyz; curl -s http://127.0.0.1:{port}/metrics\n"))
        .collect();
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    Ok(format!(
        "\nEverything still runs. To look around:\n{exports}\n  {dispatch} jobs list --state waiting\n  \
         {dispatch} jobs explain --source {SOURCE} --key 001-assign\n  {dispatch} jobs show --source {SOURCE} --key 001-assign\n  \
         {dispatch} dead-letters list\n  {dispatch} pipelines\n{workers}  curl -s {simulator}/_sim/assignees\n  \
         less {witness}\n  psql \"$DISPATCH_DATABASE_URL\"\n  RabbitMQ: {management}\n\nLogs: {folder}. To end it all:\n  \
         kill {pids}; rm -r {folder}\n"
    ))
}

/// On stderr. Nobody may be reading.
fn tell(text: &str) {
    let _nobody = writeln!(std::io::stderr(), "{text}");
}
