//! The operations of Azure DevOps: one type for each of the vendor's operations that the worker
//! uses.

use super::{AzureDevOps, AzureDevOpsFault, Caller};

/// One operation with its parameters. Stages call it through a signed-in client, which refreshes a
/// refused token and waits for short holds; only that client makes a [`Caller`].
pub trait Operation: Send + Sync {
    /// The result.
    type Output: Send;

    /// Whether the operation is about an account, to which the token's owner may have no access
    /// although the token is valid.
    const OF_ACCOUNT: bool = true;

    /// Sends the operation once.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Governor`],
    /// [`AzureDevOpsFault::Http`], and those that the operation documents.
    fn send(
        &self,
        to: &AzureDevOps,
        caller: Caller<'_>,
    ) -> impl Future<Output = Result<Self::Output, AzureDevOpsFault>> + Send;
}
