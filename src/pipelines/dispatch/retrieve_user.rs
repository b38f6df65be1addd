//! Who does the token belong to?
//!
//! *Needs*: `fetch_states`.
//! *Effects*: none: it reads Azure DevOps' profile of the token's owner.
//! *Safe to repeat*: a read; and of one version of the tokens there is one refresh, whoever asks for it.

use std::time::Duration;

use super::FetchStates;
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::pipelines::{Dispatch, SignedIn};
use crate::providers::azure_devops::{Profile, ProfileMe};

/// The stage. Its output is Azure DevOps' profile: id, display name, e-mail.
#[derive(Debug, Clone, Copy)]
pub struct RetrieveUser;

impl Stage for RetrieveUser {
    type Product = Dispatch;

    const NAME: &'static str = "retrieve_user";
    const NEEDS: &'static [&'static str] = &[FetchStates::NAME];
    /// Two calls of Azure DevOps and, between them, a refresh that another's may be before.
    const TIMEOUT: Duration = Duration::from_secs(60);
    type Output = Profile;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let states = cx.output::<FetchStates>()?;
        Ok(StageOutcome::of(SignedIn::of(cx, states.identity()?.id).call(&ProfileMe).await?))
    }
}
