//! A vendor's explanation of a refusal, parsed from the formats that vendors use.

use std::fmt;

use serde_json::Value;

use super::scrub::scrub;

/// The code and the sentence of a refusal, without anything that looks like a secret, each at most
/// 2 KiB. Empty if the answer has no body.
///
/// Azure DevOps answers `{typeKey, message}`, Microsoft Entra `{error, error_description}` (RFC
/// 6749 §5.2), Discord `{code, message, errors}`, Slack `{error}`, workflows of Microsoft Teams
/// `{error: {code, message}}`, others `{title, detail}` (RFC 9457). A body in any other format is
/// the sentence itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The vendor's error code: `WorkItemRevisionMismatchException`, `invalid_grant`, `50013`.
    pub code: Option<String>,
    /// The vendor's sentence: `TF400813: The user … is not authorized to access this resource.`
    pub sentence: String,
}

const CODES: [&str; 3] = ["typeKey", "code", "error"];
const SENTENCES: [&str; 5] = ["message", "Message", "error_description", "detail", "title"];
/// The field with details: Discord's list of invalid fields.
const MORE: &str = "errors";

impl Said {
    /// Parses the body of an answer.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let read = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| Self::of_json(&value));
        read.unwrap_or_else(|| Self {
            code: None,
            sentence: scrub(String::from_utf8_lossy(body).trim()),
        })
    }

    fn of_json(value: &Value) -> Option<Self> {
        let inner = value.get("error").filter(|error| error.is_object());
        if let Some(said) = inner.and_then(Self::of_json) {
            return Some(said);
        }
        let word = |name: &&str| match value.get(*name)? {
            Value::String(text) if !text.is_empty() => Some(scrub(text)),
            Value::Number(number) => Some(number.to_string()),
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        };
        let code = CODES.iter().find_map(word);
        let text = |name: &&str| value.get(*name)?.as_str().filter(|text| !text.is_empty());
        let sentence = SENTENCES.iter().find_map(text).unwrap_or_default();
        let more = value
            .get(MORE)
            .filter(|more| more.is_object())
            .map(|more| format!(" {more}"))
            .unwrap_or_default();
        let said = Self {
            code,
            sentence: scrub(&format!("{sentence}{more}")),
        };
        (!said.is_empty()).then_some(said)
    }

    /// Returns whether the vendor's code is `code`, or its sentence contains it: a sentence may
    /// begin with `TF26071`.
    #[must_use]
    pub fn names(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code) || self.sentence.contains(code)
    }

    /// Returns whether there is neither a code nor a sentence.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.code.is_none() && self.sentence.is_empty()
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.code, self.sentence.as_str()) {
            (Some(code), "") => f.write_str(code),
            (Some(code), sentence) => write!(f, "{code}: {sentence}"),
            (None, sentence) => f.write_str(sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        Said::of(body.as_bytes()).to_string()
    }

    #[test]
    fn the_code_and_the_sentence_are_parsed_from_each_vendor_s_format() {
        for (body, expected) in [
            (
                r#"{"$id":"1","message":"TF26071: changed","typeName":"X","typeKey":"WorkItemRevisionMismatchException","errorCode":0}"#,
                "WorkItemRevisionMismatchException: TF26071: changed",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"AADSTS70008: expired"}"#,
                "invalid_grant: AADSTS70008: expired",
            ),
            (
                r#"{"message":"Missing Permissions","code":50013}"#,
                "50013: Missing Permissions",
            ),
            (
                r#"{"message":"Invalid Form Body","code":50035,"errors":{"content":{"_errors":[]}}}"#,
                r#"50035: Invalid Form Body {"content":{"_errors":[]}}"#,
            ),
            (r#"{"ok":false,"error":"not_in_channel"}"#, "not_in_channel"),
            (
                r#"{"error":{"code":"WorkflowNotFound","message":"gone"}}"#,
                "WorkflowNotFound: gone",
            ),
            (
                r#"{"title":"Bad","detail":"no such field"}"#,
                "no such field",
            ),
            ("<html>busy</html>", "<html>busy</html>"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("", ""),
        ] {
            assert_eq!(said(body), expected, "{body}");
        }
    }

    #[test]
    fn a_secret_is_scrubbed_from_every_part() {
        for body in [
            r#"{"error":"x","error_description":"Bearer s3cr3t was refused"}"#,
            r#"{"code":1,"message":"m","errors":{"token":"s3cr3t"}}"#,
            r#"{"typeKey":"token=s3cr3t","message":"m"}"#,
            "token: s3cr3t",
        ] {
            assert!(!said(body).contains("s3cr3t"), "{body}");
        }
    }

    #[test]
    fn a_code_is_found_in_its_own_field_and_in_the_sentence() {
        let said = Said::of(br#"{"typeKey":"K","message":"VS403351: Test Operation failed"}"#);
        assert!(said.names("K") && said.names("VS403351") && !said.names("TF26071"));
    }
}
