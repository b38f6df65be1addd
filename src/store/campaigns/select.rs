//! The jobs that a campaign is for: a filter with an index for at least one of its conditions.

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::not_started::NotStarted;
use crate::job::{JobId, JobState};

/// Maximum number of ids in a filter.
pub const MOST_IDS: usize = 1_000;
/// Maximum length of a text in a filter.
const LONGEST: usize = 255;
/// Maximum number of jobs that are read by one filter, and so of items of a campaign.
pub(crate) const LOOK: i64 = 100_000;

/// A filter for jobs. A job matches if it has every property that is given.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CampaignFilter {
    /// These jobs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<JobId>,
    /// Parked with this fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Open, with this code of the last failure, or with a code that begins so: `slack.*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Waiting for this cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Parked or waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Of this organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Of this pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Accepted at this time or later.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub accepted_since: Option<OffsetDateTime>,
}

/// An access path: its statements for a preview and for a snapshot.
pub(super) struct Way {
    pub(super) choose: &'static str,
    pub(super) insert: &'static str,
}

/// Selects the jobs of an access path, at most `$1`, and those of them that match.
macro_rules! looked {
    ($way:literal, $order:literal) => {
        concat!(
            "WITH looked AS MATERIALIZED (
                SELECT id, organization, pipeline, source, state, wait_reason, created_at, fingerprint, error_code, wait_key FROM jobs WHERE ",
            $way,
            " ORDER BY ",
            $order,
            " LIMIT $1
            ), chosen AS (
                SELECT id, organization, state, wait_reason FROM looked WHERE ($2::text IS NULL OR organization = $2) AND ($3::text IS NULL OR pipeline = $3)
                    AND ($4::text IS NULL OR source = $4) AND ($5::text IS NULL OR state = $5)
                    AND ($6::timestamptz IS NULL OR created_at >= $6)
                    AND ($7::text IS NULL OR (state = 'parked' AND fingerprint = $7))
                    AND ($8::text IS NULL OR (error_code COLLATE \"C\" >= $8 AND error_code COLLATE \"C\" <= $9::text))
                    AND ($10::text IS NULL OR (state = 'waiting' AND wait_key = $10))
                    AND ($11::uuid[] IS NULL OR id = ANY ($11))
            )"
        )
    };
}

/// Counts what was read. Returns the first 10,000 jobs by state and reason, a row for each, with up to
/// 100 of their organizations; the first row has their ids. If there are no jobs, it has no state.
macro_rules! choose {
    ($way:literal, $order:literal) => {
        concat!(
            looked!($way, $order),
            ", first AS MATERIALIZED (SELECT id, organization, state, wait_reason FROM chosen ORDER BY id LIMIT 10000)
            SELECT (SELECT count(*) FROM looked) AS looked, CASE WHEN states.n > 1 THEN NULL ELSE ARRAY(SELECT id FROM first) END AS ids,
                ARRAY(SELECT DISTINCT organization FROM first ORDER BY 1 LIMIT 100) AS organizations, states.state, states.wait_reason, states.jobs
            FROM (SELECT) AS always LEFT JOIN (
                SELECT state, wait_reason, count(*) AS jobs, row_number() OVER (ORDER BY state, wait_reason) AS n FROM first GROUP BY 1, 2) AS states ON true
            ORDER BY states.n"
        )
    };
}

/// Makes the items of the campaign `$12`.
macro_rules! insert {
    ($way:literal, $order:literal) => {
        concat!(
            looked!($way, $order),
            ", put AS (
                INSERT INTO campaign_items (campaign, n, job_id) SELECT $12, row_number() OVER (ORDER BY id), id FROM chosen
                RETURNING n
            ) SELECT (SELECT count(*) FROM looked) AS looked, (SELECT count(*) FROM put) AS jobs"
        )
    };
}

// Range and order use the columns of the index of the access path, as in `listing`.
macro_rules! ways {
    ($($choose:ident, $insert:ident: $way:literal, $order:literal;)+) => {
        $(
            pub(crate) const $choose: &str = choose!($way, $order);
            pub(crate) const $insert: &str = insert!($way, $order);
        )+
    };
}

ways! {
    IDS, INSERT_IDS: "id = ANY ($11)", "id";
    GROUP, INSERT_GROUP: "state = 'parked' AND fingerprint >= $7 AND fingerprint <= $7", "fingerprint, id";
    CODE, INSERT_CODE:
        "error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') AND error_code COLLATE \"C\" >= $8 AND error_code COLLATE \"C\" <= $9",
        "error_code COLLATE \"C\", id";
    CAUSE, INSERT_CAUSE:
        "state = 'waiting' AND wait_reason <> 'children' AND wait_key >= $10 AND wait_key <= $10",
        "wait_key, wait_observed, id";
    HALTED, INSERT_HALTED: "state IN ('waiting', 'parked') AND state >= $5 AND state <= $5", "state, id";
}

/// A filter that was checked, with its parameters.
pub(super) struct Checked<'a> {
    filter: &'a CampaignFilter,
    pub(super) way: Way,
    state: Option<&'static str>,
    /// The codes from and up to, in the order of their bytes.
    codes: (Option<String>, Option<String>),
    ids: Option<Vec<Uuid>>,
}

