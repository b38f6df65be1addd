//! The message in its channel's own form: escaped, within its limits.
//!
//! *Needs*: nothing.
//! *Effects*: none: it reads the destination's kind and puts text together.
//! *Safe to repeat*: the same payload and kind give the same text.

use serde::{Deserialize, Serialize};

use super::{Notice, destination, templates};
use crate::engine::{Context, Outcome, Stage};
use crate::fault::StageFault;
use crate::pipelines::Dispatch;
use crate::providers::channel::Rendered;
use crate::tracker::Changes;

/// The stage.
#[derive(Debug, Clone, Copy)]
pub struct RenderMessage;

/// What will be delivered, byte for byte, however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedMessage {
    /// The channel's kind.
    pub kind: String,
    /// In that channel's form.
    pub rendered: Rendered,
}

impl Stage<Dispatch> for RenderMessage {
    const NAME: &'static str = "render_message";
    type Output = RenderedMessage;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> Result<Outcome<RenderedMessage, Changes>, StageFault> {
        let notice = cx.payload::<Notice>()?;
        let (destination, channel) = destination(cx.services, &cx.job.organization, notice.to).await?;
        let rendered = channel.render(&templates::message(&notice));
        Ok(Outcome::of(RenderedMessage { kind: destination.kind, rendered }))
    }
}
