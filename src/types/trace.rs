//! Where a request stands in a distributed trace: W3C Trace Context, level 1.

use std::fmt;
use std::sync::Arc;

/// The longest `tracestate` that is passed on, in bytes; the standard asks for 512 at least.
const LONGEST_STATE: usize = 512;

/// What `traceparent` and `tracestate` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    /// The span that whoever is given this works for.
    pub span: SpanId,
    pub sampled: bool,
    /// Passed on as it came.
    pub state: Option<Arc<str>>,
}

/// 16 bytes, not all of them 0; written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, not all of them 0; written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

// === impl TraceContext ===

impl TraceContext {
    /// Reads the two headers. `None` where the first is not a valid one: the
    /// standard has a trace begin anew then.
    pub fn parse(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        let [version @ .., b'-'] = traceparent.get(..3)? else { return None };
        let [version] = hex::<1>(version)?;
        // Later versions may say more behind what this one knows.
        let whole = match version {
            0 => traceparent.len() == 55,
            0xff => false,
            _ => traceparent.len() == 55 || traceparent.get(55) == Some(&b'-'),
        };
        let dashes = traceparent.get(35) == Some(&b'-') && traceparent.get(52) == Some(&b'-');
        if !whole || !dashes {
            return None;
        }
        let trace = TraceId(hex(&traceparent[3..35])?);
        let span = SpanId(hex(&traceparent[36..52])?);
        let [flags] = hex::<1>(&traceparent[53..55])?;
        if trace.0 == [0; 16] || span.0 == [0; 8] {
            return None;
        }
        let state = tracestate.filter(|state| {
            (1..=LONGEST_STATE).contains(&state.len()) && state.iter().all(|byte| (b' '..=b'~').contains(byte))
        });
        let state = state.and_then(|state| std::str::from_utf8(state).ok()).map(Arc::from);
        Some(Self { trace, span, sampled: flags & 1 == 1, state })
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Lower-case digits only, as the standard wants them.
fn hex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if digits.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digits(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written_alike() {
        let context = TraceContext::parse(PARENT.as_bytes(), Some(b"vendor=a,other=b")).expect("valid");
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span.to_string(), "00f067aa0ba902b7");
        assert!(context.sampled);
        assert_eq!(context.state.as_deref(), Some("vendor=a,other=b"));
        assert_eq!(context.traceparent(), PARENT);
        let silent = TraceContext::parse(PARENT.replace("-01", "-02").as_bytes(), None).expect("valid");
        assert!(!silent.sampled, "only the lowest flag says that it is recorded");
    }

    #[test]
    fn what_the_standard_forbids_begins_no_trace() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes(), None), None, "{wrong}");
        }
        let later = format!("cc{}-what-comes", &PARENT[2..]);
        assert!(TraceContext::parse(later.as_bytes(), None).is_some(), "a later version may say more");
        let long = "k=".to_owned() + &"v".repeat(LONGEST_STATE);
        for state in [long.as_str(), "", "k=\u{e9}", "k=\n"] {
            let context = TraceContext::parse(PARENT.as_bytes(), Some(state.as_bytes())).expect("valid");
            assert_eq!(context.state, None, "{state:?}");
        }
    }
}
