//! Measures the engine alone: jobs of ten stages that do nothing, each with a durable checkpoint,
//! from a full queue. Two bare loops without an engine are measured in the same run on the same
//! servers: one groups its commits, which is the limit of the servers, and one commits each stage
//! in a transaction of its own. Quote the ratios; absolute figures depend on the machine.
//!
//! `cargo bench --bench engine`, with `-- JOBS IN_FLIGHT` for numbers other than 20,000 and 256.
//! It starts servers of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot continue panics"
)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod bare;
mod engine;

use std::path::Path;
use std::time::Duration;

use dispatch_worker::devkit::servers::Servers;
use secrecy::SecretString;

/// The stages of each job.
const STAGES: usize = 10;

/// The parameters of a run.
struct Setting<'a> {
    servers: &'a Servers,
    jobs: usize,
    in_flight: usize,
}

/// The database and the virtual host of one contestant.
struct Place {
    database_url: SecretString,
    amqp_url: SecretString,
}

/// The results of one contestant.
struct Figures {
    took: Duration,
    /// The time of a job from its first stage to its end: the median, and the 99th percentile.
    p50: Duration,
    p99: Duration,
    /// Bytes of write-ahead log.
    wal: f64,
}

impl Setting<'_> {
    async fn place(&self, name: &str) -> Place {
        let database_url = self
            .servers
            .create_database(name, None)
            .await
            .unwrap()
            .into();
        Place {
            database_url,
            amqp_url: self.servers.create_vhost(name).await.unwrap().into(),
        }
    }
}

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse::<usize>().ok());
    let (jobs, in_flight) = (
        numbers.next().unwrap_or(20_000),
        numbers.next().unwrap_or(256),
    );
    let servers = Servers::start(Path::new(env!("CARGO_BIN_EXE_dispatch")), |line| {
        eprintln!("{line}")
    })
    .await
    .unwrap();
    let setting = Setting {
        servers: &servers,
        jobs,
        in_flight,
    };
    println!("{jobs} jobs of {STAGES} stages, {in_flight} in flight");
    println!(
        "{:<28} {:>8} {:>9} {:>9} {:>9} {:>8}",
        "", "jobs/s", "of bare", "p50 ms", "p99 ms", "WAL kB"
    );
    let grouped = bare::run(&setting, bare::Commits::Grouped).await;
    tell(&setting, "bare, grouped commits", &grouped, &grouped);
    tell(
        &setting,
        "bare, a commit for each stage",
        &bare::run(&setting, bare::Commits::Single).await,
        &grouped,
    );
    tell(
        &setting,
        "the engine",
        &engine::run(&setting).await,
        &grouped,
    );
    let light = engine::light(&setting).await;
    println!(
        "the engine at 50 jobs/s: p50 {:.1} ms, p99 {:.1} ms",
        millis(light.p50),
        millis(light.p99)
    );
    servers.stop().await;
}

fn tell(setting: &Setting<'_>, name: &str, figures: &Figures, bare: &Figures) {
    let jobs = setting.jobs as f64;
    println!(
        "{name:<28} {:>8.0} {:>9.2} {:>9.1} {:>9.1} {:>8.1}",
        jobs / figures.took.as_secs_f64(),
        bare.took.as_secs_f64() / figures.took.as_secs_f64(),
        millis(figures.p50),
        millis(figures.p99),
        figures.wal / jobs / 1000.0
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns the quantile `of` of sorted times.
fn quantile(sorted: &[Duration], of: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
}

/// Returns the position of the end of Postgres' write-ahead log, in bytes.
async fn wal(client: &tokio_postgres::Client) -> f64 {
    let row = client
        .query_one(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS bytes",
            &[],
        )
        .await
        .unwrap();
    row.get("bytes")
}
