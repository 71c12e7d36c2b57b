//! The words in which both edges refuse. What a client wrote is quoted only in
//! part, so that an answer does not grow with the request it refuses.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use crate::types::{Error, Role};

/// The longest quotation, in characters.
const QUOTED: usize = 100;

/// A client's text, as far as an answer repeats it.
pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

pub(super) fn missing(path: impl Into<Cow<'static, str>>) -> Error {
    let path = path.into();
    let message = format!("you must provide a {path} parameter");
    Error::invalid(path, message)
}

/// `got` is a number or a text of ours, never a client's text as it came.
pub(super) fn invalid_value(path: impl Into<Cow<'static, str>>, expected: impl Display, got: impl Display) -> Error {
    let path = path.into();
    let message = format!("Invalid value for '{path}': expected {expected}, got {got}.");
    Error::invalid(path, message)
}

pub(super) fn unknown_role(path: String, role: &str) -> Error {
    let known: Vec<String> = Role::ALL.iter().map(|role| format!("'{}'", role.as_str())).collect();
    let message =
        format!("Invalid value for '{path}': '{}'. Supported values are: {}.", quoted(role), known.join(", "));
    Error::invalid(path, message)
}

pub(super) fn needs_logprobs() -> Error {
    let message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.";
    Error::invalid("top_logprobs", message)
}

/// How long a client is asked to wait. At least 1, since 0 would invite it to spin.
pub(super) fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

/// As Go writes it, which is how OpenAI's headers have it: `12ms`, `1.5s`, `6m0s`.
pub(super) fn go_duration(length: Duration) -> String {
    let millis = length.as_nanos().div_ceil(1_000_000);
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    if millis > 0 && millis < 1_000 {
        return format!("{millis}ms");
    }
    let fraction = match rest % 1_000 {
        0 => String::new(),
        part => format!(".{part:03}").trim_end_matches('0').to_owned(),
    };
    let seconds = format!("{}{fraction}s", rest / 1_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_quoted_in_part_and_cut_between_characters() {
        let longest = "é".repeat(QUOTED);
        assert_eq!(quoted(&longest), longest);
        assert_eq!(quoted(&format!("{longest}é")), format!("{longest}…"));
        assert_eq!(quoted(""), "");
    }

    #[test]
    fn lengths_are_written_as_go_writes_them() {
        let written = |micros: u64| go_duration(Duration::from_micros(micros));
        assert_eq!([0, 1, 12_000, 999_001].map(written), ["0s", "1ms", "12ms", "1s"]);
        assert_eq!([1_000_000, 1_500_000, 59_700_000].map(written), ["1s", "1.5s", "59.7s"]);
        assert_eq!([360_000_000, 3_723_004_000].map(written), ["6m0s", "1h2m3.004s"]);
    }

    #[test]
    fn a_delay_is_never_zero_seconds() {
        let told = [0, 1, 1000, 1001, 2000].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(told, [1, 1, 1, 2, 2]);
    }
}
