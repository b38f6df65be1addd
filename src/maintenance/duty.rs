//! A duty: named work that is repeated at an interval, with a time limit, a metric, and a record
//! of when it was last done. No duty waits for another one.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::fault::chain;
use crate::telemetry::names;

/// The error of a failed round.
pub type DutyError = Box<dyn Error + Send + Sync>;

/// The schedule of a duty.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The name in metrics, logs and `/readyz`.
    pub name: &'static str,
    /// The time from the end of one run to the beginning of the next.
    pub every: Duration,
    /// The longest time for a run; the next run does the rest.
    pub at_most: Duration,
    /// The duty is late when it has not been done for longer than this.
    pub late_after: Duration,
}

/// One of a replica's duties.
pub trait Duty: Send + 'static {
    const PLAN: Plan;

    /// Does one bounded round. Returns `true` if there is more to do, with which the same run
    /// continues. `now` is this machine's clock.
    fn round(
        &mut self,
        now: OffsetDateTime,
    ) -> impl Future<Output = Result<bool, DutyError>> + Send;
}

/// The longest delay before a failed run is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A duty that was never done in this process is late after this time at the latest.
const FIRST_WITHIN: Duration = Duration::from_secs(600);

/// How a run can end, as a label.
const OUTCOMES: [&str; 4] = ["done", "more", "failed", "cut"];

/// The record of when each duty of the process was last done, across its incarnations.
#[derive(Debug, Default)]
pub struct Duties(Mutex<BTreeMap<&'static str, Seen>>);

#[derive(Debug)]
struct Seen {
    plan: Plan,
    since: Instant,
    done: Option<Instant>,
    last_error: Option<String>,
}

/// The status of a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DutyStatus {
    pub duty: &'static str,
    /// Whether the duty has not been done for too long.
    pub is_late: bool,
    /// When the duty was last done, and the error of its last run if it failed.
    pub detail: String,
}

impl Duties {
    /// Returns the status of every duty, by name, and sets the gauge of late duties.
    pub fn standings(&self) -> Vec<DutyStatus> {
        let seen = self.seen();
        let statuses: Vec<_> = seen.values().map(Seen::status).collect();
        for status in &statuses {
            metrics::gauge!(names::DUTY_LATE, "duty" => status.duty)
                .set(f64::from(u8::from(status.is_late)));
        }
        statuses
    }

    /// Begins the record of a duty, and its series.
    fn expect(&self, plan: Plan) {
        drop(metrics::histogram!(names::DUTY_SECONDS, "duty" => plan.name));
        metrics::gauge!(names::DUTY_LATE, "duty" => plan.name).set(0.0);
        for outcome in OUTCOMES {
            metrics::counter!(names::DUTY_RUNS, "duty" => plan.name, "outcome" => outcome)
                .increment(0);
        }
        self.seen().entry(plan.name).or_insert_with(|| Seen {
            plan,
            since: Instant::now(),
            done: None,
            last_error: None,
        });
    }

