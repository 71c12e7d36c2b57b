//! For measuring: reads lines of `{"text": …}` and writes, for each, what stage 1 says
//! of it: `{"toxic": …, "insult": …, …}`.

use std::io::{BufRead, BufWriter, Error, Write, stdin, stdout};

use tenantry_guard::{Linear, Normalised};

fn main() -> Result<(), Error> {
    let model = Linear::embedded();
    let mut out = BufWriter::new(stdout().lock());
    for line in stdin().lock().lines() {
        let row: serde_json::Value = serde_json::from_str(&line?)?;
        let text = row["text"].as_str().ok_or_else(|| Error::other("a line without text"))?;
        let score = model.score(&Normalised::of(text));
        write!(out, "{{\"toxic\":{:.6}", score.toxic)?;
        for (category, likely) in score.categories() {
            write!(out, ",\"{}\":{likely:.6}", category.as_str())?;
        }
        writeln!(out, "}}")?;
    }
    out.flush()
}
