//! Reads identities and their tokens, which are sealed at rest, and saves refreshed tokens.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Row;

use super::causes::{begin_release, identity_cause};
use super::{
    AccessToken, Identity, IdentityRow, NewTokens, RefreshTurn, SealedTracker, Tracker,
    TrackerFault, Turn, execute, query, query_opt,
};
use crate::secrets::{Keyring, Place};

/// The sealed columns.
pub(super) const ACCESS_TOKEN: &str = "access_token";
pub(super) const REFRESH_TOKEN: &str = "refresh_token";

/// Returns the place of an identity's sealed column.
pub(super) const fn place<'a>(column: &'a str, id: &'a str) -> Place<'a> {
    Place {
        table: "identities",
        column,
        row: id,
    }
}

/// Makes a query for the columns of [`IdentityRow`].
macro_rules! identities {
    ($condition:literal) => {
        concat!(
            "SELECT i.id, o.slug, i.name, i.token_expires_at, i.version, i.refresh_token IS NOT NULL AS has_refresh_token,
                i.refresh_refused_at
            FROM identities i JOIN organizations o ON o.id = i.organization_id ",
            $condition,
            " ORDER BY o.slug, i.name"
        )
    };
}

const IDENTITIES: &str = identities!("");
const IDENTITIES_OF: &str = identities!("WHERE o.slug = $1");

impl Tracker {
    /// Returns the identity of an organization with this name.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn identity_by_name(
        &self,
        organization_id: i64,
        name: &str,
    ) -> Result<Option<Identity>, TrackerFault> {
        const SQL: &str = "
            SELECT id, name, token_expires_at, version
            FROM identities
            WHERE organization_id = $1 AND name = $2";
        query_opt(&self.client().await?, SQL, &[&organization_id, &name])
            .await?
            .as_ref()
            .map(identity_of)
            .transpose()
    }

    /// Returns an identity.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn identity(&self, identity_id: i64) -> Result<Option<Identity>, TrackerFault> {
        const SQL: &str =
            "SELECT id, name, token_expires_at, version FROM identities WHERE id = $1";
        query_opt(&self.client().await?, SQL, &[&identity_id])
            .await?
            .as_ref()
            .map(identity_of)
            .transpose()
    }

    /// Returns all identities or those of one organization, sorted by organization and name.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn identities(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<IdentityRow>, TrackerFault> {
        let client = self.client().await?;
        let rows = match organization {
            None => query(&client, IDENTITIES, &[]).await?,
            Some(slug) => query(&client, IDENTITIES_OF, &[&slug]).await?,
        };
        rows.iter().map(IdentityRow::of).collect()
    }

    /// Ends a turn that returned no tokens, unless it has expired; `refused` is the answer if the
    /// refresh token was refused.
    ///
    /// # Errors
    /// [`TrackerFault`]; the turn then expires by itself.
    pub async fn end_refresh_turn(
        &self,
        identity_id: i64,
        turn: &Turn,
        refused: Option<&str>,
    ) -> Result<(), TrackerFault> {
        const SQL: &str = "
            UPDATE identities
            SET refreshing_until = NULL, refresh_refused_at = CASE WHEN $3::text IS NULL THEN refresh_refused_at ELSE now() END,
                refresh_refusal = coalesce($3, refresh_refusal)
            WHERE id = $1 AND refreshing_until = $2";
        execute(
            &self.client().await?,
            SQL,
            &[&identity_id, &turn.until, &refused],
        )
        .await?;
        Ok(())
    }
}

impl SealedTracker {
    /// Returns an identity's access token, opened.
    ///
    /// # Errors
    /// [`TrackerFault`], also if a sealed value cannot be opened.
    pub async fn access_token(
        &self,
        identity_id: i64,
    ) -> Result<Option<AccessToken>, TrackerFault> {
        const SQL: &str = "
            SELECT i.access_token, i.token_expires_at, i.version, o.slug,
                   extract(epoch FROM i.token_expires_at - now())::double precision AS ends_in
            FROM identities i
            JOIN organizations o ON o.id = i.organization_id
            WHERE i.id = $1";
        let Some(row) = query_opt(&self.tracker.client().await?, SQL, &[&identity_id]).await?
        else {
            return Ok(None);
        };
        let token = self.keyring.open_text(
            place(ACCESS_TOKEN, &identity_id.to_string()),
            row.try_get("access_token")?,
        )?;
        Ok(Some(AccessToken {
            identity_id,
            organization: row.try_get("slug")?,
            token,
            expires_at: row.try_get("token_expires_at")?,
            ends_in: time::Duration::saturating_seconds_f64(row.try_get("ends_in")?),
            version: row.try_get("version")?,
        }))
    }

