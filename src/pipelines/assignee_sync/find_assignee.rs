//! Finds the group's assignee among the users of the work item's account.
//!
//! *Needs*: nothing.
//! *Effects*: none. The stage reads our own tables and the account's users (cached for up to five
//! minutes).
//! *Safe to repeat*: the stage only reads, and `patch_work_item` checks again that the result is
//! still valid.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AssigneeSync;
use crate::engine::{Context, Stage, StageOutcome, StageResult, Then};
use crate::fault::StageFault;
use crate::job::words;
use crate::pipelines::dispatch::check_account::enabled;
use crate::pipelines::{Dispatch, ProductFault, Services, SignedIn};
use crate::providers::azure_devops::{FoundUser, UsersSearch};
use crate::tracker::{Installation, User};

#[derive(Debug, Clone, Copy)]
pub struct FindAssignee;

/// The result of the search: an assignee to write, or a reason to write nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundAssignee {
    /// The assignee is to be written.
    Write(Target),
    /// There is nothing to write; the job ends here.
    Nothing(Nothing),
    /// There is nothing to write, because several users of the account match the assignee's
    /// addresses equally: their names.
    Ambiguous(Vec<String>),
}

/// The assignee to write, the account, and the identity to act as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The `{organization}` segment of Azure DevOps' URLs.
    pub account_name: String,
    /// The identity to act as.
    pub identity_id: i64,
    /// The group's assignee; `None` if the group is unassigned.
    pub user_id: Option<i64>,
    /// The value of `System.AssignedTo` for that user.
    pub unique_name: Option<String>,
}

words! {
    /// Why there is nothing to write.
    Nothing {
        /// The group no longer exists.
        GroupGone = "group_gone",
        /// The organization no longer uses the account.
        NotInstalled = "not_installed",
        /// The organization has switched outbound assignees off.
        OutboundOff = "outbound_off",
        /// None of the user's verified e-mail addresses is known in the account.
        NotInAccount = "not_in_account",
    }
}

impl FoundAssignee {
    /// Returns the target for the next stage.
    ///
    /// # Errors
    /// [`ProductFault::IncompleteCheckpoint`] if a checkpoint written by hand contains none.
    pub fn target(self) -> Result<Target, ProductFault> {
        match self {
            Self::Write(target) => Ok(target),
            Self::Nothing(_) | Self::Ambiguous(_) => {
                Err(ProductFault::IncompleteCheckpoint(FindAssignee::NAME))
            }
        }
    }
}

impl Stage for FindAssignee {
    type Product = Dispatch;

    const NAME: &'static str = "find_assignee";
    /// Large accounts have many pages of users, each with its own deadline; after a minute, a run
    /// ends between two pages.
    const TIMEOUT: Duration = Duration::from_secs(300);
    type Output = FoundAssignee;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let sync = cx.payload::<AssigneeSync>()?;
        let found = find(cx, &sync).await?;
        let (then, skipped) = match &found {
            FoundAssignee::Write(_) => (Then::Next, None),
            FoundAssignee::Nothing(why) => (Then::Finish, Some(why.word())),
            FoundAssignee::Ambiguous(_) => (Then::Finish, Some("ambiguous")),
        };
        let skipped = skipped.map(|why| (why.to_owned(), 1)).into_iter().collect();
        Ok(StageOutcome::of(found)
            .then(then)
            .with_skipped("assignee", skipped))
    }
}

async fn find(
    cx: &Context<'_, Dispatch>,
    sync: &AssigneeSync,
) -> Result<FoundAssignee, StageFault> {
    let services = cx.services;
    let Some(assignee) = services.tracker.group_assignee(sync.group_id).await? else {
        return Ok(FoundAssignee::Nothing(Nothing::GroupGone));
    };
    let Some(installation) = installation(services, sync).await? else {
        return Ok(FoundAssignee::Nothing(Nothing::NotInstalled));
    };
    let Some(identity_id) = acting(&installation, sync.organization_id)? else {
        return Ok(FoundAssignee::Nothing(Nothing::OutboundOff));
    };
    let account_name = installation.account_name;
    let Some(user) = assignee.user else {
        return Ok(FoundAssignee::Write(Target {
            account_name,
            identity_id,
            user_id: None,
            unique_name: None,
        }));
    };
    let known = find_user(
        cx,
        (sync.organization_id, identity_id),
        &account_name,
        &user.emails,
    )
    .await?;
    Ok(matched(account_name, identity_id, &user, known))
}

