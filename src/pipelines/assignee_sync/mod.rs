//! The pipeline `assignee_sync`: writes a group's assignee to another work item that is linked to
//! the group.

pub mod find_assignee;
pub mod patch_work_item;

use serde::{Deserialize, Serialize};

pub use find_assignee::{FindAssignee, FoundAssignee};
pub use patch_work_item::{PatchWorkItem, Patched};

use super::{ASSIGNEE_SYNC, Dispatch};
use crate::engine::{Child, Pipeline};

pub const NAME: &str = "assignee_sync";

/// ★ Returns the pipeline with its stages in order.
#[must_use]
pub fn pipeline() -> Pipeline<Dispatch> {
    Pipeline::new(NAME, ASSIGNEE_SYNC)
        .then(FindAssignee)
        .then(PatchWorkItem)
}

/// The payload: a work item, and the group whose assignee it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssigneeSync {
    pub group_id: i64,
    /// The group's organization; the job acts as one of its identities.
    pub organization_id: i64,
    /// The work item's account.
    pub integration_id: i64,
    pub work_item_id: i64,
}

impl AssigneeSync {
    /// Returns the follow-up that writes the assignee. Its target distinguishes it from the other
    /// follow-ups of the job.
    ///
    /// # Panics
    /// Never: four numbers can be serialized as JSON.
    #[must_use]
    pub fn child(&self) -> Child {
        let payload = serde_json::to_value(self).expect("four numbers can be serialized as JSON");
        let target = format!(
            "{NAME}:{}:{}:{}",
            self.group_id, self.integration_id, self.work_item_id
        );
        Child {
            pipeline: NAME,
            target,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_payload_reads_back() {
        let sync = AssigneeSync {
            group_id: 1,
            organization_id: 2,
            integration_id: 3,
            work_item_id: 4,
        };
        let child = sync.child();
        assert_eq!(
            serde_json::from_value::<AssigneeSync>(child.payload).unwrap(),
            sync
        );
        assert_eq!(
            (child.pipeline, child.target.as_str()),
            ("assignee_sync", "assignee_sync:1:3:4")
        );
    }
}
