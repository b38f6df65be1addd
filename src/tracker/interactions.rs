//! Reads the token that answers a click: it is sealed in the payload of the job that the click
//! created.

use deadpool_postgres::GenericClient;

use super::{Clicked, TrackerFault, query_opt};
use crate::job::JobId;
use crate::message::{Interaction, interaction_of};
use crate::secrets::Keyring;

/// Returns the interaction of a job, with the opened token.
pub(super) async fn interaction(
    client: &impl GenericClient,
    keyring: &Keyring,
    job: JobId,
) -> Result<Option<Clicked>, TrackerFault> {
    // As text, because Postgres' operators on json refuse a text that has `\u0000` anywhere in it.
    const SQL: &str = "SELECT payload::text AS payload FROM jobs WHERE id = $1";
    let Some(row) = query_opt(client, SQL, &[&job.0]).await? else {
        return Ok(None);
    };
    let stored: Option<&str> = row.try_get("payload")?;
    // Intake stores a payload that can be parsed; any other payload contains no interaction.
    let Some(interaction) = stored.and_then(interaction_of) else {
        return Ok(None);
    };
    let token = keyring.open_text(
        Interaction::token_place(&job.to_string()),
        &interaction.sealed_token,
    )?;
    let Interaction {
        application_id,
        message_id,
        ..
    } = interaction;
    Ok(Some(Clicked {
        application_id,
        message_id,
        token,
    }))
}
