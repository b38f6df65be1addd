//! What can go wrong with a call to Azure DevOps, and how its refusals are told apart.

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
    /// The access token is not (or no longer) accepted for this call: 401, 203, or a sign-in page instead of an answer. Whether it
    /// is the token or its owner's rights cannot be told from one answer.
    #[error("azure_devops: the access token is not accepted: {0}")]
    Unauthorized(Unauthorized),
    /// A sign-in page or a redirect to one, although the token is accepted elsewhere and was renewed.
    #[error("azure_devops: the access token is valid, and yet the account {0}")]
    SignInPage(Unauthorized),
    /// The token is refused, and whether it is good could not be found out.
    #[error("azure_devops: the access token is not accepted: {refusal}; whether it is valid could not be found out")]
    Unverified {
        /// The refusal.
        refusal: Unauthorized,
        /// What came in place of its owner's profile.
        #[source]
        why: Box<AzureDevOpsFault>,
    },
    /// The token is good, and its owner may not do this.
    #[error("azure_devops: the access token is valid, but its owner has no access: {0}")]
    NoAccess(Unauthorized),
    /// The work item is no longer at the revision the change was made for.
    #[error("azure_devops: the work item's revision has moved on: {0}")]
    RevisionMoved(Said),
    /// The work item is not there any more, or the token may not see it.
    #[error("azure_devops: the work item is gone: {0}")]
    WorkItemGone(Said),
    /// The search answers, but not with what is there.
    #[error("azure_devops: the search is not ready: infoCode {code}, {meaning}")]
    SearchNotReady {
        /// The vendor's number.
        code: i64,
        /// The vendor's words for it.
        meaning: &'static str,
    },
    /// The search cannot be carried out as it was asked for.
    #[error("azure_devops: the search is refused: infoCode {code}, {meaning}")]
    SearchRefused {
        /// The vendor's number.
        code: i64,
        /// The vendor's words for it.
        meaning: &'static str,
    },
    /// There are more users than are looked through.
    #[error("azure_devops: the organization has more than {0} pages of users")]
    TooManyUsers(usize),
    /// It was not called.
    #[error(transparent)]
    Governor(#[from] GovernorFault),
    /// What can happen to any call.
    #[error(transparent)]
    Http(#[from] HttpFault),
}

/// A refusal of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The HTTP status; none where it could not even be sent.
    pub status: Option<u16>,
    /// What Azure DevOps said, or why it could not be sent.
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

/// An answer in place of which a signed-in caller would have got another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("answered {status}{}", if said.is_empty() { " with a sign-in page".to_owned() } else { format!(": {said}") })]
pub struct Unauthorized {
    /// The HTTP status.
    pub status: u16,
    /// What the vendor said; nothing where it showed a sign-in page.
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
            Self::Unauthorized(_) | Self::NoAccess(_) | Self::SearchRefused { .. } | Self::TooManyUsers(_) => Class::Permanent,
            Self::RevisionMoved(_) | Self::WorkItemGone(_) => Class::Conflict,
            Self::SearchNotReady { .. } | Self::SignInPage(_) => Class::Transient { retry_after: None },
            Self::Unverified { why, .. } => why.class(),
            Self::Governor(fault) => fault.class(),
            Self::Http(fault) => fault.class(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Unauthorized(_) => "Sign the identity in again.".to_owned(),
            Self::SignInPage(_) => {
                "Azure DevOps shows its sign-in page for this account; it is tried again by itself.".to_owned()
            }
            Self::Unverified { why, .. } => why.hint(),
            Self::NoAccess(_) => {
                "Give the identity access in Azure DevOps (Organization settings, Users; for OAuth also Policies, third-party \
                 application access), or have the installation act as another identity; then retry."
                    .to_owned()
            }
            Self::RevisionMoved(_) => "Somebody else changed the work item; it is read again by itself.".to_owned(),
            Self::WorkItemGone(_) => "The work item is read again by itself.".to_owned(),
            Self::SearchNotReady { .. } => "Azure DevOps is building its search index; it is tried again by itself.".to_owned(),
            Self::SearchRefused { .. } => "Correct the search of the request and publish it with a new dedupe_key.".to_owned(),
            Self::TooManyUsers(_) => "Assign by hand: the organization has too many users to look through.".to_owned(),
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
    /// What is wrong with what was asked for, where the same would be said of it again: nothing about the token, the
    /// destination's health or the way to it.
    #[must_use]
    pub fn refused(&self) -> Option<Refused<'_>> {
        let Self::Http(HttpFault { kind, .. }) = self else { return None };
        match kind {
            HttpFaultKind::Status { status: status @ (400 | 403 | 404 | 410), body, .. } => {
                Some(Refused { status: Some(*status), said: body })
            }
            HttpFaultKind::Unsendable(why) => Some(Refused { status: None, said: why }),
            _ => None,
        }
    }
}

/// What a 401 says beside a sign-in page; a page is nobody's sentence.
pub(super) fn unauthorized(answer: &HttpResponse) -> Option<Unauthorized> {
    let is_page = || answer.header("content-type").is_some_and(|kind| kind.trim_start().starts_with("text/html"));
    let is_sign_in = match answer.status {
        203 | 302 | 401 => true,
        200..=299 => is_page(),
        _ => false,
    };
    is_sign_in.then(|| Unauthorized {
        status: answer.status,
        said: if answer.status == 401 && !is_page() { Said::of(&answer.body) } else { Said::default() },
    })
}

/// Codes of a `test` that failed and of a revision that has moved on, whatever the status they come with.
const MOVED: [&str; 4] = ["VS403351", "TF26071", "TestPatchOperationFailedException", "WorkItemRevisionMismatchException"];
/// Codes of a work item that does not exist or may not be seen.
const GONE: [&str; 3] = ["TF401232", "WorkItemUnauthorizedAccessException", "WorkItemNotFoundException"];

/// Why a patch that tests the revision was refused, where that is about the work item as it is now. A 409 is always a change that
/// came in between: what it conflicts with is read again before anything is decided.
pub(super) fn overtaken(answer: &HttpResponse) -> Option<AzureDevOpsFault> {
    let names = |said: &Said, codes: &[&str]| codes.iter().any(|code| said.names(code));
    match answer.status {
        409 | 412 => Some(AzureDevOpsFault::RevisionMoved(Said::of(&answer.body))),
        400 => Some(Said::of(&answer.body)).filter(|said| names(said, &MOVED)).map(AzureDevOpsFault::RevisionMoved),
        404 | 410 => Some(Said::of(&answer.body)).filter(|said| names(said, &GONE)).map(AzureDevOpsFault::WorkItemGone),
        _ => None,
    }
}