impl CampaignFilter {
    /// Checks that the filter can match something and has an access path.
    pub(super) fn check(&self) -> Result<Checked<'_>, NotStarted> {
        self.check_texts()?;
        let refused = |why: &str| Err(NotStarted::Filter(why.to_owned()));
        if self.ids.len() > MOST_IDS {
            return Err(NotStarted::Filter(format!(
                "expected at most {MOST_IDS} ids, got {}; use a filter",
                self.ids.len()
            )));
        }
        match self.state {
            None | Some(JobState::Parked | JobState::Waiting) => {}
            Some(other) => {
                return Err(NotStarted::Filter(format!(
                    "expected the state parked or waiting, got {other}; use one of them"
                )));
            }
        }
        if self.group.is_some() && self.state == Some(JobState::Waiting) {
            return refused(
                "expected parked jobs with a group, got the state waiting; use one of the two",
            );
        }
        if self.cause.is_some() && (self.state == Some(JobState::Parked) || self.group.is_some()) {
            return refused(
                "expected waiting jobs with a cause, got parked ones; use the cause without group and state",
            );
        }
        let way = if !self.ids.is_empty() {
            Way {
                choose: IDS,
                insert: INSERT_IDS,
            }
        } else if self.group.is_some() {
            Way {
                choose: GROUP,
                insert: INSERT_GROUP,
            }
        } else if self.cause.is_some() {
            Way {
                choose: CAUSE,
                insert: INSERT_CAUSE,
            }
        } else if self.error_code.is_some() {
            Way {
                choose: CODE,
                insert: INSERT_CODE,
            }
        } else if self.state.is_some() {
            Way {
                choose: HALTED,
                insert: INSERT_HALTED,
            }
        } else {
            return refused(
                "expected ids, a group, an error code, a cause or a state, got none of them; use at least one, since the other \
                 conditions have no index",
            );
        };
        Ok(Checked {
            way,
            state: self.state.map(JobState::word),
            codes: self.codes()?,
            ids: (!self.ids.is_empty()).then(|| self.ids.iter().map(|id| id.0).collect()),
            filter: self,
        })
    }

    fn check_texts(&self) -> Result<(), NotStarted> {
        let texts = [
            ("group", &self.group),
            ("error code", &self.error_code),
            ("cause", &self.cause),
            ("organization", &self.organization),
            ("pipeline", &self.pipeline),
            ("source", &self.source),
        ];
        for (name, text) in texts {
            if let Some(text) = text
                && (text.is_empty() || text.len() > LONGEST)
            {
                return Err(NotStarted::Filter(format!(
                    "expected {name} of 1 to {LONGEST} bytes, got {}; use it as `dispatch jobs show` prints it",
                    text.len()
                )));
            }
        }
        Ok(())
    }

    /// Returns the range of codes. `slack.*` ends before `slack/`, the next text after all that
    /// begin with `slack.`.
    fn codes(&self) -> Result<(Option<String>, Option<String>), NotStarted> {
        let Some(code) = &self.error_code else {
            return Ok((None, None));
        };
        let prefix = code.strip_suffix(".*");
        if prefix.unwrap_or(code).contains('*') || prefix == Some("") {
            return Err(NotStarted::Filter(format!(
                "expected a code or the beginning of one, got `{code}`; use slack.not_in_channel or slack.*"
            )));
        }
        Ok(match prefix {
            Some(prefix) => (Some(format!("{prefix}.")), Some(format!("{prefix}/"))),
            None => (Some(code.clone()), Some(code.clone())),
        })
    }
}

impl Checked<'_> {
    /// Returns `$1` to `$11`.
    pub(super) fn parameters<'p>(&'p self, most: &'p i64) -> Vec<&'p (dyn ToSql + Sync)> {
        let filter = self.filter;
        vec![
            most,
            &filter.organization,
            &filter.pipeline,
            &filter.source,
            &self.state,
            &filter.accepted_since,
            &filter.group,
            &self.codes.0,
            &self.codes.1,
            &filter.cause,
            &self.ids,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(filter: &CampaignFilter) -> String {
        match filter.check() {
            Ok(_) => panic!("accepted: {filter:?}"),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn a_filter_without_an_access_path_or_with_a_contradiction_is_refused() {
        let text = |text: &str| Some(text.to_owned());
        let wrong = [
            CampaignFilter::default(),
            CampaignFilter {
                organization: text("acme"),
                ..Default::default()
            },
            CampaignFilter {
                state: Some(JobState::Running),
                ..Default::default()
            },
            CampaignFilter {
                error_code: text("*"),
                ..Default::default()
            },
            CampaignFilter {
                error_code: text(".*"),
                ..Default::default()
            },
            CampaignFilter {
                error_code: text("sl*ck"),
                ..Default::default()
            },
            CampaignFilter {
                group: text(""),
                ..Default::default()
            },
            CampaignFilter {
                group: text("f"),
                state: Some(JobState::Waiting),
                ..Default::default()
            },
            CampaignFilter {
                cause: text("c"),
                state: Some(JobState::Parked),
                ..Default::default()
            },
            CampaignFilter {
                ids: vec![JobId(Uuid::nil()); MOST_IDS + 1],
                ..Default::default()
            },
        ];
        for filter in &wrong {
            let why = refused(filter);
            assert!(why.contains("expected") && why.contains("use "), "{why}");
        }
    }

    #[test]
    fn the_beginning_of_a_code_is_a_range_of_codes() {
        let codes = |code: &str| {
            CampaignFilter {
                error_code: Some(code.to_owned()),
                ..Default::default()
            }
            .codes()
            .unwrap()
        };
        let (from, to) = codes("slack.*");
        let (from, to) = (from.unwrap(), to.unwrap());
        let within = |code: &str| from.as_str() <= code && code <= to.as_str();
        assert!(within("slack.not_in_channel") && within("slack.zzz"));
        assert!(!within("slack") && !within("slacker.x") && !within("discord.x"));
        let exact = codes("slack.x");
        assert_eq!(exact.0, exact.1);
    }
}
