//! `dispatch producers usage`: shows the rows and bytes of each producer in Postgres, and its
//! quotas.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;

use crate::cli::connect;
use crate::cli::output::{Output, plain, rendered};
use crate::config::{Links, QuotaSettings};
use crate::quota::{Amount, Amounts, Holder, Kind};

/// Show the rows and bytes of producers and organizations in Postgres, and their quotas
#[derive(Debug, Args)]
pub(in crate::cli) struct Usage {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    quotas: QuotaSettings,
    /// RabbitMQ users; without users and organizations: all registered producers, and rows without
    /// a producer
    #[arg(value_name = "USER")]
    names: Vec<String>,
    /// Organization to show; repeatable
    #[arg(long = "organization", value_name = "SLUG")]
    organizations: Vec<String>,
}

/// The usage and quota of one holder.
#[derive(Serialize)]
struct HolderUsage {
    holder: String,
    used: Amounts,
    quota: Amounts,
}

impl Usage {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let named = self
            .names
            .into_iter()
            .map(|name| Holder::Producer(Some(name)));
        let mut holders: Vec<Holder> = named.collect();
        if holders.is_empty() && self.organizations.is_empty() {
            let registered = store.producers().await?;
            holders.extend(
                registered
                    .into_iter()
                    .map(|producer| Holder::Producer(Some(producer.name))),
            );
            holders.push(Holder::Producer(None));
        }
        holders.extend(self.organizations.into_iter().map(Holder::Organization));
        let mut usages = Vec::with_capacity(holders.len());
        for holder in &holders {
            let quota = match holder {
                Holder::Producer(_) => self.quotas.producer_quotas,
                Holder::Organization(_) => self.quotas.organization_quotas,
            };
            usages.push(HolderUsage {
                holder: holder.key(),
                used: store.quota_used(holder).await?,
                quota,
            });
        }
        output.answer(&usages, || table(output, &usages))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, usages: &[HolderUsage]) -> String {
    let kinds = Kind::ALL.map(|kind| kind.word().replace('_', " "));
    let headings: Vec<&str> = std::iter::once("holder")
        .chain(kinds.iter().map(String::as_str))
        .collect();
    let mut table = output.table(&headings);
    for HolderUsage {
        holder,
        used,
        quota,
    } in usages
    {
        let shares = Kind::ALL.map(|kind| Cell::new(share(used.of(kind), quota.of(kind), kind)));
        table.add_row(std::iter::once(Cell::new(plain(holder))).chain(shares));
    }
    rendered(table)
}

fn share(used: Amount, quota: Amount, kind: Kind) -> String {
    if quota == Amount::UNLIMITED {
        return "-".to_owned();
    }
    let rows = format!("{} of {}", used.rows, quota.rows);
    if kind == Kind::Keys {
        rows
    } else {
        format!("{rows}; {} of {}", mib(used.bytes), mib(quota.bytes))
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
