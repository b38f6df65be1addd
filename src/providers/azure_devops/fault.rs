//! The faults of calls to Azure DevOps, and how its refusals are distinguished.

use std::fmt;

use super::AZURE_DEVOPS;
use crate::fault::{Certainty, Class, Fault};
use crate::providers::governor::GovernorFault;
use crate::providers::http::HttpResponse;
use crate::providers::http_fault::{HttpFault, HttpFaultKind};
use crate::providers::said::Said;

/// A call to Azure DevOps failed.
#[derive(Debug, thiserror::Error)]
pub enum AzureDevOpsFault {
    /// The access token is not (or no longer) accepted for this call: 401, 203, or a sign-in page
    /// instead of an answer. One answer does not show whether the token is invalid or its owner
    /// has no access.
    #[error("azure_devops: the access token is not accepted: {0}")]
    Unauthorized(Unauthorized),
    /// A sign-in page or a redirect to one, although the token is accepted elsewhere and was
    /// refreshed.
    #[error("azure_devops: the access token is valid, but the account {0}")]
    SignInPage(Unauthorized),
    /// The token is refused, and its validity could not be checked.
    #[error(
        "azure_devops: the access token is not accepted: {refusal}; its validity could not be checked"
    )]
    Unverified {
        /// The refusal.
        refusal: Unauthorized,
        /// The fault of the request for the owner's profile.
        #[source]
        why: Box<AzureDevOpsFault>,
    },
    /// The token is valid, but its owner has no access.
    #[error("azure_devops: the access token is valid, but its owner has no access: {0}")]
    NoAccess(Unauthorized),
    /// The work item is no longer at the revision that the change was made for.
    #[error("azure_devops: the work item's revision has changed: {0}")]
    RevisionMoved(Said),
    /// The work item does not exist any more, or the token may not see it.
    #[error("azure_devops: the work item is gone: {0}")]
    WorkItemGone(Said),
    /// The search answers without complete results, because its index is not ready.
    #[error("azure_devops: the search is not ready: infoCode {code}, {meaning}")]
    SearchNotReady {
        /// The vendor's `infoCode`.
        code: i64,
        /// The vendor's text for it.
        meaning: &'static str,
    },
    /// The vendor refuses the query.
    #[error("azure_devops: the search is refused: infoCode {code}, {meaning}")]
    SearchRefused {
        /// The vendor's `infoCode`.
        code: i64,
        /// The vendor's text for it.
        meaning: &'static str,
    },
    /// The organization has more users than are searched.
    #[error("azure_devops: the organization has more than {0} pages of users")]
    TooManyUsers(usize),
    /// The governor did not admit the call.
    #[error(transparent)]
    Governor(#[from] GovernorFault),
    /// A fault that any HTTP call can have.
    #[error(transparent)]
    Http(#[from] HttpFault),
}

/// A refusal of a request for its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The HTTP status; `None` if the request could not be sent.
    pub status: Option<u16>,
    /// The explanation of Azure DevOps, or the reason why the request could not be sent.
    pub said: &'a str,
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status} {}", self.said),
            None => f.write_str(self.said),
        }
    }
}

/// An answer to a caller that is not signed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("answered {status}{}", if said.is_empty() { " with a sign-in page".to_owned() } else { format!(": {said}") })]
pub struct Unauthorized {
    /// The HTTP status.
    pub status: u16,
    /// The vendor's explanation; empty for a sign-in page.
    pub said: Said,
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for AzureDevOpsFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => AZURE_DEVOPS.codes.unauthorized,
            Self::SignInPage(_) => "azure_devops.sign_in_page",
            Self::Unverified { .. } => "azure_devops.token_not_verified",
            Self::NoAccess(_) => "azure_devops.no_access",
            Self::RevisionMoved(_) => "azure_devops.revision_moved",
            Self::WorkItemGone(_) => "azure_devops.work_item_gone",
            Self::SearchNotReady { .. } => "azure_devops.search_not_ready",
            Self::SearchRefused { .. } => "azure_devops.search_refused",
            Self::TooManyUsers(_) => "azure_devops.too_many_users",
            Self::Governor(fault) => fault.code(),
            Self::Http(fault) => fault.code(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Unauthorized(_)
            | Self::NoAccess(_)
            | Self::SearchRefused { .. }
            | Self::TooManyUsers(_) => Class::Permanent,
            Self::RevisionMoved(_) | Self::WorkItemGone(_) => Class::Conflict,
            Self::SearchNotReady { .. } | Self::SignInPage(_) => {
                Class::Transient { retry_after: None }
            }
            Self::Unverified { why, .. } => why.class(),
            Self::Governor(fault) => fault.class(),
            Self::Http(fault) => fault.class(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Unauthorized(_) => "Sign the identity in again.".to_owned(),
            Self::SignInPage(_) => {
                "Azure DevOps shows its sign-in page for this account; the job is retried automatically.".to_owned()
            }
            Self::Unverified { why, .. } => why.hint(),
            Self::NoAccess(_) => {
                "Give the identity access in Azure DevOps (Organization settings, Users; for OAuth also Policies, third-party \
                 application access), or have the installation act as another identity; then retry."
                    .to_owned()
            }
            Self::RevisionMoved(_) => "Another change came first; the job reads the work item again automatically.".to_owned(),
            Self::WorkItemGone(_) => "The job reads the work item again automatically.".to_owned(),
            Self::SearchNotReady { .. } => {
                "Azure DevOps is building its search index; the job is retried automatically.".to_owned()
            }
            Self::SearchRefused { .. } => "Correct the search of the request and publish it with a new dedupe_key.".to_owned(),
            Self::TooManyUsers(_) => "Assign by hand: the organization has too many users to search.".to_owned(),
            Self::Governor(fault) => fault.hint(),
            Self::Http(fault) => fault.hint(),
        }
    }

