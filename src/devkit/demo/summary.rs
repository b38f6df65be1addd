//! The result of the demo, as one JSON object or as text.

use std::fmt::Write as _;
use std::io::Write as _;

use deadpool_postgres::Client;
use serde::Serialize;

use super::verify::Check;

/// The counts of a demo run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Published messages that became jobs.
    pub(super) jobs: i64,
    pub(super) succeeded: i64,
    pub(super) waiting: i64,
    pub(super) parked: i64,
    /// Messages that were refused.
    pub(super) dead_letters: i64,
    /// Number of changes of a group's assignee.
    pub(super) assignments_changed: i64,
    /// Follow-ups of jobs.
    pub(super) follow_ups: i64,
    /// Messages delivered to destinations.
    pub(super) messages_delivered: i64,
    pub(super) retries: i64,
    /// Jobs taken over from a dead worker.
    pub(super) takeovers: u64,
    /// Effects that took place more often than allowed.
    pub(super) duplicate_effects: u64,
    /// Confirmed messages that are neither a job nor a dead letter.
    pub(super) lost_jobs: u64,
    /// Seconds since the start of the servers.
    pub(super) seconds: f64,
}

impl Summary {
    /// Returns the counts that are in Postgres.
    pub(super) async fn counted(client: &Client) -> anyhow::Result<Self> {
        const SQL: &str = "
            SELECT count(*) FILTER (WHERE parent_id IS NULL) AS jobs,
                count(*) FILTER (WHERE parent_id IS NULL AND state = 'succeeded') AS succeeded,
                count(*) FILTER (WHERE parent_id IS NULL AND state = 'waiting') AS waiting,
                count(*) FILTER (WHERE parent_id IS NULL AND state = 'parked') AS parked,
                (SELECT count(*) FROM dead_letters) AS dead_letters,
                (SELECT count(*) FROM group_history WHERE field = 'assignee') AS assignments_changed,
                count(*) FILTER (WHERE parent_id IS NOT NULL) AS follow_ups,
                count(*) FILTER (WHERE pipeline = 'messaging' AND state = 'succeeded') AS messages_delivered,
                (SELECT count(*) FROM attempts WHERE outcome = 'retried') AS retries
            FROM jobs";
        let row = client.query_one(SQL, &[]).await?;
        Ok(Self {
            jobs: row.try_get("jobs")?,
            succeeded: row.try_get("succeeded")?,
            waiting: row.try_get("waiting")?,
            parked: row.try_get("parked")?,
            dead_letters: row.try_get("dead_letters")?,
            assignments_changed: row.try_get("assignments_changed")?,
            follow_ups: row.try_get("follow_ups")?,
            messages_delivered: row.try_get("messages_delivered")?,
            retries: row.try_get("retries")?,
            ..Self::default()
        })
    }

    /// Formats the counts and the results of the checks as text.
    pub(super) fn text(&self, checks: &[Check]) -> String {
        let mut text = format!("\n{} jobs in {:.1} s\n", self.jobs, self.seconds);
        for (what, number) in [
            ("succeeded", self.succeeded),
            ("waiting for an account to be chosen", self.waiting),
            ("parked until an operator acts", self.parked),
            (
                "messages refused and kept as dead letters",
                self.dead_letters,
            ),
            ("assignments changed", self.assignments_changed),
            ("follow-up jobs", self.follow_ups),
            ("messages delivered", self.messages_delivered),
            ("retries", self.retries),
        ] {
            line(&mut text, what, &number);
        }
        line(
            &mut text,
            "jobs taken over from the killed worker",
            &self.takeovers,
        );
        line(&mut text, "duplicate effects", &self.duplicate_effects);
        line(&mut text, "lost jobs", &self.lost_jobs);
        text.push_str(
            "\nVerified from the requests that the providers received and from Postgres:\n",
        );
        for check in checks {
            let (mark, seen) = match &check.outcome {
                Ok(seen) => ("ok    ", seen),
                Err(problem) => ("BROKEN", problem),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {mark} {}: {seen}", check.promise);
        }
        text
    }
}

fn line(text: &mut String, what: &str, number: &dyn std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {number:>6}  {what}");
}

/// Prints the result on stdout.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())?;
    Ok(stdout.flush()?)
}
