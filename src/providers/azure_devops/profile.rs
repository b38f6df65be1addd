//! Profiles (<https://learn.microsoft.com/rest/api/azure/devops/profile/profiles/get?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{API_VERSION, AzureDevOps, AzureDevOpsFault, Caller, address};

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The member's id, as `accounts` wants it.
    pub id: String,
    /// As people read it; empty where the vendor gives none.
    pub display_name: String,
    /// Where the vendor gives one.
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

impl AzureDevOps {
    /// `GET /_apis/profile/profiles/me`.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Http`].
    pub async fn profile_me(&self, token: Caller<'_>) -> Result<Profile, AzureDevOpsFault> {
        let url = address(&self.profile, &["_apis", "profile", "profiles", "me"], &[("api-version", API_VERSION)])?;
        let body: Body = self.fetch(token, self.call(Method::GET, url)).await?.json()?;
        let email = body.email_address.filter(|email| !email.is_empty());
        Ok(Profile { id: body.id, display_name: body.display_name.unwrap_or_default(), email })
    }
}
