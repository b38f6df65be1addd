//! The effects of a job, and what a repetition of each would do.

use maud::{Markup, html};

use super::words::{state_of_effect, table, time};
use crate::store::{EffectMark, Timeline};

/// Returns the effects as a table; for those whose outcome is not known, with links to settle them.
pub(super) fn effects(timeline: &Timeline, may_mark: bool) -> Markup {
    if timeline.effects.is_empty() {
        return html! { p { "None." } };
    }
    let row = &timeline.job;
    let is_possible = may_mark && !row.state.is_done();
    let rows: Vec<Vec<Markup>> = timeline
        .effects
        .iter()
        .enumerate()
        .map(|(n, effect)| {
            vec![
                html! { span id=(format!("effect-{n}")) { (effect.stage) } },
                html! { (effect.target) },
                html! {
                    (state_of_effect(&effect.state))
                    @if effect.unknowns > 0 { ", " (effect.unknowns) " possible duplicates" }
                    @if let Some(made) = &effect.provider_ref { " " code { (made) } }
                },
                html! { (repeat(effect)) },
                time(effect.settled_at.unwrap_or(effect.intent_at), row.now),
                html! {
                    @if is_possible && effect.is_open(row.now) {
                        a.button href=(confirm(timeline, effect, true)) { "It is done" } " "
                        a.button href=(confirm(timeline, effect, false)) { "It is not done" }
                    }
                },
            ]
        })
        .collect();
    table(&["stage", "target", "state", "a repeat", "when", ""], &rows)
}

fn confirm(timeline: &Timeline, effect: &EffectMark, is_done: bool) -> String {
    let done = if is_done { "true" } else { "false" };
    let query = [("effect", effect.key.as_str()), ("done", done)];
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    format!("/jobs/{}/confirm/effect?{query}", timeline.job.id)
}

/// Returns what another call would do.
fn repeat(effect: &EffectMark) -> &'static str {
    let is_undone = effect.state == "failed" && !effect.maybe_done;
    match (effect.class.as_str(), is_undone) {
        (_, true) => "makes it for the first time",
        ("K1", _) => "leads to the same state, or to nothing if somebody changed it since (K1)",
        ("K2", _) => "is dropped by the provider, as long as it remembers the key (K2)",
        _ => "is a duplicate if it happened (K3)",
    }
}
