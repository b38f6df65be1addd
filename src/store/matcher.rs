//! The matcher of a kill switch: which jobs it stops, and what becomes of them. Pure.

use std::cell::OnceCell;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control_scope::{ALL, of_organization};
use crate::job::{Job, words};

/// Maximum number of payload conditions of a matcher.
const CONDITIONS: usize = 8;
/// Maximum length of each text of a matcher, in characters.
const LENGTH: usize = 255;
/// Maximum number of segments of a path.
const DEPTH: usize = 16;

words! {
    /// What becomes of a job that a kill switch matches.
    KillAction {
        /// The job is parked with the code `operator.kill_switch`.
        Park = "park",
        /// The job is cancelled.
        Cancel = "cancel",
    }
}

/// The jobs that a kill switch stops: those for which all conditions hold. A field that this
/// version does not know makes the whole matcher unreadable, since the field may narrow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// The slug of the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The producer. The source of a follow-up is the pipeline of its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The account that was configured for the job, else the payload's `account`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Conditions on the payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<PayloadCondition>,
    /// What becomes of the jobs.
    pub action: KillAction,
}

/// A value in the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadCondition {
    /// Names of fields and numbers of elements, joined by dots: `search.project`,
    /// `events.0.payload.eventType`.
    pub path: String,
    /// The expected string, or the expected number, `true`, `false` or `null` as JSON.
    pub value: String,
}

/// A job as controls see it.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Its pipeline.
    pub pipeline: &'a str,
    /// Its next stage.
    pub stage: &'a str,
    /// The lane of its pipeline.
    pub lane: &'a str,
    /// The slug of its organization.
    pub organization: &'a str,
    /// Its source.
    pub source: &'a str,
    /// The account that was configured for it.
    pub account: Option<&'a str>,
    /// Its payload.
    pub(super) payload: &'a str,
    pub(super) parsed: OnceCell<Value>,
}

impl<'a> Subject<'a> {
    /// Returns a claimed job, whose pipeline is in `lane`.
    #[must_use]
    pub fn of(job: &'a Job, lane: &'a str) -> Self {
        Self {
            stage: &job.stage,
            lane,
            account: job.account.as_deref(),
            ..Self::with(
                &job.pipeline,
                &job.organization,
                &job.source,
                job.payload.get(),
            )
        }
    }

    /// Returns a job of which only these fields are known.
    #[must_use]
    pub const fn with(
        pipeline: &'a str,
        organization: &'a str,
        source: &'a str,
        payload: &'a str,
    ) -> Self {
        Self {
            pipeline,
            stage: "",
            lane: "",
            organization,
            source,
            account: None,
            payload,
            parsed: OnceCell::new(),
        }
    }

    /// Returns the payload, parsed once; `null` if it cannot be parsed.
    fn payload(&self) -> &Value {
        self.parsed
            .get_or_init(|| serde_json::from_str(self.payload).unwrap_or_default())
    }

    fn account(&self) -> Option<&str> {
        self.account
            .or_else(|| self.payload().get("account").and_then(Value::as_str))
    }
}

impl Matcher {
    /// Reads a stored matcher. `None`: this version does not understand it.
    #[must_use]
    pub fn read(stored: &str) -> Option<Self> {
        serde_json::from_str::<Self>(stored)
            .ok()
            .filter(|matcher| matcher.check().is_ok())
    }

    /// Checks the conditions.
    ///
    /// # Errors
    /// What is expected.
    pub fn check(&self) -> Result<(), String> {
        let fields = [
            &self.organization,
            &self.source,
            &self.account,
            &self.pipeline,
        ];
        let texts: Vec<&str> = fields
            .into_iter()
            .filter_map(|field| field.as_deref())
            .collect();
        if texts.is_empty() && self.payload.is_empty() {
            return Err(
                "expected at least one condition, got none; use `dispatch pause` to stop all jobs"
                    .to_owned(),
            );
        }
        if self.payload.len() > CONDITIONS {
            return Err(format!(
                "expected at most {CONDITIONS} conditions on the payload, got {}",
                self.payload.len()
            ));
        }
        for text in texts {
            check_length("a condition", text)?;
        }
        self.payload.iter().try_for_each(PayloadCondition::check)
    }

    /// Returns whether a job's payload is needed to decide whether the matcher matches.
    #[must_use]
    pub fn reads_payload(&self) -> bool {
        self.account.is_some() || !self.payload.is_empty()
    }

    /// Returns whether all conditions hold for a job. The payload is parsed only if the others do.
    #[must_use]
    pub fn matches(&self, job: &Subject<'_>) -> bool {
        let is = |expected: &Option<String>, value: &str| {
            expected.as_deref().is_none_or(|expected| expected == value)
        };
        is(&self.organization, job.organization)
            && is(&self.source, job.source)
            && is(&self.pipeline, job.pipeline)
            && self
                .account
                .as_deref()
                .is_none_or(|expected| job.account() == Some(expected))
            && self
                .payload
                .iter()
                .all(|condition| condition.holds(job.payload()))
    }

    /// Returns the scope of the matcher's control.
    #[must_use]
    pub fn scope(&self) -> String {
        self.organization
            .as_deref()
            .map_or_else(|| ALL.to_owned(), of_organization)
    }
}

