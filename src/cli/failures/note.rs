//! `dispatch failures note`: notes what people know about a failure group.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::consent::Consent;
use crate::cli::output::{Output, plain};
use crate::cli::{connect, duration};
use crate::config::Links;
use crate::operations::{self, GroupNote};

/// Note the owner of a failure group, a text, or that it is muted or resolved
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(in crate::cli) struct Note {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    consent: Consent,
    /// Fingerprint of the group
    #[arg(value_name = "FINGERPRINT")]
    fingerprint: String,
    /// The person or team that deals with it; '' removes the owner
    #[arg(long, group = "change", value_name = "NAME")]
    owner: Option<String>,
    /// What is known about it; '' removes the note
    #[arg(long, group = "change", value_name = "TEXT")]
    note: Option<String>,
    /// Mute it for this time: 90s, 15m, 24h, 7d
    #[arg(long, group = "change", value_parser = duration::parse, value_name = "LENGTH", conflicts_with = "unmute")]
    mute: Option<Duration>,
    /// End the muting
    #[arg(long, group = "change")]
    unmute: bool,
    /// It is resolved; if it is seen again, it has regressed
    #[arg(long, group = "change", conflicts_with = "reopen")]
    resolve: bool,
    /// It is not resolved
    #[arg(long, group = "change")]
    reopen: bool,
}

impl Note {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let fingerprint = &self.fingerprint;
        let question = format!("Change the note of failure group {fingerprint}?");
        self.consent.to(&question)?;
        let store = connect::store(&self.links).await?;
        let now = OffsetDateTime::now_utc();
        let changes = GroupNote {
            owner: self.owner.clone(),
            note: self.note.clone(),
            muted_until: match self.mute {
                Some(length) => Some(now + length),
                None => self.unmute.then_some(OffsetDateTime::UNIX_EPOCH),
            },
            resolved: (self.resolve || self.reopen).then_some(self.resolve),
        };
        let actor = self.consent.actor();
        let changed = operations::note_group(&store, &actor, fingerprint, &changes).await?;
        output.answer(
            &json!({"fingerprint": fingerprint, "changed": changed}),
            || {
                let done = if changed { "changed" } else { "unchanged" };
                format!("{}: {done}", plain(fingerprint))
            },
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
