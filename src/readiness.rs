//! The checks behind `/readyz`.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker::{Link, Publisher};
use crate::fault::chain;
use crate::job::ReplicaId;
use crate::maintenance::Duties;
use crate::ops::{Check, Readiness};
use crate::store::Store;
use crate::worker::{IntakeThrottle, Lease};

/// Whether a queue's consumer is connected and receives.
pub(crate) struct LaneHealth {
    pub(crate) name: &'static str,
    pub(crate) stalled: watch::Receiver<bool>,
    pub(crate) link: watch::Receiver<Link>,
}

struct Incarnation {
    lease: Arc<Lease>,
    lanes: Vec<LaneHealth>,
    throttle: Arc<IntakeThrottle>,
}

/// The readiness of a worker: Postgres is writable, the schema new enough, the publisher connected
/// and not blocked, the lease held; each lane receives, no drain has begun, and no duty is late.
pub(crate) struct WorkerReadiness {
    store: Store,
    publisher: Publisher,
    drain: CancellationToken,
    duties: Arc<Duties>,
    incarnation: Mutex<Option<Incarnation>>,
}

impl WorkerReadiness {
    pub(crate) const fn new(
        store: Store,
        publisher: Publisher,
        drain: CancellationToken,
        duties: Arc<Duties>,
    ) -> Self {
        Self {
            store,
            publisher,
            drain,
            duties,
            incarnation: Mutex::new(None),
        }
    }

    /// Replaces the parts of the previous incarnation by those of a new one.
    pub(crate) fn incarnation(
        &self,
        lease: Arc<Lease>,
        lanes: Vec<LaneHealth>,
        throttle: Arc<IntakeThrottle>,
    ) {
        *self
            .incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Incarnation {
            lease,
            lanes,
            throttle,
        });
    }

    /// Returns the replica of the last incarnation, or `None` if none has begun.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        let known = self
            .incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known
            .as_ref()
            .map(|incarnation| incarnation.lease.replica())
    }

    /// Returns why intake is paused, or `None` where it is not.
    pub(crate) fn intake_paused(&self) -> Option<String> {
        let known = self
            .incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.as_ref()?.throttle.paused()
    }

    fn of_incarnation(&self) -> Vec<Check> {
        let known = self
            .incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(incarnation) = known.as_ref() else {
            return vec![check("lease", Err("no incarnation has begun".to_owned()))];
        };
        let lost = incarnation.lease.lost().is_cancelled();
        let lease = if lost {
            Err("lost; a new incarnation begins".to_owned())
        } else {
            Ok(format!("replica {}", incarnation.lease.replica()))
        };
        let mut checks = vec![check("lease", lease)];
        for lane in &incarnation.lanes {
            let state = match &*lane.link.borrow() {
                Link::Down(why) => Err(why.clone()),
                Link::Up(_) if *lane.stalled.borrow() => {
                    Err("its queue has messages and the consumer receives none".to_owned())
                }
                Link::Up(since) => Ok(format!("consuming for {} s", since.elapsed().as_secs())),
            };
            checks.push(check(&format!("lane_{}", lane.name), state));
        }
        // A full backlog is shown, but the worker is ready: it is not a fault of this worker.
        checks.push(check(
            "backlog",
            Ok(incarnation
                .throttle
                .paused()
                .unwrap_or_else(|| "intake is not paused".to_owned())),
        ));
        checks
    }
}

impl Readiness for WorkerReadiness {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        async move {
            let postgres = self
                .store
                .check_writable()
                .await
                .map(|()| "writable".to_owned())
                .map_err(|error| chain(&error));
            let schema = match self.store.schema_version().await {
                Ok((found, needed)) if found >= needed => Ok(format!("V{found}")),
                Ok((found, needed)) => Err(format!(
                    "expected V{needed}, got V{found}; run `dispatch migrate`"
                )),
                Err(error) => Err(chain(&error)),
            };
            let publisher = self
                .publisher
                .trouble()
                .map_or_else(|| Ok("connected".to_owned()), |error| Err(chain(&error)));
            let draining = if self.drain.is_cancelled() {
                Err("draining".to_owned())
            } else {
                Ok("no".to_owned())
            };
            let mut checks = vec![
                check("postgres", postgres),
                check("schema", schema),
                check("publisher", publisher),
                check("draining", draining),
            ];
            checks.extend(self.of_incarnation());
            checks.extend(self.duties.standings().into_iter().map(|standing| {
                let name = format!("duty_{}", standing.duty);
                check(
                    &name,
                    if standing.is_late {
                        Err(standing.detail)
                    } else {
                        Ok(standing.detail)
                    },
                )
            }));
            checks
        }
        .boxed()
    }
}

fn check(name: &str, seen: Result<String, String>) -> Check {
    let ok = seen.is_ok();
    Check {
        name: name.to_owned(),
        ok,
        detail: seen.unwrap_or_else(|why| why),
    }
}
