//! Imports Azure DevOps accounts, their hook secrets, and the organizations that use them.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::check::sha256;
use super::names::Names;
use super::{Import, Tenant};
use crate::tracker::{
    InstallationDocument, IntegrationDocument, TrackerFault, in_microseconds, installation_cause,
};

impl Import<'_> {
    pub(super) async fn integrations(
        &mut self,
        integrations: &[IntegrationDocument],
    ) -> Result<(), TrackerFault> {
        const SQL: &str = "
            WITH given AS (
                SELECT account_id, account_name, n
                FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS g (account_id, account_name, n)
            ), written AS (
                INSERT INTO integrations (account_id, account_name)
                SELECT g.account_id, g.account_name
                FROM given g
                LEFT JOIN integrations t ON lower(t.account_id) = lower(g.account_id)
                WHERE t.id IS NULL OR (t.account_id, t.account_name) IS DISTINCT FROM (g.account_id, g.account_name)
                ORDER BY t.id, g.n
                ON CONFLICT (lower(account_id)) DO UPDATE
                SET account_id = EXCLUDED.account_id, account_name = EXCLUDED.account_name
                RETURNING id, account_id
            )
            SELECT coalesce(w.id, t.id) AS id, w.id IS NOT NULL AS changed
            FROM given g
            LEFT JOIN written w ON w.account_id = g.account_id
            LEFT JOIN integrations t ON lower(t.account_id) = lower(g.account_id)
            ORDER BY g.n";
        let account_ids: Vec<&str> = integrations
            .iter()
            .map(|integration| integration.account_id.as_str())
            .collect();
        let names: Vec<&str> = integrations
            .iter()
            .map(|integration| integration.account_name.as_str())
            .collect();
        let ids = self
            .upsert("integrations", SQL, &[&account_ids, &names])
            .await?;
        self.hook_secrets(integrations, &ids).await
    }

    async fn hook_secrets(
        &mut self,
        integrations: &[IntegrationDocument],
        ids: &[i64],
    ) -> Result<(), TrackerFault> {
        const SQL: &str = "
            INSERT INTO subscriptions (integration_id, secret_sha256, valid_until)
            SELECT g.integration_id, g.secret_sha256, g.valid_until
            FROM unnest($1::bigint[], $2::bytea[], $3::timestamptz[]) AS g (integration_id, secret_sha256, valid_until)
            LEFT JOIN subscriptions t ON t.integration_id = g.integration_id AND t.secret_sha256 = g.secret_sha256
            WHERE t.id IS NULL OR t.valid_until IS DISTINCT FROM g.valid_until
            ON CONFLICT (integration_id, secret_sha256) DO UPDATE SET valid_until = EXCLUDED.valid_until";
        let mut given: BTreeMap<(i64, [u8; 32]), Option<OffsetDateTime>> = BTreeMap::new();
        for (integration, id) in integrations.iter().zip(ids) {
            for digest in &integration.hook_secret_digests {
                let until = digest.valid_until.map(in_microseconds);
                given.extend(sha256(&digest.sha256).map(|sha256| ((*id, sha256), until)));
            }
            for secret in &integration.hook_secrets {
                given.insert((*id, Sha256::digest(secret.as_bytes()).into()), None);
            }
        }
        let (mut owners, mut digests, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for ((owner, digest), end) in given {
            owners.push(owner);
            digests.push(digest.to_vec());
            ends.push(end);
        }
        self.write("subscriptions", SQL, &[&owners, &digests, &ends])
            .await
    }

    pub(super) async fn known_accounts(&self) -> Result<Names, TrackerFault> {
        const SQL: &str =
            "SELECT 0::bigint AS scope, lower(account_id) AS name, id FROM integrations";
        Names::of("account", &self.rows(SQL, &[]).await?)
    }

    pub(super) async fn installations(
        &mut self,
        tenants: &[Tenant<'_>],
        accounts: &Names,
    ) -> Result<(), TrackerFault> {
        const IDENTITIES: &str = "
            SELECT organization_id AS scope, name, id
            FROM identities
            WHERE organization_id = ANY ($1)";
        let scopes: Vec<i64> = tenants.iter().map(|tenant| tenant.id).collect();
        let identities = Names::of("identity", &self.rows(IDENTITIES, &[&scopes]).await?)?;
        let mut given = Installations::default();
        for tenant in tenants {
            for installation in &tenant.document.installations {
                given.push(tenant, installation, accounts, &identities)?;
            }
        }
        self.write_installations(&given).await
    }

    async fn write_installations(&mut self, given: &Installations) -> Result<(), TrackerFault> {
        const SQL: &str = "
            WITH given AS (
                SELECT organization_id, integration_id, identity_id, disabled, assignee_inbound, assignee_outbound, status_inbound
                FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::boolean[], $6::boolean[], $7::boolean[])
                     AS g (organization_id, integration_id, identity_id, disabled, assignee_inbound, assignee_outbound,
                           status_inbound)
            ), different AS (
                SELECT g.organization_id, g.integration_id, g.identity_id, g.disabled, g.assignee_inbound,
                       g.assignee_outbound, g.status_inbound, coalesce(t.disabled AND NOT g.disabled, false) AS enabled
                FROM given g
                LEFT JOIN organization_integrations t
                       ON t.organization_id = g.organization_id AND t.integration_id = g.integration_id
                WHERE (t.organization_id, t.identity_id, t.disabled, t.assignee_inbound, t.assignee_outbound, t.status_inbound)
                      IS DISTINCT FROM
                      (g.organization_id, g.identity_id, g.disabled, g.assignee_inbound, g.assignee_outbound, g.status_inbound)
            ), written AS (
                INSERT INTO organization_integrations (organization_id, integration_id, identity_id, disabled,
                                                       assignee_inbound, assignee_outbound, status_inbound)
                SELECT organization_id, integration_id, identity_id, disabled, assignee_inbound, assignee_outbound,
                       status_inbound
                FROM different
                ORDER BY organization_id, integration_id
                ON CONFLICT (organization_id, integration_id) DO UPDATE
                SET identity_id = EXCLUDED.identity_id, disabled = EXCLUDED.disabled,
                    assignee_inbound = EXCLUDED.assignee_inbound, assignee_outbound = EXCLUDED.assignee_outbound,
                    status_inbound = EXCLUDED.status_inbound
            )
            SELECT organization_id, integration_id, enabled FROM different ORDER BY organization_id, integration_id";
        let rows = self
            .rows(
                SQL,
                &[
                    &given.organization_id,
                    &given.integration_id,
                    &given.identity_id,
                    &given.disabled,
                    &given.assignee_inbound,
                    &given.assignee_outbound,
                    &given.status_inbound,
                ],
            )
            .await?;
        for row in &rows {
            self.count("organization_integrations", 1);
            if row.try_get("enabled")? {
                self.gone.push(installation_cause(
                    row.try_get("integration_id")?,
                    row.try_get("organization_id")?,
                ));
            }
        }
        Ok(())
    }
}

