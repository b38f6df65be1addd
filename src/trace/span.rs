//! The spans of this process. The current span is a task-local value, so that no function has to
//! pass it on.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use super::Trace;

tokio::task_local! {
    static CURRENT: Scope;
}

/// The largest number of attributes of a span; further ones are not recorded.
const ATTRIBUTES: usize = 16;

/// A span that has ended.
#[derive(Debug)]
pub struct Span {
    /// The trace, with the id of the span itself.
    pub trace: Trace,
    /// The id of the span above it.
    pub parent: [u8; 8],
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    pub started: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The code of the error that it ended with.
    pub error: Option<Cow<'static, str>>,
}

/// What a span stands for (<https://opentelemetry.io/docs/specs/otel/trace/api/#spankind>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work of this process.
    Internal,
    /// A call to another service.
    Client,
    /// The handling of a message.
    Consumer,
}

/// The value of an attribute: an id, a word of a closed set, or a number; never a payload, a
/// secret or a person's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    Text(Cow<'static, str>),
    Number(i64),
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A span that begins.
#[derive(Debug)]
pub struct NewSpan {
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// Receives the spans of sampled traces when they end.
pub trait SpanSink: Send + Sync {
    /// Takes the span without waiting; drops it if there is no room.
    fn record(&self, span: Span);
}

/// Where spans are recorded. By default nowhere, which costs nothing.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<dyn SpanSink>>);

impl Spans {
    /// Records spans in `sink`.
    #[must_use]
    pub fn to(sink: Arc<dyn SpanSink>) -> Self {
        Self(Some(sink))
    }

    /// Returns the trace of a message, or a new one if the message has none or a malformed one. A
    /// new trace is sampled if its spans are recorded.
    #[must_use]
    pub fn received(&self, traceparent: Option<&str>, tracestate: Option<&str>) -> Trace {
        Trace::parse(traceparent, tracestate).unwrap_or_else(|| {
            let mut trace = Trace::fresh();
            if self.0.is_some() {
                trace.flags |= super::SAMPLED;
            }
            trace
        })
    }

    /// Returns the span that `new` describes if the spans of `trace` are recorded.
    pub fn new_span(&self, trace: &Trace, new: impl FnOnce() -> NewSpan) -> Option<NewSpan> {
        (self.0.is_some() && trace.is_sampled()).then(new)
    }

