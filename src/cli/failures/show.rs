//! `dispatch failures show`: shows a failure group, and how its jobs differ from others.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::cli::connect;
use crate::cli::output::{Output, or_dash, plain, rendered, when};
use crate::config::Links;
use crate::store::{Difference, FailureGroup, GroupDifference};

/// Show a failure group, and what its jobs have in common that others have not
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    links: Links,
    /// Fingerprint of the group
    #[arg(value_name = "FINGERPRINT")]
    fingerprint: String,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    group: FailureGroup,
    difference: GroupDifference,
}

impl Show {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let missing = || format!("there is no failure group `{}`", self.fingerprint);
        let group = store.failure_group(&self.fingerprint).await?;
        let group = group.with_context(missing)?;
        let difference = store.group_difference(&self.fingerprint).await?;
        let difference = difference.with_context(missing)?;
        let shown = Shown { group, difference };
        output.answer(&shown, || page(output, &shown))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn page(output: Output, shown: &Shown) -> String {
    let Shown { group, difference } = shown;
    let mut table = output.table(&[]);
    let hit = format!("{} ({})", group.organizations, group.most_hit.join(", "));
    let trend = &group.trend;
    let trend = format!(
        "{} attempts in the last hour, {} in the hour before",
        trend.last_hour, trend.hour_before
    );
    for (name, value) in [
        ("fingerprint", plain(&group.fingerprint)),
        ("status", group.status.to_string()),
        ("code", plain(&group.error_code)),
        (
            "stage",
            plain(&format!("{}/{}", group.pipeline, group.stage)),
        ),
        ("message", plain(&group.sample)),
        ("parked", group.parked.to_string()),
        ("retrying", group.retrying.to_string()),
        ("organizations", plain(&hit)),
        ("trend", trend),
        ("first seen", when(group.first_seen_at)),
        ("first version", or_dash(group.first_version.as_deref())),
        ("last seen", when(group.last_seen_at)),
        (
            "muted until",
            or_dash(group.muted_until.map(when).as_deref()),
        ),
        ("resolved", or_dash(group.resolved_at.map(when).as_deref())),
        ("owner", or_dash(group.owner.as_deref())),
        ("note", or_dash(group.note.as_deref())),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    let compared = format!(
        "\n\nWhat is different: {} jobs of the group against {} others that passed the stage\n",
        difference.jobs_in_group, difference.other_jobs
    );
    rendered(table) + &compared + &differences(output, &difference.differences)
}

fn differences(output: Output, differences: &[Difference]) -> String {
    let mut table = output.table(&["what", "value", "in the group", "in others"]);
    for found in differences {
        table.add_row([
            found.dimension.to_string(),
            plain(&found.value),
            format!("{:.0} %", found.in_group * 100.0),
            format!("{:.0} %", found.in_others * 100.0),
        ]);
    }
    rendered(table)
}
