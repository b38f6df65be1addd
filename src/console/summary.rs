//! One sentence for whoever was woken: is it us, a vendor or the infrastructure?

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::pages::words::clock;
use super::standing;
use crate::operations::name_of_scope;
use crate::store::{
    CappedCount, ControlRow, EndedReplica, FleetReplica, LaneRow, StuckCode, StuckRow,
};

/// Most findings that the sentence names.
const NAMED: usize = 4;

/// Where the most urgent finding lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    /// Everything moves.
    Nothing,
    /// Postgres, RabbitMQ, or the absence of workers.
    Infrastructure,
    /// The workers do not do what they should.
    Us,
    /// A service that the jobs call.
    Vendor,
    /// A person has stopped something, or must act.
    People,
}

/// The state of everything in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Summary {
    /// Where the most urgent finding lies.
    pub(super) cause: Cause,
    /// The sentence, with the most urgent finding first.
    pub(super) sentence: String,
}

/// What the sentence is made of; `None` is what could not be read.
#[derive(Clone, Copy)]
pub(super) struct Facts<'f> {
    pub(super) controls: Option<&'f [ControlRow]>,
    pub(super) stuck: Option<&'f [StuckRow]>,
    pub(super) fleet: Option<&'f [FleetReplica]>,
    /// The last first.
    pub(super) ended: Option<&'f [EndedReplica]>,
    pub(super) lanes: Option<&'f [LaneRow]>,
    pub(super) now: OffsetDateTime,
}

/// A finding: a clause without its full stop.
struct Finding {
    cause: Cause,
    clause: String,
}

impl Finding {
    fn new(cause: Cause, clause: impl Into<String>) -> Self {
        Self {
            cause,
            clause: clause.into(),
        }
    }
}

impl Facts<'_> {
    /// Returns the sentence.
    pub(super) fn summary(&self) -> Summary {
        let findings = self.findings();
        let is_complete = self.controls.is_some()
            && self.fleet.is_some()
            && self
                .stuck
                .is_some_and(|rows| rows.iter().all(|row| row.error.is_none()));
        let Some(first) = findings.first() else {
            return if is_complete {
                Summary {
                    cause: Cause::Nothing,
                    sentence: "Everything moves: nothing is stuck, held or paused.".to_owned(),
                }
            } else {
                Summary {
                    cause: Cause::Infrastructure,
                    sentence: "Not everything could be read from Postgres; what could be read is in order."
                        .to_owned(),
                }
            };
        };
        let named: Vec<&str> = findings
            .iter()
            .take(NAMED)
            .map(|finding| finding.clause.as_str())
            .collect();
        let rest = match (findings.len().saturating_sub(NAMED), is_complete) {
            (0, true) if self.rest_flows(&findings) => "; all else flows",
            (0, true) => "",
            (0, false) => "; not everything could be read",
            _ => "; and more, listed below",
        };
        Summary {
            cause: first.cause,
            sentence: capitalized(&format!("{}{rest}.", named.join("; "))),
        }
    }

    /// Returns the findings, the most urgent first.
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (fleet, controls) = (self.fleet, self.controls.unwrap_or_default());
        if let Some([]) = fleet {
            let last = standing::last_worker(self.ended.unwrap_or_default(), self.now);
            let text = standing::no_worker(Some(&last));
            let clause = text.trim_end_matches('.');
            findings.push(Finding::new(Cause::Infrastructure, clause));
        }
        if let Some(text) = standing::rabbitmq_away(fleet.unwrap_or_default()) {
            let clause = text.trim_end_matches('.');
            findings.push(Finding::new(Cause::Infrastructure, clause));
        }
        findings.extend(self.pause(controls));
        if fleet.is_none_or(|fleet| !fleet.is_empty()) {
            findings.extend(self.stuck_of(Cause::Us));
        }
        findings.extend(self.holds(controls));
        findings.extend(self.intake());
        findings.extend(self.stuck_of(Cause::Vendor));
        findings.extend(self.stuck_of(Cause::People));
        findings
    }

    /// Nothing flows without a worker, without RabbitMQ or during the pause.
    fn rest_flows(&self, findings: &[Finding]) -> bool {
        let is_paused = self
            .controls
            .is_some_and(|rows| rows.iter().any(|row| row.kind == "pause"));
        let is_down = |finding: &Finding| finding.cause == Cause::Infrastructure;
        !is_paused && !findings.iter().any(is_down)
    }

    fn pause(&self, controls: &[ControlRow]) -> Option<Finding> {
        let pause = controls.iter().find(|row| row.kind == "pause")?;
        let until = clock(pause.expires_at, self.now);
        let clause = format!(
            "Everything is paused by {} until {until} ({})",
            pause.who,
            pause.reason.trim_end_matches('.')
        );
        Some(Finding::new(Cause::People, clause))
    }

    /// Returns the holds for which jobs wait: that with the most jobs, and the number of others.
    fn holds(&self, controls: &[ControlRow]) -> Option<Finding> {
        let mut holds: Vec<&ControlRow> = controls
            .iter()
            .filter(|row| ["hold", "circuit"].contains(&row.kind.as_str()))
            .filter(|row| !row.waiting.is_zero())
            .collect();
        holds.sort_by_key(|row| std::cmp::Reverse(row.waiting.at_least()));
        let (first, others) = holds.split_first()?;
        let (cause, by) = if first.automatic {
            (Cause::Vendor, String::new())
        } else {
            (Cause::People, format!(" by {}", first.who))
        };
        let others = match others.len() {
            0 => String::new(),
            1 => ", and jobs for one other hold".to_owned(),
            several => format!(", and jobs for {several} other holds"),
        };
        let clause = format!(
            "{} for {}, held{by} until {}{others}",
            jobs(first.waiting, "waits", "wait"),
            name_of_scope(&first.scope),
            clock(first.expires_at, self.now)
        );
        Some(Finding::new(cause, clause))
    }

    fn intake(&self) -> Option<Finding> {
        let lanes = self.lanes.unwrap_or_default().iter();
        let why = lanes
            .filter_map(|lane| lane.intake_paused.as_deref())
            .next()?;
        Some(Finding::new(Cause::Us, why))
    }

    /// Returns a finding for each stuck code of a cause.
    fn stuck_of(&self, cause: Cause) -> impl Iterator<Item = Finding> {
        let rows = self.stuck.unwrap_or_default().iter();
        let holds = self.controls.unwrap_or_default().iter();
        let is_held = holds.clone().any(|row| !row.waiting.is_zero());
        rows.filter_map(move |row| {
            let count = row.count.filter(|count| !count.is_zero())?;
            // The holds themselves say more.
            if row.code == StuckCode::Held && is_held {
                return None;
            }
            let (of, one, many) = words_of(row.code)?;
            (of == cause).then(|| Finding::new(cause, jobs(count, one, many)))
        })
    }
}

