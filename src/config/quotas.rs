//! Settings of quotas.

use clap::Args;

use crate::quota::{
    Amounts, ORGANIZATION_QUOTAS, PRODUCER_QUOTAS, organization_quotas, producer_quotas,
};

/// Limits of the rows and bytes in Postgres of one producer and one organization.
#[derive(Debug, Clone, Copy, Args)]
pub struct QuotaSettings {
    /// Quotas of one producer in Postgres, as comma-separated kind=rows/bytes; omitted kinds keep
    /// their defaults. Messages beyond a quota are refused as `quota`
    #[arg(long, env = "DISPATCH_PRODUCER_QUOTAS", default_value = PRODUCER_QUOTAS, value_parser = producer_quotas, value_name = "QUOTAS")]
    pub producer_quotas: Amounts,
    /// Quotas of one organization in Postgres, in the same form: open jobs, jobs for later, and
    /// waiting or parked jobs
    #[arg(long, env = "DISPATCH_ORGANIZATION_QUOTAS", default_value = ORGANIZATION_QUOTAS, value_parser = organization_quotas, value_name = "QUOTAS")]
    pub organization_quotas: Amounts,
}
