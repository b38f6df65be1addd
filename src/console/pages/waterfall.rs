//! The course of a job as bars over time, and the same as a table. A gap that is more than ten times
//! as long as all work is drawn short, with a break; the address says whether all is to scale.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::words::{length, look_of_effect, table, time};
use crate::store::{Span, SpanKind, Timeline};

/// The width of the drawing, in its own units.
const WIDTH: f64 = 1000.0;
/// The least width of a bar.
const LEAST: f64 = 4.0;
/// A gap that is longer than all work by this factor is broken.
const BROKEN: i64 = 10;
/// How many bars of a kind are drawn, the newest; the table has all, and commits, which are short.
const DRAWN: usize = 100;

/// Returns the drawing and its table.
pub(super) fn waterfall(timeline: &Timeline, is_to_scale: bool) -> Markup {
    let scale = Scale::of(&timeline.spans, is_to_scale);
    let bars = timeline.spans.iter().enumerate();
    let bars: Vec<_> = bars
        .filter(|(_, span)| span.kind != SpanKind::Commit)
        .collect();
    let hidden = bars.len().saturating_sub(DRAWN);
    html! {
        @if scale.is_broken() {
            p.hint { "Long gaps are drawn short. " a href="?scale=true#waterfall" { "Draw to scale" } }
        }
        @if is_to_scale { p.hint { "To scale. " a href="?#waterfall" { "Draw long gaps short" } } }
        @if hidden > 0 { p.hint { "The first " (hidden) " are in the table only." } }
        ol.waterfall aria-label="What the job did and waited for" {
            @for (n, span) in bars.into_iter().skip(hidden) { (span_bar(n, span, &scale)) }
            (marks(timeline, &scale))
        }
        p.axis { (time(timeline.job.created_at, timeline.job.now)) span { (time(timeline.until, timeline.job.now)) } }
        details open[timeline.spans.len() <= 20] {
            summary { "The same as a table" }
            (spans_table(timeline))
        }
        @if timeline.is_cut { p.hint { "Only the newest 200 checkpoints, 400 attempts, 200 effects and 200 actions were read." } }
    }
}

fn span_bar(n: usize, span: &Span, scale: &Scale) -> Markup {
    let look = Look::of(span.kind);
    let broken = scale.pieces.get(n).is_some_and(|piece| piece.is_broken);
    bar(
        &format!("#span-{n}"),
        &look,
        &html! { (span.text) @if let Some(code) = &span.code { " " code { (code) } } },
        &length(span.millis()),
        (scale.x(span.from), scale.x(span.until)),
        broken,
    )
}

fn marks(timeline: &Timeline, scale: &Scale) -> Markup {
    html! {
        @for (n, effect) in timeline.effects.iter().enumerate().rev().take(DRAWN) {
            @let settled = effect.settled_at.unwrap_or(timeline.until);
            (bar(&format!("#effect-{n}"), &Look::of_effect(&effect.state), &html! { "effect: " (effect.target) " (" (effect.class) "), " (effect.state) },
                &length(millis(settled - effect.intent_at)), (scale.x(effect.intent_at), scale.x(settled)), false))
        }
        @for action in timeline.actions.iter().rev().take(DRAWN) {
            (bar(&format!("#action-{}", action.id), &Look::new("▷", "ready"), &html! { (action.who) ": " (action.action) }, "",
                (scale.x(action.at), scale.x(action.at)), false))
        }
        @for end in timeline.ends.iter().rev().take(DRAWN) {
            @let (look, how) = if end.ended_well { (Look::new("○", "off"), "ended") } else { (Look::new("■", "parked"), "died") };
            (bar("#ends", &look, &html! { "replica " (end.replica) " " (how) }, "", (scale.x(end.at), scale.x(end.at)), false))
        }
    }
}

fn millis(length: time::Duration) -> i64 {
    i64::try_from(length.whole_milliseconds()).unwrap_or(i64::MAX)
}

/// The shape and the class of a bar.
struct Look {
    shape: &'static str,
    class: &'static str,
}

impl Look {
    const fn new(shape: &'static str, class: &'static str) -> Self {
        Self { shape, class }
    }

    const fn of(kind: SpanKind) -> Self {
        match kind {
            SpanKind::Stage | SpanKind::ByHand => Self::new("●", "ok"),
            SpanKind::Running => Self::new("▶", "running"),
            SpanKind::FollowUps => Self::new("▷", "ready"),
            SpanKind::Retried
            | SpanKind::Waited
            | SpanKind::Backoff
            | SpanKind::Held
            | SpanKind::Waits => Self::new("◔", "waiting"),
            SpanKind::Failed | SpanKind::Parked | SpanKind::OwnerDied => Self::new("■", "parked"),
            SpanKind::Queued | SpanKind::Commit | SpanKind::NotShown => Self::new("○", "off"),
        }
    }

    fn of_effect(state: &str) -> Self {
        let (shape, class) = look_of_effect(state);
        Self::new(shape, class)
    }
}

