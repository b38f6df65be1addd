//! Imports destinations. Sealing the same secret twice gives different results, so a stored secret
//! is opened and compared. Only rows that differ are written.

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Import, Tenant};
use crate::secrets::{Keyring, Place};
use crate::tracker::destinations::{SECRET, place};
use crate::tracker::moved::{Target, check_same_place};
use crate::tracker::{DestinationDocument, TrackerFault, destination_cause};

/// Returns the row of each given destination, with a new id where there is none.
const PRESENT: &str = "
    SELECT coalesce(t.id, nextval(pg_get_serial_sequence('destinations', 'id'))) AS id, t.id IS NOT NULL AS present,
           t.kind, t.config, t.secret, t.is_default, t.unknown_policy, t.disabled
    FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (organization_id, name, n)
    LEFT JOIN destinations t ON t.organization_id = g.organization_id AND t.name = g.name
    ORDER BY g.n";

/// Inserts or replaces the destinations that differ.
const UPSERT: &str = "
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

impl Import<'_> {
    pub(super) async fn destinations(
        &mut self,
        tenants: &[Tenant<'_>],
    ) -> Result<(), TrackerFault> {
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
            check_secret_place(row, destination)?;
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
        self.write("destinations", UPSERT, &params).await
    }
}

fn same_destination(
    keyring: &Keyring,
    id: i64,
    row: &Row,
    document: &DestinationDocument,
) -> Result<bool, TrackerFault> {
    let kind: Option<&str> = row.try_get("kind")?;
    let config: Option<Value> = row.try_get("config")?;
    let is_default: Option<bool> = row.try_get("is_default")?;
    let unknown_policy: Option<&str> = row.try_get("unknown_policy")?;
    let disabled: Option<bool> = row.try_get("disabled")?;
    let is_secret = |plain: &String| {
        Ok::<_, TrackerFault>(opens_to(
            keyring,
            place(SECRET, &id.to_string()),
            row.try_get("secret")?,
            plain,
        ))
    };
    Ok(kind == Some(&document.kind)
        && config.as_ref() == Some(&document.config)
        && is_default == Some(document.default)
        && unknown_policy == Some(&document.unknown_policy)
        && document
            .disabled
            .is_none_or(|setting| disabled == Some(setting))
        && document.secret.as_ref().map_or(Ok(true), is_secret)?)
}

/// Refuses a document that omits a destination's secret and changes the place to which the stored
/// one is sent.
fn check_secret_place(row: &Row, document: &DestinationDocument) -> Result<(), TrackerFault> {
    let has_secret = row.try_get::<_, Option<&str>>("secret")?.is_some();
    match (
        document.secret.as_ref(),
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
                    kind: &document.kind,
                    config: &document.config,
                },
            );
            check_same_place(&document.name, from, to, "`secret` in the document")
        }
        _ => Ok(()),
    }
}

/// Returns whether a sealed value equals this plain one. If the sealed value cannot be opened,
/// returns `false`, so the import replaces it.
fn opens_to(keyring: &Keyring, place: Place<'_>, sealed: Option<&str>, plain: &str) -> bool {
    sealed.is_some_and(|sealed| {
        keyring
            .open_text(place, sealed)
            .is_ok_and(|opened| opened.expose_secret() == plain)
    })
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
        let seal = |secret: &String| keyring.seal(place(SECRET, &row), secret.as_bytes());
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
