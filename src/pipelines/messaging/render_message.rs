//! Renders the message in its channel's form: escaped, and within the channel's limits.
//!
//! *Needs*: nothing.
//! *Effects*: none. The stage reads the destination's kind and formats text.
//! *Safe to repeat*: the same payload and kind give the same text.

use serde::{Deserialize, Serialize};

use super::{Notice, destination, templates};
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::pipelines::Dispatch;
use crate::providers::channel::Rendered;

#[derive(Debug, Clone, Copy)]
pub struct RenderMessage;

/// The rendered message. All attempts deliver the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedMessage {
    pub kind: String,
    /// The message in that channel's form.
    pub rendered: Rendered,
}

impl Stage for RenderMessage {
    type Product = Dispatch;

    const NAME: &'static str = "render_message";
    type Output = RenderedMessage;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let notice = cx.payload::<Notice>()?;
        let (destination, channel) =
            destination(cx.services, &cx.job.organization, notice.to).await?;
        let rendered = channel.render(&templates::message(&notice));
        Ok(StageOutcome::of(RenderedMessage {
            kind: destination.kind,
            rendered,
        }))
    }
}
