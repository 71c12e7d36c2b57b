//! Server-sent events, taken apart as their bytes come.

/// A longer event is not a worker's, in one line or in many.
const LONGEST_EVENT: usize = 8 << 20;

#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Bytes without a line's end, and lines that were not looked at yet.
    buffer: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    /// How much of the next line is known to have no end.
    searched: usize,
    /// Of the event that is being read.
    data: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

// === impl Decoder ===

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let data = self.data.as_ref().map_or(0, Vec::len);
        if self.buffer.len() + data + bytes.len() > LONGEST_EVENT {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The `data` of the next event that is there as a whole.
    pub(super) fn next_event(&mut self) -> Option<Vec<u8>> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Some(data);
                }
            } else if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut self.data {
                    None => self.data = Some(value.to_vec()),
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                }
            }
            // Comments, and fields that no worker's stream has a use for.
        }
        None
    }

    /// A line without its end, LF or CRLF.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.at..];
        let Some(end) = rest[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = rest.len();
            return None;
        };
        let end = self.searched + end;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).to_vec();
        self.at += end + 1;
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece).expect("short");
            while let Some(event) = decoder.next_event() {
                events.push(String::from_utf8(event).expect("UTF-8"));
            }
        }
        events
    }

    #[test]
    fn events_are_told_apart_whatever_is_between_them() {
        let text =
            b": hello\n\nevent: x\ndata: one\r\n\r\ndata:two\ndata: lines\nid: 7\n\n\ndata: \n\ndata: unfinished";
        assert_eq!(all(&[text]), ["one", "two\nlines", ""]);
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; LONGEST_EVENT / 2];
        assert_eq!(decoder.push(&piece), Ok(()));
        assert_eq!(decoder.push(&piece), Ok(()));
        assert_eq!(decoder.push(b"x"), Err(TooLong));
    }

    #[test]
    fn an_event_of_many_lines_is_bounded() {
        let mut decoder = Decoder::default();
        let mut line = b"data: ".to_vec();
        line.resize(LONGEST_EVENT / 4, b'x');
        line.push(b'\n');
        let pushed = |_| {
            let pushed = decoder.push(&line);
            assert_eq!(decoder.next_event(), None);
            pushed
        };
        assert_eq!((0..8).map(pushed).find(Result::is_err), Some(Err(TooLong)));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(
            events in prop::collection::vec("[^\r\n]{0,20}", 0..6),
            cuts in prop::collection::vec(0_usize..200, 0..8),
        ) {
            let text: String = events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
            prop_assert_eq!(all(&pieces), events);
        }
    }
}
