//! `dispatch tracker export`: exports the tables as a document for [`super::import`], sorted by
//! natural keys.

use deadpool_postgres::Transaction;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;

use super::destinations::{SECRET, place as destination_place};
use super::identities::{ACCESS_TOKEN, REFRESH_TOKEN, place as identity_place};
use super::{
    DestinationDocument, HookSecretDigest, IdentityDocument, IntegrationDocument,
    OrganizationDocument, Tracker, TrackerDocument, TrackerFault, query,
};
use crate::secrets::{Keyring, Place};

/// An exported document, and the number of people that it cannot contain.
#[derive(Debug)]
pub struct Export {
    /// The document for `import`.
    pub document: TrackerDocument,
    /// People without a verified address: they have no key.
    pub people_left_out: i64,
}

impl Tracker {
    /// Exports everything that a document can contain, from one snapshot. Without the keyring that
    /// opens `secrets`, the document has the names of identities and destinations, not their tokens
    /// and secrets; importing it keeps the stored ones. During a rotation, only the new secret of a destination
    /// is exported.
    ///
    /// # Errors
    /// [`TrackerFault`]; with secrets, also if a sealed value cannot be opened.
    pub async fn export(&self, secrets: Option<&Keyring>) -> Result<Export, TrackerFault> {
        const LEFT_OUT: &str = "
            SELECT count(*) AS people FROM users u
            WHERE NOT EXISTS (SELECT 1 FROM user_emails e WHERE e.user_id = u.id AND e.verified)";
        const ORGANIZATIONS: &str = r#"SELECT id FROM organizations ORDER BY slug COLLATE "C""#;
        let mut client = self.client().await?;
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let reading = Reading {
            tx,
            keyring: secrets,
        };
        let mut organizations = Vec::new();
        for row in query(&reading.tx, ORGANIZATIONS, &[]).await? {
            organizations.push(reading.organization(row.try_get("id")?).await?);
        }
        let document = TrackerDocument {
            users: reading.json(USERS, &[]).await?,
            integrations: reading.integrations().await?,
            organizations,
        };
        let left_out = query(&reading.tx, LEFT_OUT, &[]).await?;
        let people_left_out = left_out
            .first()
            .map_or(Ok(0), |row| row.try_get("people"))?;
        Ok(Export {
            document,
            people_left_out,
        })
    }
}

struct Reading<'a> {
    tx: Transaction<'a>,
    /// The keyring; only set if secrets are requested.
    keyring: Option<&'a Keyring>,
}

const USERS: &str = r#"
    SELECT coalesce(json_agg(json_build_object('name', name, 'emails', emails) ORDER BY emails[1] COLLATE "C"), '[]') AS document
    FROM (SELECT u.name, array_agg(e.email ORDER BY e.id) AS emails
          FROM users u
          JOIN user_emails e ON e.user_id = u.id AND e.verified
          GROUP BY u.id) people"#;

/// An organization without sealed values. A person is named by the first verified address.
const ORGANIZATION: &str = r#"
    SELECT json_build_object('slug', o.slug, 'name', o.name,
        'installations', (
            SELECT coalesce(json_agg(json_build_object('account_id', i.account_id, 'identity', d.name, 'disabled', x.disabled,
                'settings', json_build_object('assignee_inbound', x.assignee_inbound, 'assignee_outbound', x.assignee_outbound,
                    'status_inbound', x.status_inbound)) ORDER BY i.account_id COLLATE "C"), '[]')
            FROM organization_integrations x
            JOIN integrations i ON i.id = x.integration_id
            LEFT JOIN identities d ON d.id = x.identity_id
            WHERE x.organization_id = o.id),
        'teams', (
            SELECT coalesce(json_agg(json_build_object('slug', t.slug, 'members', (
                SELECT coalesce(json_agg(p.email ORDER BY p.email COLLATE "C"), '[]')
                FROM team_members m
                JOIN LATERAL (SELECT e.email FROM user_emails e WHERE e.user_id = m.user_id AND e.verified
                              ORDER BY e.id LIMIT 1) p ON true
                WHERE m.team_id = t.id)) ORDER BY t.slug COLLATE "C"), '[]')
            FROM teams t WHERE t.organization_id = o.id),
        'projects', (
            SELECT coalesce(json_agg(json_build_object('slug', p.slug, 'name', p.name,
                'members', (
                    SELECT coalesce(json_agg(a.email ORDER BY a.email COLLATE "C"), '[]')
                    FROM project_members m
                    JOIN LATERAL (SELECT e.email FROM user_emails e WHERE e.user_id = m.user_id AND e.verified
                                  ORDER BY e.id LIMIT 1) a ON true
                    WHERE m.project_id = p.id),
                'groups', (
                    SELECT coalesce(json_agg(json_build_object('short_id', g.short_id, 'title', g.title, 'team', t.slug,
                        'links', (
                            SELECT coalesce(json_agg(json_build_object('account_id', i.account_id, 'work_item_id', e.work_item_id)
                                ORDER BY i.account_id COLLATE "C", e.work_item_id), '[]')
                            FROM group_links l
                            JOIN external_issues e ON e.id = l.external_issue_id
                            JOIN integrations i ON i.id = e.integration_id
                            WHERE l.group_id = g.id)) ORDER BY g.short_id COLLATE "C"), '[]')
                    FROM issue_groups g
                    LEFT JOIN teams t ON t.id = g.team_id
                    WHERE g.project_id = p.id)) ORDER BY p.slug COLLATE "C"), '[]')
            FROM projects p WHERE p.organization_id = o.id)) AS document
    FROM organizations o WHERE o.id = $1"#;

