//! The `grpc-timeout` header: at most eight digits and a unit.

use std::time::Duration;

use crate::types::Error;

const HEADER: &str = "grpc-timeout";

pub(super) fn parse(value: &[u8]) -> Result<Duration, Error> {
    let malformed = || {
        Error::invalid(HEADER, "Invalid grpc-timeout: expected one to eight digits and a unit of H, M, S, m, u or n.")
    };
    let (unit, digits) = value.split_last().ok_or_else(malformed)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Ok(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return Err(malformed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        let read = ["2H", "3M", "4S", "5m", "6u", "7n", "00000001S", "0S"].map(|text| parse(text.as_bytes()));
        let expected = [
            Duration::from_secs(7200),
            Duration::from_secs(180),
            Duration::from_secs(4),
            Duration::from_millis(5),
            Duration::from_micros(6),
            Duration::from_nanos(7),
            Duration::from_secs(1),
            Duration::ZERO,
        ];
        assert_eq!(read, expected.map(Ok));
        assert_eq!(parse(b"99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", " 1S", "1S ", "1SS", "é", "１S"] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert_eq!(error.param(), Some("grpc-timeout"), "{text}");
        }
    }
}
