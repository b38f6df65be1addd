//! The scope of a call: a tenant's host or destination at one provider, and the limit that it
//! shares with others.

use std::fmt;

use super::lanes::CallLane;
use crate::providers::provider_title;

/// Replaces the organization in the scope of a shared limit.
const EVERYBODY: &str = "*";
/// The suffix of a destination's scope for a hold of its permits.
const PERMITS: &str = "#seats";

/// A destination, named as in holds: `<organization>|<provider>|<host or destination id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    own: Target,
    permits: Target,
    shared: Option<Target>,
    /// Everything that the provider does, for any organization: held only by an operator.
    everything: Target,
    provider: &'static str,
    lane: CallLane,
    tenant: Option<String>,
}

/// The subject of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// The stored form.
    pub(super) text: String,
    /// The name in messages: `acme's Azure DevOps`.
    pub(super) called: String,
    /// See [`Scope::permits`].
    pub(super) is_permits: bool,
}

impl Scope {
    /// Returns the scope of a provider's host that an organization calls from the lane of
    /// requests; see [`Scope::from_lane`].
    #[must_use]
    pub fn host(organization: &str, provider: &'static str, host: &str) -> Self {
        let tenant = Some(organization.to_owned());
        Self {
            tenant,
            lane: CallLane::Dispatch,
            ..Self::new(organization, provider, host, "")
        }
    }

    /// Returns the scope of a registered destination of messages, by its row id.
    #[must_use]
    pub fn destination(organization: &str, kind: &'static str, id: i64) -> Self {
        Self::new(
            organization,
            kind,
            &id.to_string(),
            &format!(" (destination {id})"),
        )
    }

    /// Returns the scope of the answers to an organization's clicks: a destination, since the same
    /// lane delivers to it.
    #[must_use]
    pub fn clicks(organization: &str, kind: &'static str) -> Self {
        Self::new(organization, kind, "clicks", "")
    }

    fn new(organization: &str, provider: &'static str, place: &str, detail: &str) -> Self {
        let text = format!("{organization}|{provider}|{place}");
        let called = format!("{organization}'s {}{detail}", name_of(provider));
        let permits = Target {
            text: format!("{text}{PERMITS}"),
            called: called.clone(),
            is_permits: true,
        };
        Self {
            own: Target {
                text,
                called,
                is_permits: false,
            },
            permits,
            shared: None,
            everything: Target {
                text: of_provider(provider),
                called: name_of(provider).to_owned(),
                is_permits: false,
            },
            provider,
            lane: CallLane::Messaging,
            tenant: None,
        }
    }

    /// Returns the scope as called from another lane. Each lane counts its permits separately.
    #[must_use]
    pub fn from_lane(self, lane: CallLane) -> Self {
        Self { lane, ..self }
    }

    /// Adds the shared limit of the provider that applies to this destination and to others, of
    /// any organization. `limit` names what they have in common; the scope of a hold of all of
    /// them is `*|<provider>|<limit>`.
    #[must_use]
    pub fn limited_with(self, limit: Option<String>) -> Self {
        let target = |limit: String| Target {
            text: format!("{EVERYBODY}|{}|{limit}", self.provider),
            called: format!("{} ({limit})", name_of(self.provider)),
            is_permits: false,
        };
        Self {
            shared: limit.map(target),
            ..self
        }
    }

    /// Returns the stored form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.own.text
    }

    /// Returns the provider, as in error codes.
    #[must_use]
    pub const fn provider(&self) -> &'static str {
        self.provider
    }

    /// Returns the organization of a host, or `None` for a destination of messages.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    pub(super) const fn lane(&self) -> CallLane {
        self.lane
    }

    /// Returns the destination alone.
    pub(super) const fn own(&self) -> &Target {
        &self.own
    }

    /// Returns the destination's permits. Their hold applies only to calls that find no permit:
    /// each replica has its own permits, so others may still have free ones.
    pub(super) const fn permits(&self) -> &Target {
        &self.permits
    }

    /// Returns the shared limit, or the destination alone if it has none.
    pub(super) fn widest(&self) -> &Target {
        self.shared.as_ref().unwrap_or(&self.own)
    }

    /// Returns every target whose hold prevents calls to the destination.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> + Clone {
        [&self.own, &self.everything]
            .into_iter()
            .chain(&self.shared)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.own.text)
    }
}

/// Returns the scope of a hold of everything that a provider does.
#[must_use]
pub fn of_provider(provider: &str) -> String {
    format!("provider:{provider}")
}

fn name_of(provider: &'static str) -> &'static str {
    provider_title(provider).unwrap_or(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(scope: &Scope) -> (&str, &str) {
        (scope.as_str(), &scope.own.called)
    }

    #[test]
    fn a_scope_has_a_stored_form_and_a_name_for_messages() {
        let devops = Scope::host("acme", "azure_devops", "dev.azure.com");
        assert_eq!(
            named(&devops),
            ("acme|azure_devops|dev.azure.com", "acme's Azure DevOps")
        );
        let hook = Scope::destination("acme", "webhook", 7);
        assert_eq!(
            named(&hook),
            ("acme|webhook|7", "acme's webhook (destination 7)")
        );
        let clicks = Scope::clicks("acme", "discord_interaction");
        assert_eq!(
            named(&clicks),
            (
                "acme|discord_interaction|clicks",
                "acme's answers in Discord"
            )
        );
        assert_eq!(
            [&devops, &hook, &clicks].map(Scope::tenant),
            [Some("acme"), None, None]
        );
        assert_eq!(
            (hook.permits().text.as_str(), &hook.permits().called),
            ("acme|webhook|7#seats", &hook.own.called)
        );
    }

    #[test]
    fn destinations_of_any_organization_with_the_same_credential_share_a_limit() {
        let bot = |organization, id| {
            Scope::destination(organization, "discord", id).limited_with(Some("bot-1f".to_owned()))
        };
        assert_eq!(bot("acme", 1).widest(), bot("umbrella", 2).widest());
        let widest = bot("acme", 1).widest().clone();
        assert_eq!(
            (widest.text.as_str(), widest.called.as_str()),
            ("*|discord|bot-1f", "Discord (bot-1f)")
        );
        let alone = Scope::destination("acme", "slack", 3).limited_with(None);
        assert_eq!(alone.widest(), alone.own());
        let targets: Vec<&str> = alone.targets().map(|target| target.text.as_str()).collect();
        assert_eq!(targets, ["acme|slack|3", "provider:slack"]);
    }
}