impl PayloadCondition {
    /// Parses `PATH=VALUE`.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or_else(|| {
            format!("expected PATH=VALUE, got '{text}'; use 'search.project=web' for example")
        })?;
        let condition = Self {
            path: path.to_owned(),
            value: value.to_owned(),
        };
        condition.check().map(|()| condition)
    }

    fn check(&self) -> Result<(), String> {
        check_length("a path", &self.path)?;
        if self.value.chars().count() > LENGTH {
            return Err(format!("expected a value of at most {LENGTH} characters"));
        }
        let segments = self.path.split('.').count();
        if segments > DEPTH || self.path.split('.').any(str::is_empty) {
            return Err(format!(
                "expected a path of 1 to {DEPTH} names joined by dots, got '{}'; use 'search.project' for example",
                self.path
            ));
        }
        Ok(())
    }

    fn holds(&self, payload: &Value) -> bool {
        let found = self
            .path
            .split('.')
            .try_fold(payload, |value, name| match value {
                Value::Object(fields) => fields.get(name),
                Value::Array(elements) => elements.get(name.parse::<usize>().ok()?),
                _ => None,
            });
        match found {
            None | Some(Value::Object(_) | Value::Array(_)) => false,
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Number(number)) => number.to_string() == self.value,
            Some(Value::Bool(flag)) => self.value == if *flag { "true" } else { "false" },
            Some(Value::Null) => self.value == "null",
        }
    }
}

fn check_length(what: &str, text: &str) -> Result<(), String> {
    if (1..=LENGTH).contains(&text.chars().count()) {
        Ok(())
    } else {
        Err(format!(
            "expected {what} of 1 to {LENGTH} characters, got {}",
            text.chars().count()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str = r#"{"account": "A-1", "search": {"project": "web", "open": true}, "events": [{"id": 17}, {"id": null}]}"#;

    fn matcher(json: &str) -> Matcher {
        Matcher::read(json).unwrap()
    }

    fn matches(json: &str) -> bool {
        matcher(json).matches(&Subject::with("dispatch", "acme", "shop", PAYLOAD))
    }

    #[test]
    fn every_condition_must_hold() {
        for right in [
            r#"{"organization": "acme", "action": "park"}"#,
            r#"{"organization": "acme", "source": "shop", "pipeline": "dispatch", "account": "A-1", "action": "cancel"}"#,
            r#"{"payload": [{"path": "search.project", "value": "web"}, {"path": "events.0.id", "value": "17"}], "action": "park"}"#,
            r#"{"payload": [{"path": "search.open", "value": "true"}, {"path": "events.1.id", "value": "null"}], "action": "park"}"#,
        ] {
            assert!(matches(right), "{right}");
        }
        for wrong in [
            r#"{"organization": "umbrella", "action": "park"}"#,
            r#"{"organization": "acme", "source": "other", "action": "park"}"#,
            r#"{"account": "A-2", "action": "park"}"#,
            r#"{"payload": [{"path": "search.project", "value": "we"}], "action": "park"}"#,
            r#"{"payload": [{"path": "search", "value": "web"}], "action": "park"}"#,
            r#"{"payload": [{"path": "events.2.id", "value": "17"}], "action": "park"}"#,
            r#"{"payload": [{"path": "nothing", "value": ""}], "action": "park"}"#,
        ] {
            assert!(!matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_configured_account_takes_precedence_over_the_payloads() {
        let job = Subject {
            account: Some("A-2"),
            ..Subject::with("dispatch", "acme", "shop", PAYLOAD)
        };
        assert!(matcher(r#"{"account": "A-2", "action": "park"}"#).matches(&job));
        assert!(!matcher(r#"{"account": "A-1", "action": "park"}"#).matches(&job));
    }

    #[test]
    fn a_matcher_of_a_newer_version_is_not_understood() {
        for newer in [
            r#"{"organization": "acme", "region": "eu", "action": "park"}"#,
            r#"{"organization": "acme", "action": "delay"}"#,
            r#"{"organization": "acme"}"#,
            r#"{"action": "park"}"#,
            r#"{"payload": [{"path": "a", "value": "b", "unless": "c"}], "action": "park"}"#,
            "[]",
        ] {
            assert_eq!(Matcher::read(newer), None, "{newer}");
        }
    }

    #[test]
    fn a_matcher_has_at_least_one_condition_and_every_text_a_limit() {
        let long = "x".repeat(256);
        for wrong in [
            "",
            "=web",
            "search",
            "a..b=1",
            &format!("{long}=1"),
            &format!("a={long}"),
        ] {
            assert!(PayloadCondition::parse(wrong).is_err(), "{wrong}");
        }
        let right = PayloadCondition::parse("a.0.b=c=d").unwrap();
        assert_eq!(
            (right.path.as_str(), right.value.as_str()),
            ("a.0.b", "c=d")
        );
        let stored = matcher(r#"{"organization": "acme", "action": "park"}"#);
        let many = Matcher {
            payload: vec![right; 9],
            ..stored.clone()
        };
        assert!(many.check().unwrap_err().contains("at most 8"));
        assert_eq!(stored.scope(), "organization:acme");
        assert_eq!(
            serde_json::to_string(&stored).unwrap(),
            r#"{"organization":"acme","action":"park"}"#
        );
    }
}
