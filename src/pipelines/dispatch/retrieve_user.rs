//! Who does the token belong to?
//!
//! *Needs*: `fetch_states`.
//! *Effects*: none: it reads Azure DevOps' profile of the token's owner.
//! *Safe to repeat*: a read.

use super::FetchStates;
use crate::engine::{Context, Outcome, Stage};
use crate::fault::StageFault;
use crate::pipelines::Dispatch;
use crate::providers::azure_devops::Profile;
use crate::tracker::Changes;

/// The stage. Its output is Azure DevOps' profile: id, display name, e-mail.
#[derive(Debug, Clone, Copy)]
pub struct RetrieveUser;

impl Stage<Dispatch> for RetrieveUser {
    const NAME: &'static str = "retrieve_user";
    const NEEDS: &'static [&'static str] = &[<FetchStates as Stage<Dispatch>>::NAME];
    type Output = Profile;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> Result<Outcome<Profile, Changes>, StageFault> {
        let states = cx.output::<FetchStates>()?;
        let signed_in = cx.services.sign_in(states.identity()?.id).await?;
        let profile = signed_in.judge(cx.services.providers.azure_devops.profile_me(signed_in.token()).await)?;
        Ok(Outcome::of(profile))
    }
}
