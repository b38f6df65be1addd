//! Reads people by their verified e-mail addresses.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;

use super::{TrackerFault, query};
use crate::fault::storable;

/// The limit of a stored address in bytes; longer ones are truncated. RFC 5321 allows 254.
const EMAIL_BYTES: usize = 1024;

/// Returns an e-mail address in the form in which it is stored and compared: trimmed and in
/// lowercase.
#[must_use]
pub fn email_key(email: &str) -> String {
    storable(&email.trim().to_lowercase(), EMAIL_BYTES)
}

/// Returns, for each (project, e-mail), the member of the project who has verified this address
/// (case-insensitive). Pairs without a match are omitted.
pub(super) async fn members_by_email(
    client: &impl GenericClient,
    wanted: &[(i64, String)],
) -> Result<HashMap<(i64, String), i64>, TrackerFault> {
    const SQL: &str = "
        SELECT wanted.n, m.user_id
        FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS wanted (project_id, email, n)
        JOIN user_emails e ON e.email = wanted.email AND e.verified
        JOIN project_members m ON m.project_id = wanted.project_id AND m.user_id = e.user_id";
    let projects: Vec<i64> = wanted.iter().map(|(project, _)| *project).collect();
    let emails: Vec<String> = wanted.iter().map(|(_, email)| email_key(email)).collect();
    let mut members = HashMap::new();
    for row in query(client, SQL, &[&projects, &emails]).await? {
        let n: i64 = row.try_get("n")?;
        let asked = usize::try_from(n - 1)
            .ok()
            .and_then(|index| wanted.get(index));
        if let Some(asked) = asked {
            members.insert(asked.clone(), row.try_get("user_id")?);
        }
    }
    Ok(members)
}
