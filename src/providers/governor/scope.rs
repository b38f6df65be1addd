//! Which destination: a tenant's way to one place of one provider, and what limits it together with others.

use std::fmt;

use super::lanes::CallLane;

/// In the place of the organization, where a limit is nobody's alone.
const EVERYBODY: &str = "*";
/// Behind a destination's own name, for what only waits for a seat there.
const SEATS: &str = "#seats";

/// A destination as holds name it: `<organization>|<provider>|<host or destination id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    own: Target,
    seats: Target,
    shared: Option<Target>,
    provider: &'static str,
    lane: CallLane,
    tenant: Option<String>,
}

/// What a hold is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// As stored.
    pub(super) text: String,
    /// As people call it: `acme's Azure DevOps`.
    pub(super) called: String,
    /// See [`Scope::seats`].
    pub(super) is_seats: bool,
}

impl Scope {
    /// A provider's host, as an organization calls it from the lane of requests; see [`Scope::from_lane`].
    #[must_use]
    pub fn host(organization: &str, provider: &'static str, host: &str) -> Self {
        let tenant = Some(organization.to_owned());
        Self { tenant, lane: CallLane::Dispatch, ..Self::new(organization, provider, host, "") }
    }

    /// A registered destination of messages, by its row id.
    #[must_use]
    pub fn destination(organization: &str, kind: &'static str, id: i64) -> Self {
        Self::new(organization, kind, &id.to_string(), &format!(" (destination {id})"))
    }

    /// Where an organization's clicks are answered; as a destination, since the same lane delivers to it.
    #[must_use]
    pub fn clicks(organization: &str, kind: &'static str) -> Self {
        Self::new(organization, kind, "clicks", "")
    }

    fn new(organization: &str, provider: &'static str, place: &str, detail: &str) -> Self {
        let text = format!("{organization}|{provider}|{place}");
        let called = format!("{organization}'s {}{detail}", name_of(provider));
        let seats = Target { text: format!("{text}{SEATS}"), called: called.clone(), is_seats: true };
        Self {
            own: Target { text, called, is_seats: false },
            seats,
            shared: None,
            provider,
            lane: CallLane::Messaging,
            tenant: None,
        }
    }

    /// Called from another lane: the seats of each are counted by themselves.
    #[must_use]
    pub fn from_lane(self, lane: CallLane) -> Self {
        Self { lane, ..self }
    }

    /// As one of several destinations, of whichever organization, that the other side limits together (`limit` names what they
    /// have in common): a limit that holds for all of them is `*|<provider>|<limit>`.
    #[must_use]
    pub fn limited_with(self, limit: Option<String>) -> Self {
        let target = |limit: String| Target {
            text: format!("{EVERYBODY}|{}|{limit}", self.provider),
            called: format!("{} ({limit})", name_of(self.provider)),
            is_seats: false,
        };
        Self { shared: limit.map(target), ..self }
    }

    /// As stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.own.text
    }

    /// The provider, as in error codes.
    #[must_use]
    pub const fn provider(&self) -> &'static str {
        self.provider
    }

    /// Whose host it is; none for a destination of messages.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Where it is called from.
    pub(super) const fn lane(&self) -> CallLane {
        self.lane
    }

    /// Itself alone.
    pub(super) const fn own(&self) -> &Target {
        &self.own
    }

    /// Its seats: a hold of them keeps only those waiting who find none. Every replica has its own, so that one where all are taken
    /// says nothing of the others.
    pub(super) const fn seats(&self) -> &Target {
        &self.seats
    }

    /// All that the other side limits together; itself where that is nothing else.
    pub(super) fn widest(&self) -> &Target {
        self.shared.as_ref().unwrap_or(&self.own)
    }

    /// Everything whose hold keeps it from being called.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> + Clone {
        std::iter::once(&self.own).chain(&self.shared)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.own.text)
    }
}

fn name_of(provider: &'static str) -> &'static str {
    match provider {
        "azure_devops" => "Azure DevOps",
        "entra" => "Microsoft Entra",
        "discord" => "Discord",
        "discord_webhook" => "Discord webhook",
        "discord_interaction" => "answers in Discord",
        "slack" => "Slack",
        "teams" => "Microsoft Teams",
        "email" => "e-mail server",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(scope: &Scope) -> (&str, &str) {
        (scope.as_str(), &scope.own.called)
    }

    #[test]
    fn a_scope_has_a_text_to_be_stored_and_a_name_for_people() {
        let devops = Scope::host("acme", "azure_devops", "dev.azure.com");
        assert_eq!(named(&devops), ("acme|azure_devops|dev.azure.com", "acme's Azure DevOps"));
        let hook = Scope::destination("acme", "webhook", 7);
        assert_eq!(named(&hook), ("acme|webhook|7", "acme's webhook (destination 7)"));
        let clicks = Scope::clicks("acme", "discord_interaction");
        assert_eq!(named(&clicks), ("acme|discord_interaction|clicks", "acme's answers in Discord"));
        assert_eq!([&devops, &hook, &clicks].map(Scope::tenant), [Some("acme"), None, None]);
        assert_eq!((hook.seats().text.as_str(), &hook.seats().called), ("acme|webhook|7#seats", &hook.own.called));
    }

    #[test]
    fn destinations_with_one_credential_have_one_limit_whichever_organization_s_they_are() {
        let bot = |organization, id| Scope::destination(organization, "discord", id).limited_with(Some("bot-1f".to_owned()));
        assert_eq!(bot("acme", 1).widest(), bot("umbrella", 2).widest());
        let widest = bot("acme", 1).widest().clone();
        assert_eq!((widest.text.as_str(), widest.called.as_str()), ("*|discord|bot-1f", "Discord (bot-1f)"));
        let alone = Scope::destination("acme", "slack", 3).limited_with(None);
        assert_eq!((alone.widest(), alone.targets().count()), (alone.own(), 1));
    }
}
