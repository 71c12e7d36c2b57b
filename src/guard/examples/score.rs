//! For measuring: reads lines of `{"text": …}` and writes, for each, what stage 1 says
//! of it: `{"toxic": …, "insult": …, …}`. With `--stage2`, what both stages say instead:
//! `{"stage1": …, "stage2": …, "score": …}`, the second asked of every text; a folder
//! after it is the model to ask.

use std::io::{BufRead, BufWriter, Error, Write, stdin, stdout};

use tenantry_guard::{Encoder, Linear, Normalised, combined};

/// Texts that stage 2 is given at once.
const TOGETHER: usize = 64;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let encoder = match arguments.next().as_deref() {
        Some("--stage2") => {
            let opened = arguments.next().map_or_else(Encoder::embedded, |folder| Encoder::open(folder.as_ref()));
            Some(opened.map_err(Error::other)?)
        }
        _ => None,
    };
    let lines = stdin().lock().lines().collect::<Result<Vec<_>, _>>()?;
    let mut out = BufWriter::new(stdout().lock());
    for lines in lines.chunks(TOGETHER) {
        let texts = lines.iter().map(|line| text(line)).collect::<Result<Vec<_>, _>>()?;
        match &encoder {
            Some(encoder) => both(encoder, &texts, &mut out)?,
            None => first(&texts, &mut out)?,
        }
    }
    out.flush()
}

fn text(line: &str) -> Result<String, Error> {
    let row: serde_json::Value = serde_json::from_str(line)?;
    Ok(row["text"].as_str().ok_or_else(|| Error::other("a line without text"))?.to_owned())
}

fn first(texts: &[String], out: &mut impl Write) -> Result<(), Error> {
    for text in texts {
        let score = Linear::embedded().score(&Normalised::of(text));
        write!(out, "{{\"toxic\":{:.6}", score.toxic)?;
        for (category, likely) in score.categories() {
            write!(out, ",\"{}\":{likely:.6}", category.as_str())?;
        }
        writeln!(out, "}}")?;
    }
    Ok(())
}

fn both(encoder: &Encoder, texts: &[String], out: &mut impl Write) -> Result<(), Error> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (text, score) in texts.iter().zip(encoder.score(&texts).map_err(Error::other)?) {
        let stage1 = Linear::embedded().score(&Normalised::of(text)).toxic;
        let (stage2, score) = (score.toxic, combined(stage1, score.toxic));
        writeln!(out, "{{\"stage1\":{stage1:.6},\"stage2\":{stage2:.6},\"score\":{score:.6}}}")?;
    }
    Ok(())
}
