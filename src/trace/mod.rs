//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): passes the trace of a producer's
//! message on to the job, its follow-ups, its events and its calls to other services, and records
//! the spans of this process.

mod span;

use std::fmt;

use data_encoding::HEXLOWER;

pub use span::{Attribute, NewSpan, Span, SpanKind, SpanSink, Spans, in_span, note};

/// The header with the ids and flags of a trace.
pub const TRACEPARENT: &str = "traceparent";
/// The header with the vendors' additions to a trace.
pub const TRACESTATE: &str = "tracestate";

/// The longest `tracestate` that is kept. Section 3.3.1.5 recommends passing on at least this many
/// characters.
const TRACESTATE_LIMIT: usize = 512;
/// The length of `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 55;
/// The flag `sampled` (section 3.2.2.5.1): the spans of the trace are recorded.
const SAMPLED: u8 = 1;

/// A position in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 16],
    /// The parent of the spans of this process.
    parent: [u8; 8],
    flags: u8,
    state: Option<String>,
}

impl Trace {
    /// Parses these headers. A state without a valid trace is dropped with it (section 3.3).
    #[must_use]
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent?;
        let fields = text.get(..LENGTH)?;
        let rest = &text[LENGTH..];
        let mut parts = fields.split('-');
        let version = octets::<1>(parts.next()?)?;
        let (id, parent, [flags]) = (
            octets(parts.next()?)?,
            octets(parts.next()?)?,
            octets(parts.next()?)?,
        );
        // A later version may have more fields after the flags; version 00 may not.
        let is_whole = parts.next().is_none()
            && (rest.is_empty() || (version != [0] && rest.starts_with('-')));
        let is_valid = is_whole && version != [0xff] && id != [0; 16] && parent != [0; 8];
        let is_passable = |state: &&str| {
            !state.is_empty()
                && state.len() <= TRACESTATE_LIMIT
                && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        let state = tracestate.filter(is_passable).map(str::to_owned);
        is_valid.then_some(Self {
            id,
            parent,
            flags,
            state,
        })
    }

    /// Creates a trace that begins here. It is not sampled, because this process may record no
    /// spans.
    fn fresh() -> Self {
        let id = rand::random::<u128>().max(1).to_be_bytes();
        Self {
            id,
            parent: fresh_span(),
            flags: 0,
            state: None,
        }
    }

    /// Returns the id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.id)
    }

    /// Returns the id of the trace as bytes.
    #[must_use]
    pub const fn id_bytes(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the id of the span.
    #[must_use]
    pub const fn span_bytes(&self) -> [u8; 8] {
        self.parent
    }

    /// Returns the flags.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Returns the [`TRACESTATE`].
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Returns the same trace with a new span.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            parent: fresh_span(),
            ..self.clone()
        }
    }

    const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Writes the [`TRACEPARENT`], in version 00.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            HEXLOWER.encode(&self.id),
            HEXLOWER.encode(&self.parent),
            self.flags
        )
    }
}

fn fresh_span() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

/// Parses exactly `N` octets of lowercase hexadecimal.
fn octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_reads_and_writes_back() {
        let trace = Trace::parse(Some(PARENT), Some("congo=t61rcWkgMzE")).unwrap();
        assert_eq!(
            (trace.to_string().as_str(), trace.state()),
            (PARENT, Some("congo=t61rcWkgMzE"))
        );
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = format!("cc{}-what-is-to-come", &PARENT[2..]);
        assert_eq!(
            Trace::parse(Some(&later), None).unwrap().to_string(),
            PARENT,
            "the known fields of a later version are used"
        );
    }

    #[test]
    fn a_span_of_its_own_is_in_the_same_trace() {
        let trace = Trace::parse(Some(PARENT), Some("a=b")).unwrap();
        let child = trace.child();
        assert_eq!(
            (child.id(), child.state(), child.flags),
            (trace.id(), trace.state(), 1)
        );
        assert_ne!(child.parent, trace.parent);
    }

    #[test]
    fn a_malformed_header_begins_a_new_trace() {
        let long = format!("{PARENT}-more");
        let upper = PARENT.to_uppercase();
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            &long,
            &upper,
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.replace('-', "_"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(Some(wrong), None), None, "{wrong}");
            let fresh = Spans::default().received(Some(wrong), Some("a=b"));
            assert_eq!(
                Trace::parse(Some(&fresh.to_string()), None),
                Some(fresh.clone()),
                "a new trace is valid"
            );
            assert_eq!(fresh.state(), None);
        }
    }

    #[test]
    fn a_state_that_no_header_can_carry_is_dropped() {
        for state in ["", "a=\nb", "a=é", &"x".repeat(TRACESTATE_LIMIT + 1)] {
            assert_eq!(
                Trace::parse(Some(PARENT), Some(state)).unwrap().state(),
                None,
                "{state:?}"
            );
        }
    }
}
