//! Replaces names by the pseudonym in every column with texts.

use super::passes::RowEdit;
use super::{Erasure, ErasureError};

/// The columns of a table with text and with JSON. Sealed columns are not included: those that may
/// name somebody are opened elsewhere.
struct Columns {
    table: &'static str,
    text: &'static [&'static str],
    json: &'static [&'static str],
}

const TEXTS: &[Columns] = &[
    Columns {
        table: "jobs",
        text: &[
            "dedupe_key",
            "error_message",
            "error_hint",
            "reply_to",
            "correlation_id",
        ],
        json: &["payload", "partial"],
    },
    Columns {
        table: "job_inputs",
        text: &["replaced_by"],
        json: &["payload"],
    },
    Columns {
        table: "checkpoints",
        text: &[],
        json: &["output"],
    },
    Columns {
        table: "attempts",
        text: &["message"],
        json: &[],
    },
    Columns {
        table: "failure_groups",
        text: &["sample", "owner", "note"],
        json: &[],
    },
    Columns {
        table: "effects",
        text: &["target", "resource", "provider_ref"],
        json: &["detail"],
    },
    Columns {
        table: "announcements",
        text: &["reply_to", "correlation_id"],
        json: &["body"],
    },
    Columns {
        table: "job_keys",
        text: &["dedupe_key", "cancelled_by"],
        json: &[],
    },
    Columns {
        table: "controls",
        text: &["scope", "reason", "who"],
        json: &["matcher"],
    },
    Columns {
        table: "activities",
        text: &["reason"],
        json: &[],
    },
    Columns {
        table: "issue_groups",
        text: &["title"],
        json: &[],
    },
    Columns {
        table: "identities",
        text: &["name", "refresh_refusal"],
        json: &[],
    },
    Columns {
        table: "destinations",
        text: &["name"],
        json: &[],
    },
];

impl Erasure<'_> {
    /// Replaces the names in all texts of all tables except the audit log.
    pub(super) async fn texts(&mut self) -> Result<(), ErasureError> {
        let (pattern, pseudonym) = (self.pattern.clone(), self.pseudonym.clone());
        for Columns { table, text, json } in TEXTS {
            let texts = text
                .iter()
                .map(|column| format!("{column} = regexp_replace({column}, $1, $2, 'gi')"));
            let jsons = json.iter().map(|column| {
                format!("{column} = regexp_replace({column}::text, $1, $2, 'gi')::json")
            });
            let set: Vec<String> = texts.chain(jsons).collect();
            let named: Vec<String> = text
                .iter()
                .chain(*json)
                .map(|column| format!("t.{column}::text ~* $1"))
                .collect();
            // Uses both parameters, because a dry run passes the same ones.
            let condition = format!("$2::text IS NOT NULL AND ({})", named.join(" OR "));
            self.pass(
                table,
                RowEdit::Set(&set.join(", ")),
                &condition,
                &[&pattern, &pseudonym],
            )
            .await?;
        }
        Ok(())
    }
}