/// Searches the account's users page by page, as a tenant's identity.
async fn find_user(
    cx: &Context<'_, Dispatch>,
    (organization_id, identity_id): (i64, i64),
    account: &str,
    emails: &[String],
) -> Result<FoundUser, StageFault> {
    let Some(fresh) = UsersSearch::new(emails) else {
        return Ok(FoundUser::Nobody);
    };
    let provider = &cx.services.providers.azure_devops;
    if let Some(known) = provider.known_user(organization_id, account, &fresh) {
        return Ok(known);
    }
    let mut azure_devops = SignedIn::of(cx, identity_id);
    let piece = format!("users:{account}");
    let known = azure_devops
        .known::<UsersSearch>(&piece)
        .filter(|known| known.is_for_the_same(&fresh));
    let mut search = known.unwrap_or_else(|| fresh.clone());
    while let Some(page) = search.next(account)? {
        let page = azure_devops.call(&page).await?;
        search.take(page);
        azure_devops.keep(&piece, &search);
    }
    let found = search.found();
    provider.remember_user(organization_id, account, &fresh, &found);
    Ok(found)
}

/// Returns the installation of the group's own organization: one tenant never acts as another's
/// identity.
async fn installation(
    services: &Services,
    sync: &AssigneeSync,
) -> Result<Option<Installation>, StageFault> {
    let Some(integration) = services.tracker.integration(sync.integration_id).await? else {
        return Ok(None);
    };
    Ok(services
        .tracker
        .installation(sync.organization_id, &integration.account_id)
        .await?)
}

/// Returns the identity to act as, or `None` if the organization has switched outbound assignees
/// off.
fn acting(installation: &Installation, organization_id: i64) -> Result<Option<i64>, ProductFault> {
    if !installation.settings.assignee_outbound {
        return Ok(None);
    }
    enabled(installation, organization_id)?;
    let none = || {
        ProductFault::NoIdentity(format!(
            "the installation of account {} has none",
            installation.account_name
        ))
    };
    installation.identity_id.ok_or_else(none).map(Some)
}

fn matched(account_name: String, identity_id: i64, user: &User, found: FoundUser) -> FoundAssignee {
    match found {
        // An empty name would unassign the work item.
        FoundUser::One(known) if !known.principal_name.trim().is_empty() => {
            let (user_id, unique_name) = (Some(user.id), Some(known.principal_name));
            FoundAssignee::Write(Target {
                account_name,
                identity_id,
                user_id,
                unique_name,
            })
        }
        FoundUser::One(_) | FoundUser::Nobody => FoundAssignee::Nothing(Nothing::NotInAccount),
        FoundUser::Several(names) => FoundAssignee::Ambiguous(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::dispatch::samples;
    use crate::providers::azure_devops::GraphUser;
    use crate::tracker::SyncSettings;

    fn known(principal_name: &str) -> FoundUser {
        FoundUser::One(GraphUser {
            descriptor: "aad.x".to_owned(),
            principal_name: principal_name.to_owned(),
            mail_address: String::new(),
            display_name: String::new(),
            is_deleted: false,
        })
    }

    #[test]
    fn a_user_without_a_name_in_the_account_is_not_written_as_unassigned() {
        let ann = User {
            id: 42,
            name: "Ann".to_owned(),
            emails: vec!["ann@example.com".to_owned()],
        };
        let found = |known| matched("contoso".to_owned(), 7, &ann, known);
        assert_eq!(
            found(FoundUser::Nobody),
            FoundAssignee::Nothing(Nothing::NotInAccount)
        );
        assert_eq!(
            found(known(" ")),
            FoundAssignee::Nothing(Nothing::NotInAccount)
        );
        let target = found(known("Ann@example.com")).target().unwrap();
        assert_eq!(
            (target.user_id, target.unique_name.as_deref()),
            (Some(42), Some("Ann@example.com"))
        );
        let several = found(FoundUser::Several(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(
            several,
            FoundAssignee::Ambiguous(vec!["a".to_owned(), "b".to_owned()]),
            "nobody is chosen"
        );
    }

    #[test]
    fn only_an_enabled_installation_with_an_identity_and_outbound_sync_is_acted_for() {
        let good = samples::installation();
        assert_eq!(acting(&good, 1).unwrap(), Some(7));
        let off = SyncSettings {
            assignee_outbound: false,
            ..good.settings
        };
        assert_eq!(
            acting(
                &Installation {
                    settings: off,
                    ..good.clone()
                },
                1
            )
            .unwrap(),
            None
        );
        assert!(
            acting(
                &Installation {
                    disabled: true,
                    ..good.clone()
                },
                1
            )
            .is_err()
        );
        assert!(
            acting(
                &Installation {
                    identity_id: None,
                    ..good
                },
                1
            )
            .is_err()
        );
    }
}
