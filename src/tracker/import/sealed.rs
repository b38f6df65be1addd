//! Imports identities and destinations: rows with sealed columns. Sealing the same value twice
//! gives different results, so a destination's secret is opened and compared, and an identity is
//! compared by a digest of the last imported tokens. Only rows that differ are written.

use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Import, Tenant};
use crate::secrets::{Keyring, Place};
use crate::tracker::identities::{ACCESS_TOKEN, REFRESH_TOKEN, place as identity_place};
use crate::tracker::moved::{Target, stays};
use crate::tracker::{
    DestinationDocument, IdentityDocument, TrackerFault, destination_cause, destinations,
    identity_cause, in_microseconds,
};

impl Import<'_> {
    /// Imports tokens that differ from the last imported ones. Refreshes and people may have
    /// replaced those since: an unchanged document does not restore old tokens, and one without
    /// tokens keeps the stored ones.
    pub(super) async fn identities(&mut self, tenants: &[Tenant<'_>]) -> Result<(), TrackerFault> {
        const PRESENT: &str = "
            SELECT coalesce(t.id, nextval(pg_get_serial_sequence('identities', 'id'))) AS id, t.id IS NOT NULL AS present,
                   t.access_token, t.refresh_token, t.imported_sha256
            FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (organization_id, name, n)
            LEFT JOIN identities t ON t.organization_id = g.organization_id AND t.name = g.name
            ORDER BY g.n";
        const SQL: &str = "
            INSERT INTO identities (id, organization_id, name, access_token, refresh_token, token_expires_at, imported_sha256)
            OVERRIDING SYSTEM VALUE
            SELECT g.id, g.organization_id, g.name, g.access_token, g.refresh_token, g.token_expires_at, g.imported_sha256
            FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[])
                 AS g (id, organization_id, name, access_token, refresh_token, token_expires_at, imported_sha256)
            ORDER BY g.id
            ON CONFLICT (id) DO UPDATE
            SET access_token = EXCLUDED.access_token, refresh_token = EXCLUDED.refresh_token,
                token_expires_at = EXCLUDED.token_expires_at, imported_sha256 = EXCLUDED.imported_sha256,
                version = identities.version + 1, refreshing_until = NULL, refresh_refused_at = NULL, access_refused_at = NULL";
        let given: Vec<(i64, &IdentityDocument)> = tenants
            .iter()
            .flat_map(|tenant| {
                tenant
                    .document
                    .identities
                    .iter()
                    .map(|identity| (tenant.id, identity))
            })
            .collect();
        let organizations: Vec<i64> = given
            .iter()
            .map(|(organization, _)| *organization)
            .collect();
        let names: Vec<&str> = given
            .iter()
            .map(|(_, identity)| identity.name.as_str())
            .collect();
        let rows = self.rows(PRESENT, &[&organizations, &names]).await?;
        let mut changed = Identities::default();
        for ((organization, identity), row) in given.iter().zip(&rows) {
            let id: i64 = row.try_get("id")?;
            let digest = tokens_digest(identity);
            let has_tokens = identity.access_token.is_some() || identity.refresh_token.is_some();
            if !has_tokens && row.try_get("present")? {
                continue;
            }
            if row.try_get::<_, Option<&[u8]>>("imported_sha256")? == Some(&digest)
                && tokens_open(self.keyring, id, row)?
            {
                continue;
            }
            changed.push(self.keyring, id, *organization, identity, digest);
            if row.try_get("present")? {
                self.gone.push(identity_cause(id));
            }
        }
        let Identities {
            id,
            organization_id,
            name,
            access_token,
            refresh_token,
            expires_at,
            digest,
        } = &changed;
        self.write(
            "identities",
            SQL,
            &[
                id,
                organization_id,
                name,
                access_token,
                refresh_token,
                expires_at,
                digest,
            ],
        )
        .await
    }

    pub(super) async fn destinations(
        &mut self,
        tenants: &[Tenant<'_>],
    ) -> Result<(), TrackerFault> {
        const PRESENT: &str = "
            SELECT coalesce(t.id, nextval(pg_get_serial_sequence('destinations', 'id'))) AS id, t.id IS NOT NULL AS present,
                   t.kind, t.config, t.secret, t.is_default, t.unknown_policy, t.disabled
            FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (organization_id, name, n)
            LEFT JOIN destinations t ON t.organization_id = g.organization_id AND t.name = g.name
            ORDER BY g.n";
        const SQL: &str = "
            INSERT INTO destinations AS t (id, organization_id, name, kind, config, secret, is_default, unknown_policy, disabled)
            OVERRIDING SYSTEM VALUE
            SELECT g.id, g.organization_id, g.name, g.kind, g.config, g.secret, g.is_default, g.unknown_policy, g.disabled
            FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::json[], $6::text[], $7::boolean[], $8::text[],
                        $9::boolean[])
                 AS g (id, organization_id, name, kind, config, secret, is_default, unknown_policy, disabled)
            ORDER BY g.id
            ON CONFLICT (id) DO UPDATE
            SET kind = EXCLUDED.kind, config = EXCLUDED.config, secret = coalesce(EXCLUDED.secret, t.secret),
                previous_secret = CASE WHEN (t.kind, t.config::text) = (EXCLUDED.kind, EXCLUDED.config::text)
                                       THEN t.previous_secret END,
                previous_secret_until = CASE WHEN (t.kind, t.config::text) = (EXCLUDED.kind, EXCLUDED.config::text)
                                             THEN t.previous_secret_until END,
                is_default = EXCLUDED.is_default, unknown_policy = EXCLUDED.unknown_policy, disabled = EXCLUDED.disabled";
        let given: Vec<(i64, &DestinationDocument)> = tenants
            .iter()
            .flat_map(|tenant| {
                tenant
                    .document
                    .destinations
                    .iter()
                    .map(|destination| (tenant.id, destination))
            })
            .collect();
        let organizations: Vec<i64> = given
            .iter()
            .map(|(organization, _)| *organization)
            .collect();
        let names: Vec<&str> = given
            .iter()
            .map(|(_, destination)| destination.name.as_str())
            .collect();
        let rows = self.rows(PRESENT, &[&organizations, &names]).await?;
        let mut changed = Destinations::default();
        for ((organization, destination), row) in given.iter().zip(&rows) {
            let id: i64 = row.try_get("id")?;
            if same_destination(self.keyring, id, row, destination)? {
                continue;
            }
            secret_stays(row, destination)?;
            changed.push(
                self.keyring,
                id,
                *organization,
                destination,
                row.try_get::<_, Option<bool>>("disabled")?,
            );
            if row.try_get("present")? {
                self.gone.push(destination_cause(id));
            }
        }
        let Destinations {
            id,
            organization_id,
            name,
            kind,
            config,
            secret,
            is_default,
            unknown_policy,
            disabled,
        } = &changed;
        let params: [&(dyn ToSql + Sync); 9] = [
            id,
            organization_id,
            name,
            kind,
            config,
            secret,
            is_default,
            unknown_policy,
            disabled,
        ];
        self.write("destinations", SQL, &params).await
    }
}

