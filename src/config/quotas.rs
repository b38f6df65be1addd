//! Settings of quotas.

use clap::Args;

use crate::quota::{Amounts, ORGANIZATION_QUOTAS, PRODUCER_QUOTAS, organization_quotas, producer_quotas};

/// How much of Postgres a producer and an organization may use.
#[derive(Debug, Clone, Copy, Args)]
pub struct QuotaSettings {
    /// What one producer may have in Postgres, kind=rows/bytes, separated by commas; what is not named keeps its default. More is refused as `quota`
    #[arg(long, env = "DISPATCH_PRODUCER_QUOTAS", default_value = PRODUCER_QUOTAS, value_parser = producer_quotas, value_name = "QUOTAS")]
    pub producer_quotas: Amounts,
    /// The same of one organization: jobs that are open, for later, and waiting or parked
    #[arg(long, env = "DISPATCH_ORGANIZATION_QUOTAS", default_value = ORGANIZATION_QUOTAS, value_parser = organization_quotas, value_name = "QUOTAS")]
    pub organization_quotas: Amounts,
}
