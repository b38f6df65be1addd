//! Profiles
//! (<https://learn.microsoft.com/rest/api/azure/devops/profile/profiles/get?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{API_VERSION, AzureDevOps, AzureDevOpsFault, Caller, Operation, address};

/// The profile of a token's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The member id, as [`super::Accounts`] requires it.
    pub id: String,
    /// The display name; empty if the vendor returns none.
    pub display_name: String,
    /// The e-mail address, if the vendor returns one.
    pub email: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    id: String,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    email_address: Option<String>,
}

/// `GET /_apis/profile/profiles/me`.
#[derive(Debug, Clone, Copy)]
pub struct ProfileMe;

impl Operation for ProfileMe {
    type Output = Profile;
    const OF_ACCOUNT: bool = false;

    async fn send(
        &self,
        to: &AzureDevOps,
        caller: Caller<'_>,
    ) -> Result<Profile, AzureDevOpsFault> {
        let url = address(
            &to.profile,
            &["_apis", "profile", "profiles", "me"],
            &[("api-version", API_VERSION)],
        )?;
        let body: Body = to.fetch(caller, to.call(Method::GET, url)).await?.json()?;
        let email = body.email_address.filter(|email| !email.is_empty());
        Ok(Profile {
            id: body.id,
            display_name: body.display_name.unwrap_or_default(),
            email,
        })
    }
}
