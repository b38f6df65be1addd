//! What can be asked of Azure DevOps: one type for each of the vendor's operations that is used.

use super::{AzureDevOps, AzureDevOpsFault, Caller};

/// One operation with its parameters. Stages call it through a signed-in client, which refreshes a refused token and waits for
/// short holds; only that client makes a [`Caller`].
pub trait Operation: Send + Sync {
    /// What it brings.
    type Output: Send;

    /// Whether it is about an account, to which the token's owner may have no access although the token is good.
    const OF_ACCOUNT: bool = true;

    /// Sends it once.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Governor`], [`AzureDevOpsFault::Http`], and what the operation names.
    fn send(&self, to: &AzureDevOps, caller: Caller<'_>) -> impl Future<Output = Result<Self::Output, AzureDevOpsFault>> + Send;
}