impl Reading<'_> {
    /// Returns the document that a statement builds.
    async fn json<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<T, TrackerFault> {
        let rows = query(&self.tx, sql, params).await?;
        let value = rows
            .first()
            .map_or(Ok(Value::Null), |row| row.try_get("document"))?;
        serde_json::from_value(value).map_err(TrackerFault::Encode)
    }

    async fn integrations(&self) -> Result<Vec<IntegrationDocument>, TrackerFault> {
        const SQL: &str = r#"SELECT id, account_id, account_name FROM integrations ORDER BY account_id COLLATE "C""#;
        const DIGESTS: &str = "
            SELECT secret_sha256, valid_until FROM subscriptions
            WHERE integration_id = $1 AND (valid_until IS NULL OR valid_until > now())
            ORDER BY secret_sha256";
        let mut integrations = Vec::new();
        for row in query(&self.tx, SQL, &[]).await? {
            let mut hook_secret_digests = Vec::new();
            if self.keyring.is_some() {
                for digest in query(&self.tx, DIGESTS, &[&row.try_get::<_, i64>("id")?]).await? {
                    let sha256 = data_encoding::HEXLOWER.encode(digest.try_get("secret_sha256")?);
                    hook_secret_digests.push(HookSecretDigest {
                        sha256,
                        valid_until: digest.try_get("valid_until")?,
                    });
                }
            }
            integrations.push(IntegrationDocument {
                account_id: row.try_get("account_id")?,
                account_name: row.try_get("account_name")?,
                hook_secrets: Vec::new(),
                hook_secret_digests,
            });
        }
        Ok(integrations)
    }

    async fn organization(&self, id: i64) -> Result<OrganizationDocument, TrackerFault> {
        let organization: OrganizationDocument = self.json(ORGANIZATION, &[&id]).await?;
        let (identities, destinations) = (self.identities(id).await?, self.destinations(id).await?);
        Ok(OrganizationDocument {
            identities,
            destinations,
            ..organization
        })
    }

    async fn identities(
        &self,
        organization_id: i64,
    ) -> Result<Vec<IdentityDocument>, TrackerFault> {
        const SQL: &str = r#"
            SELECT id, name, access_token, refresh_token, token_expires_at
            FROM identities WHERE organization_id = $1 ORDER BY name COLLATE "C""#;
        let mut identities = Vec::new();
        for row in query(&self.tx, SQL, &[&organization_id]).await? {
            let id = row.try_get::<_, i64>("id")?.to_string();
            // An identity that was registered without a token has an empty one.
            let token = self
                .opened(
                    identity_place(ACCESS_TOKEN, &id),
                    row.try_get("access_token")?,
                )?
                .filter(|token| !token.is_empty());
            let expires_at = row.try_get("token_expires_at")?;
            identities.push(IdentityDocument {
                name: row.try_get("name")?,
                expires_at: token.is_some().then_some(expires_at),
                access_token: token,
                refresh_token: self.opened(
                    identity_place(REFRESH_TOKEN, &id),
                    row.try_get("refresh_token")?,
                )?,
            });
        }
        Ok(identities)
    }

    async fn destinations(
        &self,
        organization_id: i64,
    ) -> Result<Vec<DestinationDocument>, TrackerFault> {
        const SQL: &str = r#"
            SELECT id, name, kind, config, secret, is_default, unknown_policy, disabled
            FROM destinations WHERE organization_id = $1 ORDER BY name COLLATE "C""#;
        let mut destinations = Vec::new();
        for row in query(&self.tx, SQL, &[&organization_id]).await? {
            let id = row.try_get::<_, i64>("id")?.to_string();
            destinations.push(DestinationDocument {
                name: row.try_get("name")?,
                kind: row.try_get("kind")?,
                config: row.try_get("config")?,
                secret: self.opened(destination_place(SECRET, &id), row.try_get("secret")?)?,
                default: row.try_get("is_default")?,
                unknown_policy: row.try_get("unknown_policy")?,
                disabled: Some(row.try_get("disabled")?),
            });
        }
        Ok(destinations)
    }

    fn opened(
        &self,
        place: Place<'_>,
        sealed: Option<&str>,
    ) -> Result<Option<String>, TrackerFault> {
        let (Some(keyring), Some(sealed)) = (self.keyring, sealed) else {
            return Ok(None);
        };
        let plain: SecretString = keyring.open_text(place, sealed)?;
        Ok(Some(plain.expose_secret().to_owned()))
    }
}
