//! The bar of every page: what is in force for all jobs, and where it is ended.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::pages::words::clock;
use super::schema::OtherSchema;
use super::standing;
use super::state::Console;
use crate::store::{ControlRow, EndedReplica, FleetReplica};

/// A line of the bar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct InForce {
    /// A sentence that names no organization, no person and no host.
    pub(super) text: String,
    /// Who did it and why, or which worker ended last; for those who see every organization.
    pub(super) detail: Option<String>,
    /// The page where it is ended, or explained.
    pub(super) path: &'static str,
    /// The name of the link to that page.
    pub(super) link: &'static str,
}

/// The bar.
#[derive(Debug, Clone, Default)]
pub(super) struct Bar {
    pub(super) lines: Vec<InForce>,
    /// Whether nothing can be changed: the database has another schema.
    pub(super) is_read_only: bool,
}

/// Reads the bar.
pub(super) async fn read(console: &Console) -> Bar {
    let (panels, store) = (&console.panels, &console.parts.reads);
    let (schema, lines) = tokio::join!(panels.schema(store), read_lines(console));
    let other = schema.value().copied().flatten();
    Bar {
        lines: other.map(of_schema).into_iter().chain(lines).collect(),
        is_read_only: other.is_some(),
    }
}

async fn read_lines(console: &Console) -> Vec<InForce> {
    let (panels, store) = (&console.panels, &console.parts.reads);
    let (controls, fleet, now) =
        tokio::join!(panels.controls(store), panels.fleet(store), store.now());
    let Ok(now) = now else {
        return lines(None, None, &[], OffsetDateTime::UNIX_EPOCH);
    };
    // Who was last matters only if nobody is left.
    let ended = match fleet.value() {
        Some(fleet) if fleet.is_empty() => Some(panels.ended(store).await),
        _ => None,
    };
    let ended = ended.as_ref().and_then(|ended| ended.value());
    lines(
        controls.value().map(|list| list.controls.as_slice()),
        fleet.value().map(Vec::as_slice),
        ended.map_or(&[], Vec::as_slice),
        now,
    )
}

/// Returns the lines for what could be read.
fn lines(
    controls: Option<&[ControlRow]>,
    fleet: Option<&[FleetReplica]>,
    ended: &[EndedReplica],
    now: OffsetDateTime,
) -> Vec<InForce> {
    let mut lines = Vec::new();
    match fleet {
        Some([]) => lines.push(InForce {
            detail: Some(standing::last_worker(ended, now)),
            ..of_fleet(standing::no_worker(None))
        }),
        Some(fleet) => {
            lines.extend(standing::rabbitmq_away(fleet).map(of_fleet));
            let versions = standing::versions(fleet).map(|versions| {
                let names = versions.join(", ");
                format!("Workers of {} versions run: {names}.", versions.len())
            });
            lines.extend(versions.map(of_fleet));
        }
        None => lines.push(of_fleet("It is not known which workers run.".to_owned())),
    }
    match controls {
        Some(controls) => {
            lines.extend(paused(controls, now));
            lines.extend(kill_switches(controls));
        }
        None => lines.push(of_controls(
            "It is not known what is held, paused or killed.".to_owned(),
        )),
    }
    lines
}

fn of_schema(other: OtherSchema) -> InForce {
    of_fleet(other.sentence())
}

const fn of_fleet(text: String) -> InForce {
    InForce {
        text,
        detail: None,
        path: "/fleet",
        link: "Fleet",
    }
}

const fn of_controls(text: String) -> InForce {
    InForce {
        text,
        detail: None,
        path: "/controls",
        link: "End it",
    }
}

fn paused(controls: &[ControlRow], now: OffsetDateTime) -> Option<InForce> {
    let pause = controls.iter().find(|row| row.kind == "pause")?;
    let until = clock(pause.expires_at, now);
    Some(InForce {
        detail: Some(format!("By {}: {}", pause.who, pause.reason)),
        ..of_controls(format!("Everything is paused until {until}."))
    })
}

fn kill_switches(controls: &[ControlRow]) -> Option<InForce> {
    let switches: Vec<&ControlRow> = controls
        .iter()
        .filter(|row| row.kind == "kill_switch")
        .collect();
    let last = switches.last()?;
    let text = match switches.len() {
        1 => "A kill switch is in force.".to_owned(),
        several => format!("{several} kill switches are in force."),
    };
    let unknown = switches.iter().filter(|row| !row.is_understood).count();
    let unknown = match unknown {
        0 => String::new(),
        several => {
            format!(" Of them, this version does not understand {several}, which stop no job.")
        }
    };
    Some(InForce {
        detail: Some(format!("By {}: {}", last.who, last.reason)),
        ..of_controls(format!("{text}{unknown}"))
    })
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::standing::tests::{NOW, ended, replica};
    use super::*;
    use crate::store::{CappedCount, ReplicaEnd};

    fn control(kind: &str) -> ControlRow {
        ControlRow {
            id: 1,
            kind: kind.to_owned(),
            scope: "all".to_owned(),
            matcher: None,
            is_understood: true,
            reason: "release".to_owned(),
            who: "olga".to_owned(),
            automatic: false,
            created_at: NOW,
            expires_at: NOW + Duration::minutes(9),
            waiting: CappedCount::of(0),
        }
    }

    fn texts(controls: &[ControlRow], fleet: &[FleetReplica]) -> Vec<String> {
        let lines = lines(Some(controls), Some(fleet), &[], NOW);
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn nothing_in_force_has_no_line() {
        let hold = control("hold");
        assert_eq!(texts(&[hold], &[replica(1, "1", false)]), [""; 0]);
    }

    #[test]
    fn what_is_in_force_for_all_jobs_has_a_line_each() {
        let mut unknown = control("kill_switch");
        unknown.is_understood = false;
        let controls = [control("pause"), control("kill_switch"), unknown];
        let fleet = [replica(1, "1", true), replica(2, "2", true)];
        let texts = texts(&controls, &fleet);
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert!(texts[0].starts_with("RabbitMQ is away"));
        assert_eq!(texts[1], "Workers of 2 versions run: 1, 2.");
        assert_eq!(texts[2], "Everything is paused until 12:09 UTC.");
        assert!(texts[3].starts_with("2 kill switches are in force. Of them, this version"));
    }

    #[test]
    fn the_host_of_the_last_worker_is_a_detail() {
        let lines = lines(Some(&[]), Some(&[]), &[ended(ReplicaEnd::TakenOver)], NOW);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].text, standing::no_worker(None));
        let detail = lines[0].detail.as_deref().unwrap();
        assert!(detail.contains("on h, died"), "{detail}");
    }

    #[test]
    fn what_could_not_be_read_is_said() {
        let lines = lines(None, None, &[], NOW);
        assert_eq!(lines.len(), 2);
        assert!(
            lines
                .iter()
                .all(|line| line.text.starts_with("It is not known"))
        );
    }
}
