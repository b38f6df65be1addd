//! What has changed within the last hour: replicas, controls, migrations, campaigns, and what people
//! did. It is drawn on the axis of the charts, because the cause of a failure is often a change.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::standing;
use crate::operations::name_of_scope;
use crate::store::{
    Action, AppliedMigration, AuditFilter, AuditRow, CampaignRow, ControlRow, EndedReplica,
    ReplicaEnd, StartedReplica, Store, StoreError,
};

/// Most changes that are shown: the newest.
const MOST: i64 = 50;
/// Rows of the audit log that are read for them; some of them change nothing.
const AUDIT_ROWS: i64 = 200;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChangeKind {
    ReplicaStarted,
    ReplicaEnded,
    Control,
    Migration,
    Campaign,
    /// A person or a program, from the audit log.
    Action,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Change {
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub(super) at: OffsetDateTime,
    pub(super) kind: ChangeKind,
    /// What changed, in words.
    pub(super) text: String,
    /// The page about it.
    pub(super) path: Option<String>,
}

/// What the changes are made of.
#[derive(Default)]
struct Sources {
    started: Vec<StartedReplica>,
    ended: Vec<EndedReplica>,
    migrations: Vec<AppliedMigration>,
    campaigns: Vec<CampaignRow>,
    controls: Vec<ControlRow>,
    audit: Vec<AuditRow>,
}

/// Reads what has changed since `since`: the newest 50, the last first.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn read(store: &Store, since: OffsetDateTime) -> Result<Vec<Change>, StoreError> {
    let filter = AuditFilter {
        since: Some(since),
        ..AuditFilter::default()
    };
    let sources = Sources {
        started: store.started_replicas(since, MOST).await?,
        ended: store.ended_replicas(since, MOST).await?,
        migrations: store.applied_migrations(since, MOST).await?,
        campaigns: store.campaigns(None, MOST).await?,
        controls: store.controls("").await?.controls,
        audit: store.audit_rows(&filter, None, AUDIT_ROWS).await?.rows,
    };
    Ok(sources.newest(since))
}

impl Sources {
    fn newest(self, since: OffsetDateTime) -> Vec<Change> {
        // A person's control, and the start of a campaign, are in the audit log.
        let controls = self.controls.into_iter().filter(|row| row.automatic);
        let audit = self.audit.into_iter().filter(|row| is_change(&row.action));
        let mut changes: Vec<Change> = self
            .started
            .iter()
            .map(started)
            .chain(self.ended.iter().map(ended))
            .chain(self.migrations.iter().map(migrated))
            .chain(self.campaigns.iter().filter_map(finished))
            .chain(controls.map(|row| placed(&row)))
            .chain(audit.map(acted))
            .filter(|change| change.at >= since)
            .collect();
        changes.sort_by_key(|change| std::cmp::Reverse(change.at));
        changes.truncate(usize::try_from(MOST).unwrap_or_default());
        changes
    }
}

/// Returns whether an action changes anything that a job could notice.
fn is_change(action: &str) -> bool {
    let reads = [
        Action::SignIn,
        Action::SignOut,
        Action::RefuseSignIn,
        Action::RefuseRequest,
        Action::Unmask,
        Action::ShowRawDeadLetter,
        Action::ExportSecrets,
        Action::NoteFailureGroup,
    ];
    !reads.iter().any(|read| read.word() == action)
}

fn started(row: &StartedReplica) -> Change {
    Change {
        at: row.started_at,
        kind: ChangeKind::ReplicaStarted,
        text: format!(
            "replica {} of version {} started on {}",
            row.id, row.version, row.host
        ),
        path: Some("/fleet".to_owned()),
    }
}

fn ended(row: &EndedReplica) -> Change {
    Change {
        at: row.ended_at,
        kind: ChangeKind::ReplicaEnded,
        text: format!(
            "replica {} of version {} on {} {}",
            row.id,
            row.version,
            row.host,
            standing::how_it_ended(row.how)
        ),
        path: Some("/fleet".to_owned()),
    }
}

fn migrated(row: &AppliedMigration) -> Change {
    Change {
        at: row.applied_at,
        kind: ChangeKind::Migration,
        text: format!("migration V{} ({}) was applied", row.version, row.name),
        path: None,
    }
}

fn finished(row: &CampaignRow) -> Option<Change> {
    Some(Change {
        at: row.finished_at?,
        kind: ChangeKind::Campaign,
        text: format!("campaign {} is {}", row.id, row.state),
        path: Some(format!("/campaigns/{}", row.id)),
    })
}

fn placed(row: &ControlRow) -> Change {
    Change {
        at: row.created_at,
        kind: ChangeKind::Control,
        text: format!(
            "{} held {}: {}",
            row.who,
            name_of_scope(&row.scope),
            row.reason
        ),
        path: Some("/controls".to_owned()),
    }
}

fn acted(row: AuditRow) -> Change {
    let reason = row
        .reason
        .map_or_else(String::new, |reason| format!(": {reason}"));
    Change {
        at: row.at,
        kind: ChangeKind::Action,
        text: format!("{} did {}{reason}", row.who, row.action),
        path: Some(match row.job_id {
            Some(job) => format!("/jobs/{job}"),
            None => format!("/audit?action={}", row.action),
        }),
    }
}

/// Returns whether a replica died.
pub(super) const fn is_death(how: ReplicaEnd) -> bool {
    matches!(how, ReplicaEnd::TakenOver | ReplicaEnd::LeaseExpired)
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00:00 UTC);

    fn did(action: &str, minutes: i64) -> AuditRow {
        AuditRow {
            id: 1,
            at: NOW - Duration::minutes(minutes),
            who: "olga".to_owned(),
            role: "operator".to_owned(),
            login: None,
            address: None,
            token: None,
            request_id: None,
            action: action.to_owned(),
            job_id: None,
            reason: Some("too slow".to_owned()),
            before: None,
            after: None,
        }
    }

    #[test]
    fn the_newest_changes_come_first_and_reading_is_none() {
        let sources = Sources {
            started: vec![StartedReplica {
                id: 7,
                version: "0.2.0".to_owned(),
                host: "h".to_owned(),
                started_at: NOW - Duration::minutes(5),
            }],
            audit: vec![
                did("hold.place", 1),
                did("console.sign_in", 2),
                did("retry", 61),
            ],
            ..Sources::default()
        };
        let changes = sources.newest(NOW - Duration::hours(1));
        let texts: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "olga did hold.place: too slow",
                "replica 7 of version 0.2.0 started on h"
            ]
        );
        let path = changes[0].path.as_deref();
        assert_eq!(path, Some("/audit?action=hold.place"));
    }

    #[test]
    fn changes_are_bounded() {
        let audit = (0..60).map(|_| did("retry", 1)).collect();
        let sources = Sources {
            audit,
            ..Sources::default()
        };
        assert_eq!(sources.newest(NOW - Duration::hours(1)).len(), 50);
    }
}