/// The installations to write, in columns.
#[derive(Default)]
struct Installations {
    organization_id: Vec<i64>,
    integration_id: Vec<i64>,
    identity_id: Vec<Option<i64>>,
    disabled: Vec<bool>,
    assignee_inbound: Vec<bool>,
    assignee_outbound: Vec<bool>,
    status_inbound: Vec<bool>,
}

impl Installations {
    fn push(
        &mut self,
        tenant: &Tenant<'_>,
        installation: &InstallationDocument,
        accounts: &Names,
        identities: &Names,
    ) -> Result<(), TrackerFault> {
        let at = || {
            format!(
                "installation {} of organization {}",
                installation.account_id, tenant.document.slug
            )
        };
        let identity = installation
            .identity
            .as_deref()
            .map(|name| identities.id(tenant.id, name, at))
            .transpose()?;
        self.organization_id.push(tenant.id);
        self.integration_id
            .push(accounts.id(0, &installation.account_id.to_lowercase(), at)?);
        self.identity_id.push(identity);
        self.disabled.push(installation.disabled);
        self.assignee_inbound
            .push(installation.settings.assignee_inbound);
        self.assignee_outbound
            .push(installation.settings.assignee_outbound);
        self.status_inbound
            .push(installation.settings.status_inbound);
        Ok(())
    }
}
