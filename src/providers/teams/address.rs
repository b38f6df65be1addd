//! Addresses of Microsoft Teams that are known to be retired.
//!
//! - Office 365 connectors (`outlook.office.com/webhook…`, `outlook.office365.com/webhook…`,
//!   `*.webhook.office.com`): no new ones since August 2024, switched off for all tenants from 18
//!   to 22 May 2026
//!   (<https://devblogs.microsoft.com/microsoft365dev/retirement-of-office-365-connectors-within-microsoft-teams/>,
//!   message center MC1181996).
//! - Workflows of Power Automate on `*.logic.azure.com`: the address of each moved to
//!   `*.environment.api.powerplatform.com`, and the old one has triggered nothing since 30
//!   November 2025; sovereign clouds (`logic.azure.us`, …) are not affected
//!   (<https://learn.microsoft.com/troubleshoot/power-platform/power-automate/flow-run-issues/triggers-troubleshoot#changes-to-http-or-teams-webhook-trigger-flows-on-logic-apps-environment-architecture>).
//!   Azure Logic Apps, another product on the same hosts, are not retired; their addresses contain
//!   `api-version=2016-10-01`, those of Power Automate `2016-06-01`.

use reqwest::Url;

/// The reason why an address is retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retired {
    /// The address of an Office 365 connector.
    Connector,
    /// The address of a workflow before it moved.
    MovedWorkflow,
}

const LOGIC_APPS_VERSION: &str = "2016-10-01";

impl Retired {
    /// Returns the reason if an address is known to be retired.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        let is_webhook = url.path().starts_with("/webhook");
        if host.ends_with(".webhook.office.com")
            || (is_webhook && matches!(host, "outlook.office.com" | "outlook.office365.com"))
        {
            return Some(Self::Connector);
        }
        let is_logic_app = || {
            url.query_pairs()
                .any(|(name, value)| name == "api-version" && value == LOGIC_APPS_VERSION)
        };
        (host.ends_with(".logic.azure.com") && !is_logic_app()).then_some(Self::MovedWorkflow)
    }

    /// Returns what is expected instead, and where to find it.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Connector => {
                "expected the secret to be a workflow's address, got that of an Office 365 connector, which Microsoft retired in \
                 May 2026; in Teams, add the workflow `Send webhook alerts to a channel` and use the address that it shows"
            }
            Self::MovedWorkflow => {
                "expected the secret to be a workflow's present address, got one on logic.azure.com, where workflows have not \
                 been triggered since 30 November 2025; open the workflow's trigger and use the address that it shows now \
                 (…environment.api.powerplatform.com)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_addresses_are_recognized_and_others_are_not() {
        for (address, expected) in [
            (
                "https://acme.webhook.office.com/webhookb2/1@2/IncomingWebhook/3/4",
                Some(Retired::Connector),
            ),
            (
                "https://acme.webhook.office.com./webhookb2/1",
                Some(Retired::Connector),
            ),
            (
                "https://outlook.office.com/webhook/1@2/IncomingWebhook/3/4",
                Some(Retired::Connector),
            ),
            (
                "https://Outlook.Office365.com/webhookb2/1",
                Some(Retired::Connector),
            ),
            ("https://outlook.office.com/mail", None),
            (
                "https://prod-1.westus.logic.azure.com:443/workflows/1?api-version=2016-06-01&sig=x",
                Some(Retired::MovedWorkflow),
            ),
            (
                "https://prod-1.westus.logic.azure.com/workflows/1?sig=x",
                Some(Retired::MovedWorkflow),
            ),
            (
                "https://prod-1.westus.logic.azure.com/workflows/1?api-version=2016-10-01&sig=x",
                None,
            ),
            (
                "https://prod-1.usgovtexas.logic.azure.us/workflows/1?api-version=2016-06-01&sig=x",
                None,
            ),
            (
                "https://default1.2.environment.api.powerplatform.com/powerautomate/automations/direct/workflows/1?sig=x",
                None,
            ),
            ("https://webhook.office.com.example.com/webhookb2/1", None),
        ] {
            assert_eq!(
                Retired::of(&address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }
}