    fn certainty(&self) -> Certainty {
        match self {
            Self::Unauthorized(_)
            | Self::SignInPage(_)
            | Self::Unverified { .. }
            | Self::NoAccess(_)
            | Self::RevisionMoved(_)
            | Self::WorkItemGone(_)
            | Self::SearchNotReady { .. }
            | Self::SearchRefused { .. }
            | Self::TooManyUsers(_) => Certainty::NotDone,
            Self::Governor(fault) => fault.certainty(),
            Self::Http(fault) => fault.certainty(),
        }
    }
}

impl AzureDevOpsFault {
    /// Returns the refusal of the request's content, which a repetition would get again. `None`
    /// for faults of the token, of the host or of the network.
    #[must_use]
    pub fn refused(&self) -> Option<Refused<'_>> {
        let Self::Http(HttpFault { kind, .. }) = self else {
            return None;
        };
        match kind {
            HttpFaultKind::Status {
                status: status @ (400 | 403 | 404 | 410),
                body,
                ..
            } => Some(Refused {
                status: Some(*status),
                said: body,
            }),
            HttpFaultKind::Unsendable(why) => Some(Refused {
                status: None,
                said: why,
            }),
            _ => None,
        }
    }
}

/// Returns the refusal of a token: a 401 with the vendor's explanation, or a sign-in page, whose
/// text is not an explanation.
pub(super) fn unauthorized(answer: &HttpResponse) -> Option<Unauthorized> {
    let is_page = || {
        answer
            .header("content-type")
            .is_some_and(|kind| kind.trim_start().starts_with("text/html"))
    };
    let is_sign_in = match answer.status {
        203 | 302 | 401 => true,
        200..=299 => is_page(),
        _ => false,
    };
    is_sign_in.then(|| Unauthorized {
        status: answer.status,
        said: if answer.status == 401 && !is_page() {
            Said::of(&answer.body)
        } else {
            Said::default()
        },
    })
}

/// The codes of a failed `test` and of a changed revision, with any status.
const MOVED: [&str; 4] = [
    "VS403351",
    "TF26071",
    "TestPatchOperationFailedException",
    "WorkItemRevisionMismatchException",
];
/// The codes of a work item that does not exist or may not be seen.
const GONE: [&str; 3] = [
    "TF401232",
    "WorkItemUnauthorizedAccessException",
    "WorkItemNotFoundException",
];

/// Returns the fault of a patch that was refused because of the work item's present state. A 409
/// always means a concurrent change: the job reads the work item again before it decides.
pub(super) fn overtaken(answer: &HttpResponse) -> Option<AzureDevOpsFault> {
    let names = |said: &Said, codes: &[&str]| codes.iter().any(|code| said.names(code));
    match answer.status {
        409 | 412 => Some(AzureDevOpsFault::RevisionMoved(Said::of(&answer.body))),
        400 => Some(Said::of(&answer.body))
            .filter(|said| names(said, &MOVED))
            .map(AzureDevOpsFault::RevisionMoved),
        404 | 410 => Some(Said::of(&answer.body))
            .filter(|said| names(said, &GONE))
            .map(AzureDevOpsFault::WorkItemGone),
        _ => None,
    }
}