/// Returns the SHA-256 of a document's tokens; each field is preceded by its length.
fn tokens_digest(identity: &IdentityDocument) -> [u8; 32] {
    let mut hash = Sha256::new();
    let expires_at = identity
        .expires_at
        .map(|ends| in_microseconds(ends).unix_timestamp_nanos().to_string());
    for field in [
        identity.access_token.as_ref(),
        identity.refresh_token.as_ref(),
        expires_at.as_ref(),
    ] {
        // No field has this length, so a missing field and an empty one differ.
        hash.update(
            field
                .map_or(u64::MAX, |text| text.len() as u64)
                .to_le_bytes(),
        );
        hash.update(field.map_or(&[][..], |text| text.as_bytes()));
    }
    hash.finalize().into()
}

/// Returns whether this keyring opens the stored tokens. If it does not, the import replaces them.
fn tokens_open(keyring: &Keyring, id: i64, row: &Row) -> Result<bool, TrackerFault> {
    let id = id.to_string();
    for column in [ACCESS_TOKEN, REFRESH_TOKEN] {
        let sealed: Option<&str> = row.try_get(column)?;
        if sealed.is_some_and(|sealed| {
            keyring
                .open_text(identity_place(column, &id), sealed)
                .is_err()
        }) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_destination(
    keyring: &Keyring,
    id: i64,
    row: &Row,
    given: &DestinationDocument,
) -> Result<bool, TrackerFault> {
    let kind: Option<&str> = row.try_get("kind")?;
    let config: Option<Value> = row.try_get("config")?;
    let is_default: Option<bool> = row.try_get("is_default")?;
    let unknown_policy: Option<&str> = row.try_get("unknown_policy")?;
    let disabled: Option<bool> = row.try_get("disabled")?;
    let is_secret = |plain| {
        Ok::<_, TrackerFault>(opens_to(
            keyring,
            destinations::place(destinations::SECRET, &id.to_string()),
            row.try_get("secret")?,
            Some(plain),
        ))
    };
    Ok(kind == Some(&given.kind)
        && config.as_ref() == Some(&given.config)
        && is_default == Some(given.default)
        && unknown_policy == Some(&given.unknown_policy)
        && given.disabled.is_none_or(|given| disabled == Some(given))
        && given.secret.as_ref().map_or(Ok(true), is_secret)?)
}

/// Refuses a document that omits a destination's secret and changes the place to which the stored
/// one is sent.
fn secret_stays(row: &Row, given: &DestinationDocument) -> Result<(), TrackerFault> {
    let has_secret = row.try_get::<_, Option<&str>>("secret")?.is_some();
    match (
        given.secret.as_ref(),
        row.try_get("kind")?,
        row.try_get::<_, Option<Value>>("config")?,
    ) {
        (None, Some(kind), Some(config)) if has_secret => {
            let (from, to) = (
                Target {
                    kind,
                    config: &config,
                },
                Target {
                    kind: &given.kind,
                    config: &given.config,
                },
            );
            stays(&given.name, from, to, "`secret` in the document")
        }
        _ => Ok(()),
    }
}

/// Returns whether a sealed value equals this plain one. If the sealed value cannot be opened,
/// returns `false`, so the import replaces it.
fn opens_to(
    keyring: &Keyring,
    place: Place<'_>,
    sealed: Option<&str>,
    plain: Option<&String>,
) -> bool {
    match (sealed, plain) {
        (None, None) => true,
        (Some(sealed), Some(plain)) => keyring
            .open_text(place, sealed)
            .is_ok_and(|opened| opened.expose_secret() == plain.as_str()),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The identities to write, in columns.
#[derive(Default)]
struct Identities<'a> {
    id: Vec<i64>,
    organization_id: Vec<i64>,
    name: Vec<&'a str>,
    access_token: Vec<String>,
    refresh_token: Vec<Option<String>>,
    expires_at: Vec<OffsetDateTime>,
    digest: Vec<Vec<u8>>,
}

impl<'a> Identities<'a> {
    fn push(
        &mut self,
        keyring: &Keyring,
        id: i64,
        organization_id: i64,
        identity: &'a IdentityDocument,
        digest: [u8; 32],
    ) {
        let row = id.to_string();
        let seal =
            |column, token: &String| keyring.seal(identity_place(column, &row), token.as_bytes());
        self.id.push(id);
        self.organization_id.push(organization_id);
        self.name.push(&identity.name);
        // Without a token, an identity begins with an expired one.
        self.access_token.push(seal(
            ACCESS_TOKEN,
            identity.access_token.as_ref().unwrap_or(&String::new()),
        ));
        self.refresh_token.push(
            identity
                .refresh_token
                .as_ref()
                .map(|token| seal(REFRESH_TOKEN, token)),
        );
        self.expires_at.push(in_microseconds(
            identity.expires_at.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        ));
        self.digest.push(digest.to_vec());
    }
}

/// The destinations to write, in columns.
#[derive(Default)]
struct Destinations<'a> {
    id: Vec<i64>,
    organization_id: Vec<i64>,
    name: Vec<&'a str>,
    kind: Vec<&'a str>,
    config: Vec<&'a Value>,
    secret: Vec<Option<String>>,
    is_default: Vec<bool>,
    unknown_policy: Vec<&'a str>,
    disabled: Vec<bool>,
}

impl<'a> Destinations<'a> {
    fn push(
        &mut self,
        keyring: &Keyring,
        id: i64,
        organization_id: i64,
        destination: &'a DestinationDocument,
        now: Option<bool>,
    ) {
        let row = id.to_string();
        let seal = |secret: &String| {
            keyring.seal(
                destinations::place(destinations::SECRET, &row),
                secret.as_bytes(),
            )
        };
        self.id.push(id);
        self.organization_id.push(organization_id);
        self.name.push(&destination.name);
        self.kind.push(&destination.kind);
        self.config.push(&destination.config);
        self.secret.push(destination.secret.as_ref().map(seal));
        self.is_default.push(destination.default);
        self.unknown_policy.push(&destination.unknown_policy);
        self.disabled
            .push(destination.disabled.or(now).unwrap_or(false));
    }
}
