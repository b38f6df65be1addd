//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): what a producer sends with a job goes with it, to its follow-ups,
//! its events and its calls to the outside.

use std::fmt;

use data_encoding::HEXLOWER;

/// The header of a trace.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to it.
pub const TRACESTATE: &str = "tracestate";

/// Vendors should pass on at least this many characters of `tracestate` (section 3.3.1.5); no more are kept.
const TRACESTATE_LIMIT: usize = 512;
/// `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 55;

tokio::task_local! {
    static CURRENT: Trace;
}

/// A place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 16],
    /// The span whose children the spans of this process are.
    parent: [u8; 8],
    flags: u8,
    state: Option<String>,
}

impl Trace {
    /// The trace that a message came with, or a new one where it has none or one that is malformed.
    #[must_use]
    pub fn received(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        Self::parse(traceparent, tracestate).unwrap_or_else(Self::fresh)
    }

    /// The trace of these headers; a state without a trace is dropped with it (section 3.3).
    #[must_use]
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent?;
        let fields = text.get(..LENGTH)?;
        let rest = &text[LENGTH..];
        let mut parts = fields.split('-');
        let version = octets::<1>(parts.next()?)?;
        let (id, parent, [flags]) = (octets(parts.next()?)?, octets(parts.next()?)?, octets(parts.next()?)?);
        // A later version may say more behind the flags; this one may not.
        let is_whole = parts.next().is_none() && (rest.is_empty() || (version != [0] && rest.starts_with('-')));
        let is_valid = is_whole && version != [0xff] && id != [0; 16] && parent != [0; 8];
        let is_passable = |state: &&str| {
            !state.is_empty() && state.len() <= TRACESTATE_LIMIT && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        let state = tracestate.filter(is_passable).map(str::to_owned);
        is_valid.then_some(Self { id, parent, flags, state })
    }

    /// A trace that begins here. It is not sampled: nothing here records it.
    fn fresh() -> Self {
        let id = rand::random::<u128>().max(1).to_be_bytes();
        Self { id, parent: fresh_span(), flags: 0, state: None }
    }

    /// The trace's id: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.id)
    }

    /// See [`TRACESTATE`].
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The same trace in a span of its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { parent: fresh_span(), ..self.clone() }
    }

    /// Runs `future` as part of this trace.
    pub async fn around<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// A span of its own in the trace that is [around](Self::around) the caller, if one is.
    #[must_use]
    pub fn child_of_current() -> Option<Self> {
        CURRENT.try_with(Self::child).ok()
    }
}

/// As [`TRACEPARENT`] has it, in version 00.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", HEXLOWER.encode(&self.id), HEXLOWER.encode(&self.parent), self.flags)
    }
}

fn fresh_span() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

/// Exactly `N` octets in lowercase hexadecimal.
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
        assert_eq!((trace.to_string().as_str(), trace.state()), (PARENT, Some("congo=t61rcWkgMzE")));
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = format!("cc{}-what-is-to-come", &PARENT[2..]);
        assert_eq!(Trace::parse(Some(&later), None).unwrap().to_string(), PARENT, "of a later version this much is understood");
    }

    #[test]
    fn a_span_of_its_own_is_in_the_same_trace() {
        let trace = Trace::parse(Some(PARENT), Some("a=b")).unwrap();
        let child = trace.child();
        assert_eq!((child.id(), child.state(), child.flags), (trace.id(), trace.state(), 1));
        assert_ne!(child.parent, trace.parent);
    }

    #[test]
    fn what_is_malformed_begins_a_new_trace() {
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
            let fresh = Trace::received(Some(wrong), Some("a=b"));
            assert_eq!(Trace::parse(Some(&fresh.to_string()), None), Some(fresh.clone()), "a new trace is a right one");
            assert_eq!(fresh.state(), None);
        }
    }

    #[test]
    fn a_state_that_no_header_can_carry_is_dropped() {
        for state in ["", "a=\nb", "a=é", &"x".repeat(TRACESTATE_LIMIT + 1)] {
            assert_eq!(Trace::parse(Some(PARENT), Some(state)).unwrap().state(), None, "{state:?}");
        }
    }

    #[tokio::test]
    async fn whoever_is_called_inside_a_trace_finds_it() {
        assert_eq!(Trace::child_of_current(), None);
        let trace = Trace::received(None, None);
        let inside = trace.clone().around(async { Trace::child_of_current() }).await.unwrap();
        assert_eq!(inside.id(), trace.id());
    }
}
