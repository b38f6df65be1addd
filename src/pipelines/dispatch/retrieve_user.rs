//! Reads the profile of the token's owner.
//!
//! *Needs*: `fetch_states`.
//! *Effects*: none. The stage reads the profile from Azure DevOps.
//! *Safe to repeat*: the stage only reads, and each version of the tokens is refreshed once, by one
//! of the jobs that use it.

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
    /// Covers two calls of Azure DevOps and, between them, a refresh that may wait for another
    /// one.
    const TIMEOUT: Duration = Duration::from_secs(60);
    type Output = Profile;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let states = cx.output::<FetchStates>()?;
        Ok(StageOutcome::of(
            SignedIn::of(cx, states.identity()?.id)
                .call(&ProfileMe)
                .await?,
        ))
    }
}