    /// Requests the turn to refresh the tokens of this `version`, exclusive among all replicas,
    /// for at most `longest`. The turn is a time on the row, so that no transaction is open during
    /// the call of Microsoft Entra. It ends with [`SealedTracker::save_tokens`],
    /// [`Tracker::end_refresh_turn`], or by expiring. `refreshed_before` is set if the access
    /// token was refused before its expiry: the turn is then refused if a refresh for that reason
    /// was made within this time.
    ///
    /// # Errors
    /// [`TrackerFault`], also if a sealed value cannot be opened.
    pub async fn take_refresh_turn(
        &self,
        identity_id: i64,
        version: i64,
        longest: Duration,
        refreshed_before: Option<Duration>,
    ) -> Result<RefreshTurn, TrackerFault> {
        const SQL: &str = "
            UPDATE identities
            SET refreshing_until = now() + make_interval(secs => $3)
            WHERE id = $1 AND version = $2 AND refresh_token IS NOT NULL
                AND (refreshing_until IS NULL OR refreshing_until <= now())
                AND (refresh_refused_at IS NULL OR refresh_refused_at <= now() - interval '1 minute')
                AND ($4::float8 IS NULL OR access_refused_at IS NULL OR access_refused_at <= now() - make_interval(secs => $4))
            RETURNING refresh_token, refreshing_until";
        let client = self.tracker.client().await?;
        let within = refreshed_before.map(|within| within.as_secs_f64());
        let row = query_opt(
            &client,
            SQL,
            &[&identity_id, &version, &longest.as_secs_f64(), &within],
        )
        .await?;
        let Some(row) = row else {
            return why_no_turn(&client, identity_id, version, within).await;
        };
        let sealed = row.try_get("refresh_token")?;
        let refresh_token = self
            .keyring
            .open_text(place(REFRESH_TOKEN, &identity_id.to_string()), sealed)?;
        Ok(RefreshTurn::Yours(Turn {
            refresh_token,
            until: row.try_get("refreshing_until")?,
        }))
    }

    /// Saves refreshed tokens in place of those of `version`, ends the turn, and, in the same
    /// transaction, releases the jobs that wait for new tokens. Returns `false`, and saves
    /// nothing, if the tokens have changed since.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn save_tokens(
        &self,
        identity_id: i64,
        version: i64,
        tokens: &NewTokens,
    ) -> Result<bool, TrackerFault> {
        const SQL: &str = "
            UPDATE identities
            SET access_token = $3, refresh_token = coalesce($4, refresh_token),
                token_expires_at = now() + make_interval(secs => $5), version = version + 1, refreshing_until = NULL,
                refresh_refused_at = NULL, refresh_refusal = NULL, access_refused_at = CASE WHEN $6 THEN now() ELSE access_refused_at END
            WHERE id = $1 AND version = $2";
        let access = seal(
            &self.keyring,
            ACCESS_TOKEN,
            identity_id,
            &tokens.access_token,
        );
        let refresh = tokens
            .refresh_token
            .as_ref()
            .map(|token| seal(&self.keyring, REFRESH_TOKEN, identity_id, token));
        let life = tokens.expires_in.as_secs_f64();
        let mut client = self.tracker.client().await?;
        let tx = client.transaction().await?;
        if execute(
            &tx,
            SQL,
            &[
                &identity_id,
                &version,
                &access,
                &refresh,
                &life,
                &tokens.after_refusal,
            ],
        )
        .await?
            == 0
        {
            return Ok(false);
        }
        begin_release(&tx, &identity_cause(identity_id), Some(version)).await?;
        tx.commit().await?;
        Ok(true)
    }
}

impl IdentityRow {
    pub(super) fn of(row: &Row) -> Result<Self, TrackerFault> {
        Ok(Self {
            id: row.try_get("id")?,
            organization: row.try_get("slug")?,
            name: row.try_get("name")?,
            token_expires_at: row.try_get("token_expires_at")?,
            version: row.try_get("version")?,
            has_refresh_token: row.try_get("has_refresh_token")?,
            refresh_refused_at: row.try_get("refresh_refused_at")?,
        })
    }
}

/// Seals a token for its column and row.
pub(super) fn seal(
    keyring: &Keyring,
    column: &str,
    identity_id: i64,
    token: &SecretString,
) -> String {
    keyring.seal(
        place(column, &identity_id.to_string()),
        token.expose_secret().as_bytes(),
    )
}

async fn why_no_turn(
    client: &impl GenericClient,
    identity_id: i64,
    version: i64,
    within: Option<f64>,
) -> Result<RefreshTurn, TrackerFault> {
    const SQL: &str = "
        SELECT refresh_token IS NULL AS no_refresh_token,
               coalesce(refresh_refused_at > now() - interval '1 minute', false) AS refused,
               coalesce(access_refused_at > now() - make_interval(secs => $3), false) AS refused_again, refresh_refusal
        FROM identities
        WHERE id = $1 AND version = $2";
    let Some(row) = query_opt(client, SQL, &[&identity_id, &version, &within]).await? else {
        return Ok(RefreshTurn::Moved);
    };
    Ok(if row.try_get("no_refresh_token")? {
        RefreshTurn::NoRefreshToken
    } else if row.try_get("refused_again")? {
        RefreshTurn::RefusedAgain
    } else if row.try_get("refused")? {
        RefreshTurn::Refused(row.try_get("refresh_refusal")?)
    } else {
        RefreshTurn::Taken
    })
}

fn identity_of(row: &Row) -> Result<Identity, TrackerFault> {
    Ok(Identity {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        token_expires_at: row.try_get("token_expires_at")?,
        version: row.try_get("version")?,
    })
}
