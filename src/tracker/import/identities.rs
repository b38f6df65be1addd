//! Imports identities. Sealing the same token twice gives different results, so an identity is
//! compared by a digest of the last imported tokens. Only rows that differ are written.

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::{Import, Tenant};
use crate::secrets::Keyring;
use crate::tracker::identities::{ACCESS_TOKEN, REFRESH_TOKEN, place};
use crate::tracker::{IdentityDocument, TrackerFault, identity_cause, in_microseconds};

/// Returns the row of each given identity, with a new id where there is none.
const PRESENT: &str = "
    SELECT coalesce(t.id, nextval(pg_get_serial_sequence('identities', 'id'))) AS id, t.id IS NOT NULL AS present,
           t.access_token, t.refresh_token, t.imported_sha256
    FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (organization_id, name, n)
    LEFT JOIN identities t ON t.organization_id = g.organization_id AND t.name = g.name
    ORDER BY g.n";

/// Inserts or replaces the identities that differ.
const UPSERT: &str = "
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

impl Import<'_> {
    /// Imports tokens that differ from the last imported ones. Refreshes and people may have
    /// replaced those since: an unchanged document does not restore old tokens, and one without
    /// tokens keeps the stored ones.
    pub(super) async fn identities(&mut self, tenants: &[Tenant<'_>]) -> Result<(), TrackerFault> {
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
            UPSERT,
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
        if sealed.is_some_and(|sealed| keyring.open_text(place(column, &id), sealed).is_err()) {
            return Ok(false);
        }
    }
    Ok(true)
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
        let seal = |column, token: &String| keyring.seal(place(column, &row), token.as_bytes());
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