    /// Runs `future` as part of `trace`, and as the span `new` of it if there is one.
    pub async fn around<F: Future>(
        &self,
        trace: Trace,
        new: Option<NewSpan>,
        future: F,
    ) -> F::Output {
        let scope = match (&self.0, new) {
            (Some(sink), Some(new)) => Scope::begin(&trace, Arc::clone(sink), new),
            _ => Scope { trace, open: None },
        };
        CURRENT.scope(scope, future).await
    }
}

/// Runs `future` as a span of its own below the current span, if that is recorded. A future that
/// is dropped ends its span.
pub async fn in_span<F: Future>(new: impl FnOnce() -> NewSpan, future: F) -> F::Output {
    let scope = CURRENT.try_with(|current| {
        let open = current.open.as_ref()?;
        Some(Scope::begin(&current.trace, Arc::clone(&open.sink), new()))
    });
    match scope.ok().flatten() {
        Some(scope) => CURRENT.scope(scope, future).await,
        None => future.await,
    }
}

/// Sets an attribute of the current span. `error.type` also marks the span as failed.
pub fn note(key: &'static str, value: impl Into<Attribute>) {
    let value = value.into();
    // Outside of a span, there is nothing to note.
    let _outside = CURRENT.try_with(|current| {
        if let Some(open) = &current.open {
            open.set(key, value);
        }
    });
}

impl Trace {
    /// Returns the trace for a call, with a span id that no other call has, or `None` outside of a
    /// trace. In a recorded span, which stands for the call, it is that span.
    #[must_use]
    pub fn of_call() -> Option<Self> {
        let of = |current: &Scope| match current.open {
            Some(_) => current.trace.clone(),
            None => current.trace.child(),
        };
        CURRENT.try_with(of).ok()
    }
}

/// The current trace of a task, and the span that is recorded for it.
struct Scope {
    trace: Trace,
    open: Option<OpenSpan>,
}

impl Scope {
    fn begin(above: &Trace, sink: Arc<dyn SpanSink>, new: NewSpan) -> Self {
        let trace = above.child();
        let open = OpenSpan {
            sink,
            trace: trace.clone(),
            parent: above.parent,
            new: Mutex::new(new),
            started: (SystemTime::now(), Instant::now()),
        };
        Self {
            trace,
            open: Some(open),
        }
    }
}

/// A span that has not ended. Dropping it records it.
struct OpenSpan {
    sink: Arc<dyn SpanSink>,
    trace: Trace,
    parent: [u8; 8],
    new: Mutex<NewSpan>,
    started: (SystemTime, Instant),
}

impl OpenSpan {
    fn set(&self, key: &'static str, value: Attribute) {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let attributes = &mut new.attributes;
        match attributes.iter().position(|(known, _)| *known == key) {
            Some(at) => attributes[at].1 = value,
            None if attributes.len() < ATTRIBUTES => attributes.push((key, value)),
            None => {}
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let new = self.new.get_mut().unwrap_or_else(PoisonError::into_inner);
        let attributes = std::mem::take(&mut new.attributes);
        let error = attributes
            .iter()
            .find_map(|(key, value)| match (*key, value) {
                ("error.type", Attribute::Text(code)) => Some(code.clone()),
                _ => None,
            });
        let (started, clock) = self.started;
        self.sink.record(Span {
            trace: self.trace.clone(),
            parent: self.parent,
            name: std::mem::take(&mut new.name),
            kind: new.kind,
            started,
            // The clock of the system may be set meanwhile; a span never ends before it began.
            ended: started + clock.elapsed(),
            attributes,
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[derive(Default)]
    struct Kept(Mutex<Vec<Span>>);

    impl SpanSink for Kept {
        fn record(&self, span: Span) {
            self.0.lock().unwrap().push(span);
        }
    }

    fn named(name: &'static str) -> NewSpan {
        NewSpan {
            name: name.into(),
            kind: SpanKind::Internal,
            attributes: vec![("outcome", "unknown".into())],
        }
    }

    async fn two_spans(spans: &Spans, parent: Option<&str>) -> Trace {
        let trace = spans.received(parent, None);
        let inner = in_span(|| named("inner"), async {
            note("outcome", "parked");
            note("error.type", "slack.refused");
            Trace::of_call().unwrap()
        });
        let outer = spans.new_span(&trace, || named("outer"));
        spans.around(trace, outer, inner).await
    }

    #[tokio::test]
    async fn a_span_is_below_the_one_around_it_and_has_what_was_noted() {
        let kept = Arc::new(Kept::default());
        let spans = Spans::to(Arc::clone(&kept) as Arc<dyn SpanSink>);
        let call = two_spans(&spans, Some(PARENT)).await;
        let recorded = std::mem::take(&mut *kept.0.lock().unwrap());
        let [inner, outer] = &recorded[..] else {
            panic!("two spans: {recorded:?}")
        };
        assert_eq!((&*inner.name, &*outer.name), ("inner", "outer"));
        assert_eq!(
            outer.parent,
            Trace::parse(Some(PARENT), None).unwrap().parent
        );
        assert_eq!(inner.parent, outer.trace.parent);
        assert_eq!(inner.trace, call, "the call carries the id of its span");
        assert_eq!(
            inner.attributes,
            [
                ("outcome", "parked".into()),
                ("error.type", "slack.refused".into())
            ]
        );
        assert_eq!(inner.error.as_deref(), Some("slack.refused"));
        assert_eq!(outer.attributes, [("outcome", "unknown".into())]);
    }

    #[tokio::test]
    async fn a_trace_that_is_not_sampled_is_passed_on_and_not_recorded() {
        let kept = Arc::new(Kept::default());
        let spans = Spans::to(Arc::clone(&kept) as Arc<dyn SpanSink>);
        let unsampled = format!("{}0", &PARENT[..54]);
        for (spans, parent) in [
            (&spans, Some(&*unsampled)),
            (&Spans::default(), Some(PARENT)),
        ] {
            let call = two_spans(spans, parent).await;
            let sent = Trace::parse(parent, None).unwrap();
            assert_eq!((call.id(), call.flags), (sent.id(), sent.flags));
            assert_ne!(call.parent, sent.parent, "each call has an id of its own");
        }
        assert!(kept.0.lock().unwrap().is_empty());
        assert_eq!(Trace::of_call(), None, "outside of a trace");
    }

    #[tokio::test]
    async fn a_new_trace_is_sampled_if_its_spans_are_recorded() {
        let kept = Arc::new(Kept::default());
        two_spans(&Spans::to(Arc::clone(&kept) as Arc<dyn SpanSink>), None).await;
        assert_eq!(kept.0.lock().unwrap().len(), 2);
        assert!(!Spans::default().received(None, None).is_sampled());
    }

    #[tokio::test]
    async fn a_span_has_a_limited_number_of_attributes_and_ends_with_its_future() {
        const KEYS: [&str; 20] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
            "r", "s", "t",
        ];
        let kept = Arc::new(Kept::default());
        let spans = Spans::to(Arc::clone(&kept) as Arc<dyn SpanSink>);
        let trace = spans.received(None, None);
        let endless = async {
            KEYS.iter().for_each(|key| note(key, 1));
            std::future::pending::<()>().await;
        };
        let run = spans.around(trace, Some(named("cut")), endless);
        assert_eq!(futures_util::FutureExt::now_or_never(run), None);
        let recorded = kept.0.lock().unwrap();
        assert_eq!(recorded[0].attributes.len(), ATTRIBUTES);
    }
}
