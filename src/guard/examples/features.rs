//! For training: reads lines of `{"text": …}` and writes, for each, the number of
//! its features and their hashes, as little-endian 32-bit numbers. With `--text`,
//! the normal form as a JSON string a line instead.

use std::io::{BufRead, BufWriter, Error, Write, stdin, stdout};

use tenantry_guard::{Normalised, features};

fn main() -> Result<(), Error> {
    let as_text = std::env::args().any(|argument| argument == "--text");
    let mut out = BufWriter::new(stdout().lock());
    for line in stdin().lock().lines() {
        let row: serde_json::Value = serde_json::from_str(&line?)?;
        let text = row["text"].as_str().ok_or_else(|| Error::other("a line without text"))?;
        let text = Normalised::of(text);
        if as_text {
            writeln!(out, "{}", serde_json::to_string(text.text())?)?;
            continue;
        }
        let hashes = features(&text);
        out.write_all(&(hashes.len() as u32).to_le_bytes())?;
        for hash in hashes {
            out.write_all(&hash.to_le_bytes())?;
        }
    }
    out.flush()
}
