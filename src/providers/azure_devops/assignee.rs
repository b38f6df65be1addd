//! The assignee of a work item, parsed from every format of `System.AssignedTo`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The assignee of a work item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignee {
    /// The work item has no assignee.
    Unassigned,
    /// A person. If every part is missing, an unidentified person, who matches no user and is not
    /// the same as `Unassigned`.
    Person {
        /// The display name.
        display_name: Option<String>,
        /// The e-mail address, as written.
        email: Option<String>,
        /// The unique name in Azure DevOps: an e-mail address, or on premises `DOMAIN\user`.
        unique_name: Option<String>,
    },
}

/// An identity object. A part that is not a string counts as missing.
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
        let email = part(identity.mail_address)
            .or_else(|| unique_name.clone())
            .filter(|name| is_email(name));
        Self::Person {
            display_name: part(identity.display_name),
            email,
            unique_name,
        }
    }
}

impl Assignee {
    /// Parses the value of a field: an identity object, `Name <mail>`, `Name <DOMAIN\user>`, or a
    /// bare name or address. Null, empty and blank values are `Unassigned`. Never fails: any other
    /// value is an unidentified person, so that an invalid value does not remove an assignee.
    #[must_use]
    pub fn read(field: Option<&RawValue>) -> Self {
        let Some(field) = field.map(RawValue::get) else {
            return Self::Unassigned;
        };
        let nonsense = Self::Person {
            display_name: None,
            email: None,
            unique_name: None,
        };
        match field.as_bytes() {
            b"null" => Self::Unassigned,
            [b'"', ..] => serde_json::from_str::<String>(field)
                .map_or(nonsense, |text| Self::read_text(text.trim())),
            [b'{', inside @ .., b'}'] if inside.trim_ascii().is_empty() => Self::Unassigned,
            [b'{', ..] => serde_json::from_str::<Identity<'_>>(field).map_or(nonsense, Self::from),
            _ => nonsense,
        }
    }

    /// As [`Assignee::read`], of a value that has been parsed already.
    #[cfg(test)]
    pub(crate) fn parse(value: &serde_json::Value) -> Self {
        Self::read(serde_json::value::to_raw_value(value).ok().as_deref())
    }

    /// Returns the e-mail address, if it is known.
    #[must_use]
    pub fn email(&self) -> Option<&str> {
        match self {
            Self::Unassigned => None,
            Self::Person { email, .. } => email.as_deref(),
        }
    }

    /// Returns the name that identifies the person: the unique name, or else the display name.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Unassigned => None,
            Self::Person {
                display_name,
                unique_name,
                ..
            } => unique_name.as_deref().or(display_name.as_deref()),
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
        let email = account
            .filter(|account| is_email(account))
            .map(str::to_owned);
        Self::Person {
            display_name,
            email,
            unique_name: account.map(str::to_owned),
        }
    }
}

/// Splits `Name <account>` at the last `<`: names may contain brackets, accounts do not. If the
/// brackets do not contain an account, they belong to the name.
fn split_account(text: &str) -> Option<(&str, &str)> {
    let (name, account) = text.strip_suffix('>')?.rsplit_once('<')?;
    let account = account.trim();
    (is_email(account) || is_domain_user(account)).then_some((name.trim(), account))
}

fn is_email(text: &str) -> bool {
    let plain = !text
        .contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '<' | '>'));
    plain
        && text
            .rsplit_once('@')
            .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty())
}

fn is_domain_user(text: &str) -> bool {
    text.split_once('\\')
        .is_some_and(|(domain, user)| !domain.is_empty() && !user.is_empty())
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
        Assignee::Person {
            display_name: some(display_name),
            email: some(email),
            unique_name: some(unique_name),
        }
    }

    #[test]
    fn every_known_format_is_parsed() {
        let mail = "someone@example.com";
        for (value, expected) in [
            (
                json!({"displayName": "Some One", "uniqueName": mail, "descriptor": "aad.x"}),
                person("Some One", mail, mail),
            ),
            (
                json!({"displayName": "Some One", "uniqueName": "CORP\\some"}),
                person("Some One", "", "CORP\\some"),
            ),
            (
                json!({"displayName": "Team", "descriptor": "vssgp.x"}),
                person("Team", "", ""),
            ),
            (
                json!("Some One <someone@example.com>"),
                person("Some One", mail, mail),
            ),
            (
                json!("  Some One < someone@example.com > "),
                person("Some One", mail, mail),
            ),
            (json!("<someone@example.com>"), person("", mail, mail)),
            (json!(mail), person("", mail, mail)),
            (json!("Some One"), person("Some One", "", "")),
            (
                json!("Some One <CORP\\some>"),
                person("Some One", "", "CORP\\some"),
            ),
            (
                json!("Zoë Ångström 山田 <zoe@exämple.com>"),
                person("Zoë Ångström 山田", "zoe@exämple.com", "zoe@exämple.com"),
            ),
            (
                json!("A <b> C <someone@example.com>"),
                person("A <b> C", mail, mail),
            ),
            (json!("Team <Blue>"), person("Team <Blue>", "", "")),
            (json!("x > y"), person("x > y", "", "")),
            (json!("a <"), person("a <", "", "")),
        ] {
            assert_eq!(Assignee::parse(&value), expected, "{value}");
        }
    }

    #[test]
    fn empty_values_are_unassigned_and_invalid_ones_are_an_unidentified_person() {
        for value in [json!(null), json!(""), json!("  "), json!({})] {
            assert_eq!(Assignee::parse(&value), Assignee::Unassigned, "{value}");
        }
        for value in [
            json!(7),
            json!(true),
            json!([]),
            json!({"id": 1}),
            json!({"displayName": 7, "uniqueName": []}),
        ] {
            assert_eq!(Assignee::parse(&value), person("", "", ""), "{value}");
        }
    }

    #[test]
    fn a_missing_field_is_unassigned_and_white_space_is_ignored() {
        let read = |text: &str| Assignee::read(Some(serde_json::from_str(text).unwrap()));
        assert_eq!(Assignee::read(None), Assignee::Unassigned);
        assert_eq!(
            (read(" null "), read("{ \n }")),
            (Assignee::Unassigned, Assignee::Unassigned)
        );
        assert_eq!(
            read(" { \"displayName\" : \"A\\u0041\" } "),
            person("AA", "", "")
        );
        assert_eq!(
            read(r#"{"uniqueName": "a@x.example", "uniqueName": "b@x.example"}"#),
            person("", "", ""),
            "a duplicate part"
        );
    }

    proptest! {
        #[test]
        fn a_mail_address_is_parsed_with_any_name(name in any::<String>(), mail in "[a-zA-Z0-9._+-]{1,20}@[a-z0-9.äß-]{1,20}") {
            let text = format!("{name} <{mail}>");
            let assignee = Assignee::parse(&json!(text));
            prop_assert_eq!(assignee.email(), Some(mail.as_str()));
        }

        #[test]
        fn any_text_is_parsed(text in any::<String>()) {
            let assignee = Assignee::parse(&json!(text));
            prop_assert_eq!(assignee == Assignee::Unassigned, text.trim().is_empty());
        }
    }
}