/// Returns where the cause of a stuck code lies, and the predicate for one job and for several.
/// `None` for a code whose jobs are counted with another one.
const fn words_of(code: StuckCode) -> Option<(Cause, &'static str, &'static str)> {
    Some(match code {
        StuckCode::OwnerDead => (
            Cause::Us,
            "has a dead owner and is not taken over",
            "have dead owners and are not taken over",
        ),
        StuckCode::NoProgress => (
            Cause::Us,
            "runs and has committed nothing for 15 min",
            "run and have committed nothing for 15 min",
        ),
        StuckCode::NotWoken => (
            Cause::Us,
            "is due and waits for a free worker",
            "are due and wait for a free worker",
        ),
        StuckCode::NoConsumers => (
            Cause::Us,
            "is due in a lane that no worker serves",
            "are due in lanes that no worker serves",
        ),
        StuckCode::WaitingVersion => (
            Cause::Us,
            "waits for a worker of a newer version",
            "wait for a worker of a newer version",
        ),
        StuckCode::RetryingLong => (
            Cause::Vendor,
            "has been failing for an hour",
            "have been failing for an hour",
        ),
        StuckCode::Held => (
            Cause::People,
            "waits for a disabled destination",
            "wait for disabled destinations",
        ),
        StuckCode::Parked => (
            Cause::People,
            "is parked and needs a person",
            "are parked and need a person",
        ),
        StuckCode::WaitingConfiguration => (
            Cause::People,
            "waits for the choice of an account",
            "wait for the choice of an account",
        ),
        StuckCode::WaitingReauthentication => (
            Cause::People,
            "waits for new tokens of an identity",
            "wait for new tokens of an identity",
        ),
        StuckCode::UnknownOutcome | StuckCode::CrashLoop => return None,
    })
}

fn capitalized(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(rest).collect()
}

