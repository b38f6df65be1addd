//! A duty: a named piece of work that is done again and again, with an interval, a bound, a metric, and a record of when it was last
//! done. No duty waits for another one.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::fault::chain;
use crate::telemetry::names;

/// What a duty met.
pub type Trouble = Box<dyn Error + Send + Sync>;

/// How a duty is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// As in metrics, logs and `/readyz`.
    pub name: &'static str,
    /// From the end of one run to the beginning of the next.
    pub every: Duration,
    /// A run ends after this, at the latest; what is left is done in the next.
    pub at_most: Duration,
    /// Not done for longer than this, it is late.
    pub late_after: Duration,
}

/// One of a replica's duties.
pub trait Duty: Send + 'static {
    /// How it is done.
    const PLAN: Plan;

    /// One bounded round; `true`: there is more, which the same run goes on with. `now` is this machine's clock.
    fn round(&mut self, now: OffsetDateTime) -> impl Future<Output = Result<bool, Trouble>> + Send;
}

/// A run that fails is made again after this, where its interval is longer.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A duty that was never done in this process is late after this, at the latest.
const FIRST_WITHIN: Duration = Duration::from_secs(600);

/// When each of a process's duties was last done, whatever becomes of its incarnations.
#[derive(Debug, Default)]
pub struct Duties(Mutex<BTreeMap<&'static str, Seen>>);

#[derive(Debug)]
struct Seen {
    plan: Plan,
    since: Instant,
    done: Option<Instant>,
    trouble: Option<String>,
}

/// How a duty stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub duty: &'static str,
    /// It has not been done for too long.
    pub is_late: bool,
    /// When it was last done, and what its last run met.
    pub detail: String,
}

impl Duties {
    /// How each stands now, by name; sets the gauge of those that are late.
    pub fn standings(&self) -> Vec<Standing> {
        let seen = self.seen();
        let standings: Vec<_> = seen.values().map(Seen::standing).collect();
        for standing in &standings {
            metrics::gauge!(names::DUTY_LATE, "duty" => standing.duty).set(f64::from(u8::from(standing.is_late)));
        }
        standings
    }

    fn expect(&self, plan: Plan) {
        self.seen().entry(plan.name).or_insert_with(|| Seen { plan, since: Instant::now(), done: None, trouble: None });
    }

