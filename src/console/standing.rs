//! Whether the infrastructure stands: the sentences about workers and RabbitMQ that several pages
//! have.

use time::OffsetDateTime;

use super::pages::words::span;
use crate::store::{EndedReplica, FleetReplica, ReplicaEnd};

/// Returns how a replica ended, as the end of a sentence about it.
pub(super) const fn how_it_ended(how: ReplicaEnd) -> &'static str {
    match how {
        ReplicaEnd::Orderly => "ended in order",
        ReplicaEnd::Continued => "lost its lease and went on as another replica",
        ReplicaEnd::TakenOver => "died, and its jobs were taken over",
        ReplicaEnd::LeaseExpired => "died, and its jobs wait for a worker",
    }
}

/// Returns the sentence about the absence of workers, with the one about the last worker if it is
/// given.
pub(super) fn no_worker(last: Option<&str>) -> String {
    let last = last.map_or_else(String::new, |last| format!(" {last}"));
    format!("No worker runs.{last} Accepted jobs are safe; nothing moves until a worker starts.")
}

/// Returns the sentence about the worker that ended last, with its host. `ended` are those that
/// have ended, the last first.
pub(super) fn last_worker(ended: &[EndedReplica], now: OffsetDateTime) -> String {
    ended.first().map_or_else(
        || "None has ended within a day.".to_owned(),
        |last| {
            format!(
                "The last one, replica {} of version {} on {}, {}, {} ago.",
                last.id,
                last.version,
                last.host,
                how_it_ended(last.how),
                span((now - last.ended_at).whole_seconds())
            )
        },
    )
}

/// Returns the sentence about RabbitMQ, if a worker reports that it is away.
pub(super) fn rabbitmq_away(fleet: &[FleetReplica]) -> Option<String> {
    let away = fleet.iter().filter(|replica| replica.rabbitmq_away).count();
    match (away, fleet.len()) {
        (0, _) => None,
        (away, all) if away == all => Some(
            "RabbitMQ is away, as every worker reports: accepted jobs are safe, nothing new starts."
                .to_owned(),
        ),
        (away, all) => Some(format!(
            "RabbitMQ is away for {away} of {all} workers: the others go on."
        )),
    }
}

/// Returns the versions of the running workers, if there are several.
pub(super) fn versions(fleet: &[FleetReplica]) -> Option<Vec<&str>> {
    let mut versions: Vec<&str> = fleet
        .iter()
        .map(|replica| replica.row.version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    (versions.len() > 1).then_some(versions)
}

#[cfg(test)]
pub(super) mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;
    use crate::store::ReplicaRow;

    pub(in crate::console) const NOW: OffsetDateTime = datetime!(2026-01-01 12:00:00 UTC);

    pub(in crate::console) fn replica(id: i64, version: &str, rabbitmq_away: bool) -> FleetReplica {
        FleetReplica {
            row: ReplicaRow {
                id,
                version: version.to_owned(),
                host: "h".to_owned(),
                pid: 1,
                started_at: NOW,
                lease_until: NOW,
                lanes: vec!["dispatch".to_owned()],
                running: 0,
                draining: false,
            },
            sampled_at: Some(NOW),
            permits_used: 0,
            permits: 16,
            not_ready: Vec::new(),
            deaf: Vec::new(),
            rabbitmq_away,
            intake_paused: None,
        }
    }

    pub(in crate::console) fn ended(how: ReplicaEnd) -> EndedReplica {
        EndedReplica {
            id: 7,
            version: "0.1.0".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            started_at: NOW - Duration::hours(1),
            ended_at: NOW - Duration::seconds(185),
            how,
        }
    }

    #[test]
    fn without_a_worker_the_last_one_and_its_end_are_named() {
        assert_eq!(
            last_worker(&[ended(ReplicaEnd::LeaseExpired)], NOW),
            "The last one, replica 7 of version 0.1.0 on h, died, and its jobs wait for a worker, 3 min 5 s ago."
        );
        assert_eq!(last_worker(&[], NOW), "None has ended within a day.");
        assert_eq!(
            no_worker(Some("It ended.")),
            "No worker runs. It ended. Accepted jobs are safe; nothing moves until a worker starts."
        );
    }

    #[test]
    fn rabbitmq_is_away_for_all_or_for_some() {
        let fleet = |away: &[bool]| -> Vec<FleetReplica> {
            (1..)
                .zip(away)
                .map(|(id, away)| replica(id, "1", *away))
                .collect()
        };
        assert_eq!(rabbitmq_away(&fleet(&[])), None);
        assert_eq!(rabbitmq_away(&fleet(&[false, false])), None);
        assert!(
            rabbitmq_away(&fleet(&[true, true]))
                .unwrap()
                .contains("every worker")
        );
        assert!(
            rabbitmq_away(&fleet(&[true, false]))
                .unwrap()
                .contains("1 of 2 workers")
        );
    }

    #[test]
    fn two_versions_are_named_and_one_is_not() {
        assert_eq!(
            versions(&[replica(1, "1", false), replica(2, "1", false)]),
            None
        );
        let both = [replica(1, "2", false), replica(2, "1", false)];
        assert_eq!(versions(&both), Some(vec!["1", "2"]));
    }
}
