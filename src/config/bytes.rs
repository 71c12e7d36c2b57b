//! Amounts of memory as the file spells them: `4MiB`, `1GB`, or plain bytes.

pub(super) const EXPECTED: &str = "expected an amount of memory such as \"512MiB\", \"1GB\" or a number of bytes";

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// `None` where the text is not a whole number, with or without a unit.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let size = match unit {
        "" => 1,
        _ => UNITS.into_iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(size)
}

/// In the largest binary unit that leaves a whole number.
pub(super) fn display(bytes: u64) -> String {
    let whole = UNITS[..3].iter().find(|(_, size)| bytes != 0 && bytes.is_multiple_of(*size));
    let (unit, size) = whole.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_with_and_without_a_unit() {
        for (text, bytes) in [("0", 0), ("17", 17), ("17B", 17), ("1KB", 1_000), ("4MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        assert_eq!(display(4 << 20), "4MiB");
        assert_eq!(display(1_000), "1000B");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "MiB", "1.5GiB", "-1", "1 GiB", "1gib", "1TiB", "18446744073709551615GiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