fn jobs(count: CappedCount, one: &str, many: &str) -> String {
    if count.at_least() == 1 {
        format!("1 job {one}")
    } else {
        format!("{count} jobs {many}")
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::standing::tests::{NOW, ended, replica};
    use super::*;
    use crate::store::ReplicaEnd;

    fn stuck(code: StuckCode, count: i64) -> StuckRow {
        StuckRow {
            code,
            sentence: "",
            predicate: "",
            after_seconds: 0,
            next: "",
            operation: None,
            count: Some(CappedCount::of(count)),
            oldest: None,
            examples: Vec::new(),
            error: None,
        }
    }

    fn hold(scope: &str, automatic: bool, waiting: i64) -> ControlRow {
        ControlRow {
            id: 1,
            kind: "hold".to_owned(),
            scope: scope.to_owned(),
            matcher: None,
            is_understood: true,
            reason: "429".to_owned(),
            who: "olga".to_owned(),
            automatic,
            created_at: NOW,
            expires_at: NOW + Duration::minutes(9),
            waiting: CappedCount::of(waiting),
        }
    }

    fn said(
        controls: &[ControlRow],
        stuck: &[StuckRow],
        fleet: &[FleetReplica],
    ) -> (Cause, String) {
        let facts = Facts {
            controls: Some(controls),
            stuck: Some(stuck),
            fleet: Some(fleet),
            ended: Some(&[ended(ReplicaEnd::Orderly)]),
            lanes: None,
            now: NOW,
        };
        let Summary { cause, sentence } = facts.summary();
        (cause, sentence)
    }

    #[test]
    fn nothing_is_wrong() {
        let (cause, sentence) = said(
            &[hold("lane:messaging", false, 0)],
            &[stuck(StuckCode::Parked, 0)],
            &[replica(1, "1", false)],
        );
        assert_eq!(cause, Cause::Nothing);
        assert_eq!(
            sentence,
            "Everything moves: nothing is stuck, held or paused."
        );
    }

    #[test]
    fn a_vendor_s_hold_is_named_with_its_jobs_and_its_end() {
        let holds = [
            hold("acme|slack|7", true, 1),
            hold("contoso|azure_devops|dev.azure.com", true, 412),
        ];
        let fleet = [replica(1, "1", false)];
        let (cause, sentence) = said(&holds[1..], &[stuck(StuckCode::Held, 412)], &fleet);
        assert_eq!(cause, Cause::Vendor);
        assert_eq!(
            sentence,
            "412 jobs wait for contoso's Azure DevOps, held until 12:09 UTC; all else flows."
        );
        let (_, both) = said(&holds, &[], &fleet);
        assert!(
            both.contains("until 12:09 UTC, and jobs for one other hold;"),
            "{both}"
        );
    }

    #[test]
    fn without_a_worker_its_consequences_are_not_listed() {
        let rows = [
            stuck(StuckCode::NoConsumers, 9),
            stuck(StuckCode::Parked, 1),
        ];
        let (cause, sentence) = said(&[], &rows, &[]);
        assert_eq!(cause, Cause::Infrastructure);
        assert!(
            sentence.starts_with("No worker runs. The last one, replica 7"),
            "{sentence}"
        );
        assert!(
            sentence.ends_with("a worker starts; 1 job is parked and needs a person."),
            "{sentence}"
        );
    }

    #[test]
    fn what_is_ours_comes_before_what_needs_a_person() {
        let rows = [
            stuck(StuckCode::Parked, 10_001),
            stuck(StuckCode::NoProgress, 2),
        ];
        let (cause, sentence) = said(&[], &rows, &[replica(1, "1", false)]);
        assert_eq!(cause, Cause::Us);
        assert_eq!(
            sentence,
            "2 jobs run and have committed nothing for 15 min; 10,000+ jobs are parked and need a person; all else flows."
        );
    }

    #[test]
    fn a_pause_and_rabbitmq_away_leave_nothing_that_flows() {
        let mut pause = hold("all", false, 5);
        pause.kind = "pause".to_owned();
        let (cause, sentence) = said(&[pause], &[], &[replica(1, "1", true)]);
        assert_eq!(cause, Cause::Infrastructure);
        assert!(
            sentence.ends_with("; Everything is paused by olga until 12:09 UTC (429)."),
            "{sentence}"
        );
    }

    #[test]
    fn what_could_not_be_read_is_no_good_news() {
        let facts = Facts {
            controls: None,
            stuck: None,
            fleet: None,
            ended: None,
            lanes: None,
            now: NOW,
        };
        assert_eq!(facts.summary().cause, Cause::Infrastructure);
        let mut failed = stuck(StuckCode::Parked, 0);
        (failed.count, failed.error) = (None, Some("too slow".to_owned()));
        let (cause, _) = said(&[], &[failed], &[replica(1, "1", false)]);
        assert_eq!(cause, Cause::Infrastructure);
    }
}
