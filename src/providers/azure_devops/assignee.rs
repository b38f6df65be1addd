//! Who a work item is assigned to, in every form `System.AssignedTo` is met in.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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

/// An identity object. A part that is no text is none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(borrow, default)]
    display_name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mail_address: Option<&'a RawValue>,
    #[serde(borrow, default)]
    unique_name: Option<&'a RawValue>,
}

impl From<Identity<'_>> for Assignee {
    fn from(identity: Identity<'_>) -> Self {
        let part = |part: Option<&RawValue>| {
            let text = serde_json::from_str::<String>(part?.get()).ok()?;
            some(text.trim())
        };
        let unique_name = part(identity.unique_name);
        let email = part(identity.mail_address).or_else(|| unique_name.clone()).filter(|name| is_email(name));
        Self::Person { display_name: part(identity.display_name), email, unique_name }
    }
}

impl Assignee {
    /// Reads a field's value: an identity object, `Name <mail>`, `Name <DOMAIN\user>`, a bare name or address; null, empty
    /// or blank is nobody. Never fails: a value of another kind is somebody who cannot be told, so that nonsense unassigns
    /// nobody.
    #[must_use]
    pub fn read(field: Option<&RawValue>) -> Self {
        let Some(field) = field.map(RawValue::get) else { return Self::Unassigned };
        let nonsense = Self::Person { display_name: None, email: None, unique_name: None };
        match field.as_bytes() {
            b"null" => Self::Unassigned,
            [b'"', ..] => serde_json::from_str::<String>(field).map_or(nonsense, |text| Self::read_text(text.trim())),
            [b'{', inside @ .., b'}'] if inside.trim_ascii().is_empty() => Self::Unassigned,
            [b'{', ..] => serde_json::from_str::<Identity<'_>>(field).map_or(nonsense, Self::from),
            _ => nonsense,
        }
    }

    /// As [`Assignee::read`], of a value that has been read already.
    #[cfg(test)]
    pub(crate) fn parse(value: &serde_json::Value) -> Self {
        Self::read(serde_json::value::to_raw_value(value).ok().as_deref())
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

    fn read_text(text: &str) -> Self {
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
        for value in [json!(7), json!(true), json!([]), json!({"id": 1}), json!({"displayName": 7, "uniqueName": []})] {
            assert_eq!(Assignee::parse(&value), person("", "", ""), "{value}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_nobody_and_white_space_means_nothing() {
        let read = |text: &str| Assignee::read(Some(serde_json::from_str(text).unwrap()));
        assert_eq!(Assignee::read(None), Assignee::Unassigned);
        assert_eq!((read(" null "), read("{ \n }")), (Assignee::Unassigned, Assignee::Unassigned));
        assert_eq!(read(" { \"displayName\" : \"A\\u0041\" } "), person("AA", "", ""));
        assert_eq!(read(r#"{"uniqueName": "a@x.example", "uniqueName": "b@x.example"}"#), person("", "", ""), "said twice");
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
