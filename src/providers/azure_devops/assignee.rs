//! Who a work item is assigned to, in every form `System.AssignedTo` is met in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The assignee of a work item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignee {
    /// Nobody.
    Unassigned,
    /// Somebody. Where every part is missing, somebody who cannot be told: matching nobody, never "nobody".
    Person {
        /// As people read it.
        display_name: Option<String>,
        /// The e-mail address, as written.
        email: Option<String>,
        /// What Azure DevOps knows the person by: an e-mail address, or on premises `DOMAIN\user`.
        unique_name: Option<String>,
    },
}

impl Assignee {
    /// Reads a field's value: an identity object, `Name <mail>`, `Name <DOMAIN\user>`, a bare name or address; null, empty
    /// or blank is nobody. Never fails: a value of another kind is somebody who cannot be told, so that nonsense unassigns
    /// nobody.
    #[must_use]
    pub fn parse(value: &Value) -> Self {
        match value {
            Value::Null => Self::Unassigned,
            Value::String(text) => Self::parse_text(text.trim()),
            Value::Object(fields) if fields.is_empty() => Self::Unassigned,
            Value::Object(fields) => {
                let part = |name| fields.get(name).and_then(Value::as_str).and_then(|text: &str| some(text.trim()));
                let unique_name = part("uniqueName");
                let email = part("mailAddress").or_else(|| unique_name.clone()).filter(|name| is_email(name));
                Self::Person { display_name: part("displayName"), email, unique_name }
            }
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Self::Person { display_name: None, email: None, unique_name: None }
            }
        }
    }

    /// The e-mail address, where one is known.
    #[must_use]
    pub fn email(&self) -> Option<&str> {
        match self {
            Self::Unassigned => None,
            Self::Person { email, .. } => email.as_deref(),
        }
    }

    /// What tells this person from others: the unique name, or else the name people read.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Unassigned => None,
            Self::Person { display_name, unique_name, .. } => unique_name.as_deref().or(display_name.as_deref()),
        }
    }

    fn parse_text(text: &str) -> Self {
        if text.is_empty() {
            return Self::Unassigned;
        }
        let (display_name, account) = match split_account(text) {
            Some((name, account)) => (some(name), Some(account)),
            None if is_email(text) => (None, Some(text)),
            None => (some(text), None),
        };
        let email = account.filter(|account| is_email(account)).map(str::to_owned);
        Self::Person { display_name, email, unique_name: account.map(str::to_owned) }
    }
}

/// `Name <account>` in two, by the last `<`: names may hold brackets, accounts do not. What stands in the brackets must be
/// an account, or they belong to the name.
fn split_account(text: &str) -> Option<(&str, &str)> {
    let (name, account) = text.strip_suffix('>')?.rsplit_once('<')?;
    let account = account.trim();
    (is_email(account) || is_domain_user(account)).then_some((name.trim(), account))
}

fn is_email(text: &str) -> bool {
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '<' | '>'));
    plain && text.rsplit_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty())
}

fn is_domain_user(text: &str) -> bool {
    text.split_once('\\').is_some_and(|(domain, user)| !domain.is_empty() && !user.is_empty())
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn person(display_name: &str, email: &str, unique_name: &str) -> Assignee {
        Assignee::Person { display_name: some(display_name), email: some(email), unique_name: some(unique_name) }
    }

    #[test]
    fn every_form_met_in_the_wild_is_read() {
        let mail = "someone@example.com";
        for (value, expected) in [
            (json!({"displayName": "Some One", "uniqueName": mail, "descriptor": "aad.x"}), person("Some One", mail, mail)),
            (json!({"displayName": "Some One", "uniqueName": "CORP\\some"}), person("Some One", "", "CORP\\some")),
            (json!({"displayName": "Team", "descriptor": "vssgp.x"}), person("Team", "", "")),
            (json!("Some One <someone@example.com>"), person("Some One", mail, mail)),
            (json!("  Some One < someone@example.com > "), person("Some One", mail, mail)),
            (json!("<someone@example.com>"), person("", mail, mail)),
            (json!(mail), person("", mail, mail)),
            (json!("Some One"), person("Some One", "", "")),
            (json!("Some One <CORP\\some>"), person("Some One", "", "CORP\\some")),
            (json!("Zoë Ångström 山田 <zoe@exämple.com>"), person("Zoë Ångström 山田", "zoe@exämple.com", "zoe@exämple.com")),
            (json!("A <b> C <someone@example.com>"), person("A <b> C", mail, mail)),
            (json!("Team <Blue>"), person("Team <Blue>", "", "")),
            (json!("x > y"), person("x > y", "", "")),
            (json!("a <"), person("a <", "", "")),
        ] {
            assert_eq!(Assignee::parse(&value), expected, "{value}");
        }
    }

    #[test]
    fn nothing_is_nobody_and_nonsense_is_not() {
        for value in [json!(null), json!(""), json!("  "), json!({})] {
            assert_eq!(Assignee::parse(&value), Assignee::Unassigned, "{value}");
        }
        for value in [json!(7), json!(true), json!([]), json!({"id": 1})] {
            assert_eq!(Assignee::parse(&value), person("", "", ""), "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_mail_comes_back_whatever_the_name(name in any::<String>(), mail in "[a-zA-Z0-9._+-]{1,20}@[a-z0-9.äß-]{1,20}") {
            let text = format!("{name} <{mail}>");
            let assignee = Assignee::parse(&json!(text));
            prop_assert_eq!(assignee.email(), Some(mail.as_str()));
        }

        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let assignee = Assignee::parse(&json!(text));
            prop_assert_eq!(assignee == Assignee::Unassigned, text.trim().is_empty());
        }
    }
}
