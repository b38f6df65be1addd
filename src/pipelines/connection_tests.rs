//! Connection tests for operators: whether an identity may use an account, and whether a
//! destination accepts a message.

use data_encoding::BASE32_NOPAD;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::messaging::deliver_message::config;
use super::{ProductFault, Services};
use crate::fault::StageFault;
use crate::providers::Providers;
use crate::providers::azure_devops::{Accounts, Profile, ProfileMe};
use crate::providers::channel::{
    BadConfig, ChannelConfig, ChannelFault, Delivered, Delivery, Message, RefusedRecipient, Rest,
};
use crate::tracker::Destination;

/// The name of a test in logs, in place of a stage's.
const TEST: &str = "test";

/// The accounts that an identity may use.
#[derive(Debug, Serialize)]
pub struct AccountTestResult {
    /// The display name of the token's owner.
    pub user: String,
    /// The names of the accounts that the owner may use.
    pub accounts: Vec<String>,
    /// Whether the tested account is among them.
    pub usable: bool,
}

/// Reads the profile of the owner of an identity's token from Azure DevOps.
///
/// # Errors
/// The same as the stage `retrieve_user`.
pub async fn try_identity(services: &Services, identity_id: i64) -> Result<Profile, StageFault> {
    services
        .as_identity(identity_id, TEST)
        .call(&ProfileMe)
        .await
}

/// Reads the profile of the owner of an identity's token from Azure DevOps, and whether the owner
/// may use an account.
///
/// # Errors
/// The same as the stages `retrieve_user` and `get_accounts`.
pub async fn try_account(
    services: &Services,
    identity_id: i64,
    account_id: &str,
) -> Result<AccountTestResult, StageFault> {
    let mut azure_devops = services.as_identity(identity_id, TEST);
    let user = azure_devops.call(&ProfileMe).await?;
    let accounts = azure_devops
        .call(&Accounts {
            member_id: &user.id,
        })
        .await?;
    let usable = accounts
        .iter()
        .any(|account| account.id.eq_ignore_ascii_case(account_id));
    let mut accounts: Vec<String> = accounts.into_iter().map(|account| account.name).collect();
    accounts.sort();
    Ok(AccountTestResult {
        user: user.display_name,
        accounts,
        usable,
    })
}

/// Checks whether a channel can deliver with these settings, without a call.
///
/// # Errors
/// [`BadConfig`] describes the expected settings.
pub fn check_destination(
    providers: &Providers,
    kind: &str,
    public: &Value,
    secret: Option<&SecretString>,
    previous_secret: Option<&SecretString>,
) -> Result<(), BadConfig> {
    let Some(channel) = providers.channel(kind) else {
        let kinds: Vec<_> = providers
            .channels
            .iter()
            .map(|channel| channel.kind())
            .collect();
        return Err(BadConfig(format!(
            "there is no kind `{kind}`; use one of: {}",
            kinds.join(", ")
        )));
    };
    let config = ChannelConfig {
        public: public.clone(),
        secret: secret.cloned(),
        previous_secret: previous_secret.cloned(),
    };
    channel.check_config(&config)
}

/// The result of a test message.
#[derive(Debug, Serialize)]
pub struct Sent {
    /// The provider's id of the message, if it returns one.
    pub message_id: Option<String>,
    /// Recipients that are refused permanently; the others have received the message.
    pub refused: Vec<RefusedRecipient>,
}

/// Delivers a test message once, even if the destination is disabled.
///
/// # Errors
/// The same as the stage `deliver_message`. If some recipients are refused for now, their fault is
/// returned, although the others have received the message.
pub async fn try_destination(
    services: &Services,
    destination: &Destination,
    who: &str,
) -> Result<Sent, StageFault> {
    let channel = services.providers.channel(&destination.kind);
    let channel = channel.ok_or_else(|| ProductFault::UnknownChannel {
        name: destination.name.clone(),
        kind: destination.kind.clone(),
    })?;
    let config = config(destination);
    let rendered = channel.render(&test_message(&destination.name, who));
    // Has the length of an effect's key, and equals none.
    let key = BASE32_NOPAD
        .encode(&rand::random::<[u8; 32]>())
        .to_ascii_lowercase();
    let deadline = Instant::now() + services.providers.call_timeout;
    let delivery = Delivery::first(&config, &rendered, &key, channel.class(&config), deadline);
    let Delivered {
        provider_ref,
        refused,
        rest,
    } = channel.deliver(delivery).await?;
    match rest {
        Some(Rest { fault, .. }) => Err(ChannelFault::from(fault).into()),
        None => Ok(Sent {
            message_id: provider_ref,
            refused,
        }),
    }
}

fn test_message(destination: &str, who: &str) -> Message {
    Message {
        event: "dispatch.test".to_owned(),
        happened_at: Some(OffsetDateTime::now_utc()),
        title: "This is a test".to_owned(),
        lines: vec![format!(
            "{who} has tried the destination {destination}. Nothing has changed."
        )],
        details: json!({ "destination": destination }),
    }
}