/// Returns a row of the drawing: a link to a row of a table, with the bar below it.
fn bar(
    href: &str,
    look: &Look,
    text: &Markup,
    length: &str,
    (from, until): (f64, f64),
    is_broken: bool,
) -> Markup {
    let width = (until - from).max(LEAST);
    let from = from.min(WIDTH - width);
    let parts = if is_broken {
        let part = width * 0.45;
        vec![(from, part), (from + width - part, part)]
    } else {
        vec![(from, width)]
    };
    html! {
        li {
            a href=(href) {
                span.what { span.state.(look.class) aria-hidden="true" { (look.shape) } " " (text) }
                " " span.hint { (length) @if is_broken { ", drawn short" } }
                svg aria-hidden="true" viewBox="0 0 1000 10" preserveAspectRatio="none" {
                    rect.track x="0" y="4" width="1000" height="2" {}
                    @for (x, width) in parts {
                        rect.bar.(look.class) x=(format!("{x:.1}")) y="0" width=(format!("{width:.1}")) height="10" {}
                    }
                }
            }
        }
    }
}

fn spans_table(timeline: &Timeline) -> Markup {
    let now = timeline.job.now;
    let rows: Vec<Vec<Markup>> = timeline
        .spans
        .iter()
        .enumerate()
        .map(|(n, span)| {
            let look = Look::of(span.kind);
            vec![
                html! { span id=(format!("span-{n}")) data-kind=(span.kind) class={ "state " (look.class) } { (look.shape) } " " (span.text) },
                time(span.from, now),
                html! { (length(span.millis())) },
                html! { @if let Some(replica) = span.replica { (replica) } },
                html! { @if let Some(generation) = span.generation { (generation) } },
                html! { @if let Some(code) = &span.code { code { (code) } } },
            ]
        })
        .collect();
    table(
        &["what", "began", "took", "replica", "generation", "code"],
        &rows,
    )
}

/// A part of the time axis.
struct Piece {
    from: OffsetDateTime,
    until: OffsetDateTime,
    x: f64,
    width: f64,
    is_broken: bool,
}

/// Maps times to places in the drawing; each span is a piece of it.
struct Scale {
    pieces: Vec<Piece>,
}

impl Scale {
    fn of(spans: &[Span], is_to_scale: bool) -> Self {
        let work = spans.iter().filter(|span| span.kind.is_work());
        let work = work.map(Span::millis).sum::<i64>().max(1);
        let is_broken = |span: &Span| {
            !is_to_scale && !span.kind.is_work() && span.millis() > work.saturating_mul(BROKEN)
        };
        let drawn = |span: &Span| {
            if is_broken(span) {
                units(work)
            } else {
                units(span.millis())
            }
        };
        let whole = spans.iter().map(drawn).sum::<f64>().max(1.0);
        let mut x = 0.0;
        let mut pieces = Vec::with_capacity(spans.len());
        for span in spans {
            let width = drawn(span) / whole * WIDTH;
            pieces.push(Piece {
                from: span.from,
                until: span.until,
                x,
                width,
                is_broken: is_broken(span),
            });
            x += width;
        }
        Self { pieces }
    }

    fn is_broken(&self) -> bool {
        self.pieces.iter().any(|piece| piece.is_broken)
    }

    fn x(&self, at: OffsetDateTime) -> f64 {
        let piece = self.pieces.iter().find(|piece| at <= piece.until);
        let Some(piece) = piece else {
            return WIDTH;
        };
        let length = units(millis(piece.until - piece.from)).max(1.0);
        let within = units(millis(at - piece.from)).clamp(0.0, length);
        piece.x + piece.width * within / length
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a drawing needs no more than a thousandth"
)]
fn units(millis: i64) -> f64 {
    millis as f64
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2025-03-04 14:00:00 UTC);

    fn span(kind: SpanKind, from: i64, until: i64) -> Span {
        let at = |millis| START + time::Duration::milliseconds(millis);
        Span {
            kind,
            text: "<b>".to_owned(),
            from: at(from),
            until: at(until),
            stage: None,
            generation: None,
            attempt: None,
            replica: None,
            code: None,
        }
    }

    #[test]
    fn a_gap_that_is_much_longer_than_the_work_is_drawn_short_unless_all_is_to_scale() {
        let spans = [
            span(SpanKind::Stage, 0, 100),
            span(SpanKind::Parked, 100, 86_400_000),
            span(SpanKind::Stage, 86_400_000, 86_400_100),
        ];
        let short = Scale::of(&spans, false);
        assert!(short.is_broken() && short.pieces[1].is_broken);
        assert!((short.x(spans[1].from) - 250.0).abs() < 0.1);
        assert!((short.x(spans[2].from) - 750.0).abs() < 0.1);
        let scale = Scale::of(&spans, true);
        assert!(!scale.is_broken());
        assert!(scale.x(spans[2].from) > 999.0);
    }

    #[test]
    fn every_time_has_a_place_in_the_drawing() {
        let spans = [
            span(SpanKind::Queued, 0, 500),
            span(SpanKind::Stage, 500, 500),
            span(SpanKind::Waits, 500, 900),
        ];
        let scale = Scale::of(&spans, false);
        let mut last = 0.0;
        for millis in (-100..1_100).step_by(50) {
            let x = scale.x(START + time::Duration::milliseconds(millis));
            assert!((0.0..=WIDTH).contains(&x) && x >= last, "{millis}: {x}");
            last = x;
        }
        assert!(Scale::of(&[], false).x(START) <= WIDTH);
    }
}
