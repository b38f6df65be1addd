//! Which destination: a tenant's way to one place of one provider.

use std::fmt;

/// A destination as holds name it: `<organization>|<provider>|<host or destination id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    text: String,
    provider: &'static str,
    is_host: bool,
    called: String,
}

impl Scope {
    /// A provider's host, as an organization calls it.
    #[must_use]
    pub fn host(organization: &str, provider: &'static str, host: &str) -> Self {
        Self { is_host: true, ..Self::new(organization, provider, host, "") }
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
        Self { text, provider, is_host: false, called: format!("{organization}'s {}{detail}", name_of(provider)) }
    }

    /// As stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The provider, as in error codes.
    #[must_use]
    pub const fn provider(&self) -> &'static str {
        self.provider
    }

    /// Whether it is a provider's host rather than a registered destination of messages.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        self.is_host
    }

    /// As people call it: `acme's Azure DevOps`.
    #[must_use]
    pub fn called(&self) -> &str {
        &self.called
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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

    #[test]
    fn a_scope_has_a_text_to_be_stored_and_a_name_for_people() {
        let devops = Scope::host("acme", "azure_devops", "dev.azure.com");
        assert_eq!((devops.as_str(), devops.called()), ("acme|azure_devops|dev.azure.com", "acme's Azure DevOps"));
        let hook = Scope::destination("acme", "webhook", 7);
        assert_eq!((hook.as_str(), hook.called()), ("acme|webhook|7", "acme's webhook (destination 7)"));
        let clicks = Scope::clicks("acme", "discord_interaction");
        assert_eq!((clicks.as_str(), clicks.called()), ("acme|discord_interaction|clicks", "acme's answers in Discord"));
        assert!(devops.is_host() && !hook.is_host() && !clicks.is_host());
    }
}