    /// Records a run. Repeated failures are logged once.
    fn record(&self, plan: Plan, result: Result<(), String>) {
        let mut all = self.seen();
        let Some(seen) = all.get_mut(plan.name) else {
            return;
        };
        match result {
            Ok(()) => {
                seen.done = Some(Instant::now());
                if seen.last_error.take().is_some() {
                    tracing::info!(duty = plan.name, "the duty succeeded again");
                }
            }
            Err(why) => {
                if seen.last_error.is_none() {
                    tracing::warn!(
                        duty = plan.name,
                        error = why,
                        "the duty failed; it is repeated"
                    );
                }
                seen.last_error = Some(why);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<&'static str, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn status(&self) -> DutyStatus {
        let (since, limit) = match self.done {
            Some(done) => (done.elapsed(), self.plan.late_after),
            None => (self.since.elapsed(), self.plan.late_after.min(FIRST_WITHIN)),
        };
        let is_late = since > limit;
        let last = if self.done.is_some() {
            format!("done {} s ago", since.as_secs())
        } else {
            "not done yet".to_owned()
        };
        let error = self
            .last_error
            .as_ref()
            .map(|why| format!("; last error: {why}"))
            .unwrap_or_default();
        let late = if is_late {
            format!("late, expected every {} s; ", self.plan.every.as_secs_f64())
        } else {
            String::new()
        };
        DutyStatus {
            duty: self.plan.name,
            is_late,
            detail: format!("{late}{last}{error}"),
        }
    }
}

/// Repeats a duty until `end`.
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

/// Does one run: rounds while there is more to do and time is left. Returns how long to wait
/// before the next run.
async fn run<D: Duty>(duty: &mut D, duties: &Duties) -> Duration {
    let plan = D::PLAN;
    let began = Instant::now();
    let rounds = async {
        while duty.round(OffsetDateTime::now_utc()).await? {
            if began.elapsed() >= plan.at_most {
                return Ok(true);
            }
        }
        Ok::<_, DutyError>(false)
    };
    // A run with a round that hangs is cut off a little later than a run that is merely long.
    let ended = tokio::time::timeout(plan.at_most + plan.at_most / 4, rounds).await;
    let (outcome, result, pause) = match ended {
        Ok(Ok(false)) => ("done", Ok(()), plan.every),
        Ok(Ok(true)) => ("more", Ok(()), plan.every.min(Duration::from_secs(1))),
        Ok(Err(error)) => (
            "failed",
            Err(chain(error.as_ref())),
            plan.every.min(AGAIN_AFTER),
        ),
        Err(_) => (
            "cut",
            Err(format!(
                "it took longer than {} s",
                plan.at_most.as_secs_f64()
            )),
            plan.every.min(AGAIN_AFTER),
        ),
    };
    metrics::histogram!(names::DUTY_SECONDS, "duty" => plan.name).record(began.elapsed());
    metrics::counter!(names::DUTY_RUNS, "duty" => plan.name, "outcome" => outcome).increment(1);
    duties.record(plan, result);
    pause
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "counted";

    /// Returns the scripted result of each round.
    struct Scripted(Vec<Result<bool, &'static str>>);

    impl Duty for Scripted {
        const PLAN: Plan = Plan {
            name: NAME,
            every: Duration::from_secs(60),
            at_most: Duration::from_secs(5),
            late_after: Duration::from_secs(120),
        };

        async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
            match self.0.remove(0) {
                Ok(more) => Ok(more),
                Err(why) => Err(why.into()),
            }
        }
    }

    struct Hanging;

    impl Duty for Hanging {
        const PLAN: Plan = Plan {
            at_most: Duration::from_millis(20),
            ..Scripted::PLAN
        };

        async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
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
    async fn a_failed_run_is_repeated_soon_and_reports_its_error() {
        let duties = expected();
        let mut duty = Scripted(vec![Err("no answer"), Ok(false)]);
        assert_eq!(run(&mut duty, &duties).await, AGAIN_AFTER);
        assert_eq!(
            duties.standings()[0].detail,
            "not done yet; last error: no answer"
        );
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
        let ago = |seconds| {
            now.checked_sub(Duration::from_secs(seconds))
                .expect("the machine runs for longer")
        };
        let daily = Plan {
            late_after: Duration::from_secs(100_000),
            ..Scripted::PLAN
        };
        let late = |plan, since, done| {
            Seen {
                plan,
                since,
                done,
                last_error: None,
            }
            .status()
            .is_late
        };
        assert!(!late(Scripted::PLAN, ago(119), None) && late(Scripted::PLAN, ago(121), None));
        assert!(
            !late(Scripted::PLAN, ago(500), Some(ago(119)))
                && late(Scripted::PLAN, ago(500), Some(ago(121)))
        );
        assert!(
            !late(daily, ago(599), None)
                && late(daily, ago(601), None)
                && !late(daily, ago(900), Some(ago(700)))
        );
    }
}
