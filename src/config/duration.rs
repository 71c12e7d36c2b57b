//! Lengths of time as the file spells them: `500ms`, `10s`, `2m`, `1h`.

use std::time::Duration;

pub(super) const EXPECTED: &str = "expected a length of time such as \"500ms\", \"10s\" or \"2m\"";

/// `None` where the text is not a whole number with a unit.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// In the largest unit that leaves a whole number.
pub(super) fn display(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.into_iter().find(|(size, _)| milliseconds != 0 && milliseconds.is_multiple_of(*size));
    let (size, unit) = whole.unwrap_or((1, "ms"));
    format!("{}{unit}", milliseconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_a_unit_are_read_and_written() {
        for (text, milliseconds) in [("0ms", 0), ("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(display(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(display(Duration::from_millis(1_500)), "1500ms");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "10", "s", "1.5s", "-1s", "10 s", "10S", "1d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
