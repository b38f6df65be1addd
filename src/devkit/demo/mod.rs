//! `dispatch demo`: sends two hundred jobs through two real workers, one of which is killed,
//! against simulated providers, one of which fails for a while, and then verifies the guarantees.
//!
//! `world` has the people, work items and tracker document, `script` the plan; `traffic` carries
//! it out, `faults` injects faults, `fleet` manages the processes, `play` is the run itself, and
//! `verify` checks the result.

mod console;
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

/// The time limit of the demo, from the start of the servers.
const LIMIT: Duration = Duration::from_secs(60);
/// The part of the limit reserved for verifying and stopping.
const RESERVE: Duration = Duration::from_secs(7);
/// The exit code of a program that was ended by SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Leave everything running at the end, and print how to inspect it.
    pub keep: bool,
    /// Print one JSON object on stdout instead of text.
    pub json: bool,
}

/// Runs the demo. Returns exit code 0 if all guarantees hold, 1 if not (the output names the
/// failures), and 130 if interrupted. Takes at most 60 s, not counting installations. Stops
/// everything that it started, unless it is kept.
///
/// # Errors
/// Something could not be started, or the run could not be completed.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let progress = Progress::new(JOBS as u64);
    tokio::select! {
        outcome = Box::pin(demo(options, &progress)) => outcome,
        _ = interrupt.recv() => Ok(interrupted(&progress)),
        _ = terminate.recv() => Ok(interrupted(&progress)),
    }
}

/// Reports the interruption. Dropping the run stops everything.
fn interrupted(progress: &Progress) -> ExitCode {
    progress.finish();
    progress.say("interrupted; stopping everything");
    ExitCode::from(INTERRUPTED)
}

async fn demo(options: DemoOptions, progress: &Progress) -> anyhow::Result<ExitCode> {
    install(progress).await?;
    let started = Instant::now();
    let binary = std::env::current_exe().context("the path of this program is unknown")?;
    progress.say("starting a private Postgres, a private RabbitMQ and the provider simulator");
    let reported = progress.clone();
    let starting = Fleet::start(binary.clone(), options.keep, move |line| reported.say(line));
    let in_time = tokio::time::timeout(LIMIT, starting).await;
    let (mut fleet, world) = in_time
        .map_err(|_| anyhow!("the servers did not start within {} s", LIMIT.as_secs()))??;
    progress.tick();
    let playing = async {
        fleet.start_workers().await?;
        progress.say("two workers are running");
        let mut play = Play::new(&mut fleet, &world, progress, started + LIMIT - RESERVE).await?;
        play.run().await?;
        play.verify(started).await
    };
    let played = tokio::time::timeout_at((started + LIMIT).into(), playing).await;
    progress.finish();
    match played {
        Ok(Ok((summary, checks))) => end(options, fleet, &binary, &summary, &checks).await,
        Ok(Err(error)) => Err(error.context(fleet.abandon())),
        Err(_) => bail!(
            "the demo did not end within {} s; {}",
            LIMIT.as_secs(),
            fleet.abandon()
        ),
    }
}

/// Finds or installs the servers' programs, on a separate thread because installing with apt
/// blocks.
async fn install(progress: &Progress) -> anyhow::Result<()> {
    let (done, outcome) = oneshot::channel();
    let progress = progress.clone();
    std::thread::spawn(move || {
        let installed = install::ensure(
            Wanted {
                postgres: true,
                rabbitmq: true,
                ..Wanted::default()
            },
            &|line| progress.say(line),
        );
        // The receiver is gone if the demo was interrupted.
        let _interrupted = done.send(installed);
    });
    outcome
        .await
        .context("the installation ended without a result")??;
    Ok(())
}

/// Prints the result, and stops or leaves the processes.
async fn end(
    options: DemoOptions,
    fleet: Fleet,
    binary: &Path,
    summary: &Summary,
    checks: &[Check],
) -> anyhow::Result<ExitCode> {
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
            tell(&format!(
                "the logs of the workers and the witness log are in {}",
                logs.display()
            ));
        }
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn how_to_look_around(fleet: Fleet, binary: &Path) -> anyhow::Result<String> {
    let exports: String = environment(&fleet.links)
        .iter()
        .map(|(name, value)| format!("  export {name}='{value}'\n"))
        .collect();
    let (simulator, folder, witness) = (
        fleet.links.simulator_url.clone(),
        fleet.folder.path.clone(),
        fleet.witness(),
    );
    let console = console::start(&fleet).await?;
    let management = fleet.servers.management_url.clone().unwrap_or_default();
    let Left { pids, ports } = fleet.leave().await?;
    let dispatch = binary.display();
    let (folder, witness) = (folder.display(), witness.display());
    let link = &console.link;
    let workers: String = ports
        .iter()
        .map(|port| format!("  curl -s http://127.0.0.1:{port}/readyz; curl -s http://127.0.0.1:{port}/metrics\n"))
        .collect();
    let pids = console
        .process
        .leave()
        .into_iter()
        .chain(pids)
        .map(|pid| pid.to_string())
        .collect::<Vec<_>>()
        .join(" ");
    Ok(format!(
        "\nEverything still runs. The console: {link}\n\nTo inspect it from here:\n{exports}\n  {dispatch} jobs list --state waiting\n  \
         {dispatch} jobs explain --source {SOURCE} --key 001-assign\n  {dispatch} jobs show --source {SOURCE} --key 001-assign\n  \
         {dispatch} dead-letters list\n  {dispatch} pipelines\n{workers}  curl -s {simulator}/_sim/assignees\n  \
         less {witness}\n  psql \"$DISPATCH_DATABASE_URL\"\n  RabbitMQ: {management}\n\nLogs: {folder}. To stop it all:\n  \
         kill {pids}; rm -r {folder}\n"
    ))
}

/// Prints on stderr, and ignores failures: nobody may be reading.
fn tell(text: &str) {
    let _nobody = writeln!(std::io::stderr(), "{text}");
}
