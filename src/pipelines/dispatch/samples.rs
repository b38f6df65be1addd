//! Sample values for the unit tests of stages.

use time::macros::datetime;

use super::fetch_states::{AccountState, IdentityState};
use crate::providers::azure_devops::{Assignee, WorkItem};
use crate::tracker::{Installation, LinkedGroup, SyncSettings};

const ALL: SyncSettings = SyncSettings {
    assignee_inbound: true,
    assignee_outbound: true,
    status_inbound: true,
};

pub(crate) fn installation() -> Installation {
    Installation {
        integration_id: 3,
        account_name: "contoso".to_owned(),
        account_id: "acc-1".to_owned(),
        disabled: false,
        identity_id: Some(7),
        settings: ALL,
    }
}

pub(crate) fn account() -> AccountState {
    let Installation {
        integration_id,
        account_name,
        account_id,
        settings,
        ..
    } = installation();
    AccountState {
        integration_id,
        account_id,
        account_name,
        settings,
    }
}

pub(crate) fn identity() -> IdentityState {
    IdentityState {
        id: 7,
        name: "bot".to_owned(),
        token_expires_at: datetime!(2026-01-02 03:04:05 UTC),
    }
}

pub(crate) fn work_item(id: i64, rev: i64) -> WorkItem {
    WorkItem {
        id,
        rev,
        project: "Web".to_owned(),
        work_item_type: "Bug".to_owned(),
        assigned_to: Assignee::Unassigned,
        state: "Active".to_owned(),
        changed_by: None,
        changed_date: datetime!(2026-01-02 03:04:05 UTC),
    }
}

pub(crate) fn linked_group(group_id: i64, work_item_id: i64) -> LinkedGroup {
    LinkedGroup {
        group_id,
        project_id: 11,
        organization_id: 1,
        work_item_id,
        settings: ALL,
        assignee: None,
        applied_rev: 0,
        applied_category: None,
    }
}