    /// Records a run. What goes wrong again and again is logged once.
    fn record(&self, plan: Plan, result: Result<(), String>) {
        let mut all = self.seen();
        let Some(seen) = all.get_mut(plan.name) else { return };
        match result {
            Ok(()) => {
                seen.done = Some(Instant::now());
                if seen.trouble.take().is_some() {
                    tracing::info!(duty = plan.name, "the duty is done again");
                }
            }
            Err(why) => {
                if seen.trouble.is_none() {
                    tracing::warn!(duty = plan.name, error = why, "the duty failed; it is tried again");
                }
                seen.trouble = Some(why);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<&'static str, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn standing(&self) -> Standing {
        let (since, limit) = match self.done {
            Some(done) => (done.elapsed(), self.plan.late_after),
            None => (self.since.elapsed(), self.plan.late_after.min(FIRST_WITHIN)),
        };
        let is_late = since > limit;
        let last = if self.done.is_some() { format!("done {} s ago", since.as_secs()) } else { "not done yet".to_owned() };
        let trouble = self.trouble.as_ref().map(|why| format!("; last error: {why}")).unwrap_or_default();
        let late = if is_late { format!("late, expected every {} s; ", self.plan.every.as_secs_f64()) } else { String::new() };
        Standing { duty: self.plan.name, is_late, detail: format!("{late}{last}{trouble}") }
    }
}

/// Does a duty again and again until `end`.
pub async fn keep<D: Duty>(mut duty: D, duties: Arc<Duties>, end: CancellationToken) {
    duties.expect(D::PLAN);
    while !end.is_cancelled() {
        let round = async {
            let pause = run(&mut duty, &duties).await;
            tokio::time::sleep(pause).await;
        };
        if end.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// One run: round after round while there is more and time. How long to wait for the next.
async fn run<D: Duty>(duty: &mut D, duties: &Duties) -> Duration {
    let plan = D::PLAN;
    let began = Instant::now();
    let rounds = async {
        while duty.round(OffsetDateTime::now_utc()).await? {
            if began.elapsed() >= plan.at_most {
                return Ok(true);
            }
        }
        Ok::<_, Trouble>(false)
    };
    // A round that hangs is given up a little later than a run that is long.
    let ended = tokio::time::timeout(plan.at_most + plan.at_most / 4, rounds).await;
    let (outcome, result, pause) = match ended {
        Ok(Ok(false)) => ("done", Ok(()), plan.every),
        Ok(Ok(true)) => ("more", Ok(()), plan.every.min(Duration::from_secs(1))),
        Ok(Err(trouble)) => ("failed", Err(chain(trouble.as_ref())), plan.every.min(AGAIN_AFTER)),
        Err(_) => ("cut", Err(format!("it took longer than {} s", plan.at_most.as_secs_f64())), plan.every.min(AGAIN_AFTER)),
    };
    metrics::histogram!(names::DUTY_SECONDS, "duty" => plan.name, "outcome" => outcome).record(began.elapsed());
    duties.record(plan, result);
    pause
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "counted";

    /// Says of each round whether there is more, or fails.
    struct Scripted(Vec<Result<bool, &'static str>>);

    impl Duty for Scripted {
        const PLAN: Plan = Plan {
            name: NAME,
            every: Duration::from_secs(60),
            at_most: Duration::from_secs(5),
            late_after: Duration::from_secs(120),
        };

        async fn round(&mut self, _: OffsetDateTime) -> Result<bool, Trouble> {
            match self.0.remove(0) {
                Ok(more) => Ok(more),
                Err(why) => Err(why.into()),
            }
        }
    }

    struct Hanging;

    impl Duty for Hanging {
        const PLAN: Plan = Plan { at_most: Duration::from_millis(20), ..Scripted::PLAN };

        async fn round(&mut self, _: OffsetDateTime) -> Result<bool, Trouble> {
            std::future::pending().await
        }
    }

    fn expected() -> Duties {
        let duties = Duties::default();
        duties.expect(Scripted::PLAN);
        duties
    }

    #[tokio::test]
    async fn a_run_goes_on_while_there_is_more() {
        let duties = expected();
        let mut duty = Scripted(vec![Ok(true), Ok(true), Ok(false), Ok(false)]);
        assert_eq!(run(&mut duty, &duties).await, Scripted::PLAN.every);
        assert_eq!(duty.0.len(), 1);
        assert_eq!(duties.standings()[0].detail, "done 0 s ago");
    }

    #[tokio::test]
    async fn a_failed_run_comes_again_soon_and_says_what_it_met() {
        let duties = expected();
        let mut duty = Scripted(vec![Err("no answer"), Ok(false)]);
        assert_eq!(run(&mut duty, &duties).await, AGAIN_AFTER);
        assert_eq!(duties.standings()[0].detail, "not done yet; last error: no answer");
        run(&mut duty, &duties).await;
        assert_eq!(duties.standings()[0].detail, "done 0 s ago");
    }

    #[tokio::test]
    async fn a_round_that_hangs_is_cut() {
        let duties = expected();
        assert_eq!(run(&mut Hanging, &duties).await, AGAIN_AFTER);
        assert!(duties.standings()[0].detail.contains("took longer than"));
    }

    #[test]
    fn a_duty_is_late_after_its_time_and_one_that_was_never_done_after_ten_minutes() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("the machine runs for longer");
        let daily = Plan { late_after: Duration::from_secs(100_000), ..Scripted::PLAN };
        let late = |plan, since, done| Seen { plan, since, done, trouble: None }.standing().is_late;
        assert!(!late(Scripted::PLAN, ago(119), None) && late(Scripted::PLAN, ago(121), None));
        assert!(!late(Scripted::PLAN, ago(500), Some(ago(119))) && late(Scripted::PLAN, ago(500), Some(ago(121))));
        assert!(!late(daily, ago(599), None) && late(daily, ago(601), None) && !late(daily, ago(900), Some(ago(700))));
    }
}
