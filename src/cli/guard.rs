//! `tenantry guard score`: the guard's judgement of many texts, line by line.

use std::io::{self, BufRead, Write};
use std::num::NonZero;
use std::thread;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use tenantry_guard::{Linear, Normalised};

use super::Failure;

/// Lines that are judged together, by all threads.
const TOGETHER: usize = 4096;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge texts: lines of {"text": …} come in, one verdict a line goes out
    Score,
}

#[derive(Deserialize)]
struct Asked {
    text: String,
}

/// Numbers are from 0 to 1.
#[derive(Serialize)]
struct Verdict {
    /// How likely the text is toxic, by all stages that have read it.
    score: f32,
    stage1: f32,
    /// There is no second stage yet.
    stage2: Option<f32>,
    categories: Map<String, Value>,
    /// What the default policy does with it.
    action: &'static str,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command: Command::Score } = arguments;
    let written = |error: io::Error| Failure::Other(format!("cannot write the verdicts: {error}"));
    let (mut lines, mut out) = (io::stdin().lock().lines(), io::BufWriter::new(io::stdout().lock()));
    let mut before = 0;
    loop {
        let some: Vec<String> = lines
            .by_ref()
            .take(TOGETHER)
            .collect::<io::Result<_>>()
            .map_err(|error| Failure::Other(format!("cannot read the texts: {error}")))?;
        if some.is_empty() {
            return out.flush().map_err(written);
        }
        let verdicts = judged(&some);
        for (number, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                Ok(line) => writeln!(out, "{line}").map_err(written)?,
                Err(why) => {
                    // What was judged before it is not lost.
                    out.flush().map_err(written)?;
                    return Err(Failure::Other(format!("line {}: {why}", before + number + 1)));
                }
            }
        }
        before += some.len();
    }
}

/// In the order of the lines, by as many threads as there are cores.
fn judged(lines: &[String]) -> Vec<Result<String, String>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let each = lines.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let model = Linear::embedded();
        let judge = move |lines: &[String]| lines.iter().map(|line| verdict(&model, line)).collect::<Vec<_>>();
        let running: Vec<_> = lines.chunks(each).map(|lines| scope.spawn(move || judge(lines))).collect();
        let panicked = |_| vec![Err("it could not be judged".to_owned())];
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    })
}

fn verdict(model: &Linear, line: &str) -> Result<String, String> {
    let asked: Asked = serde_json::from_str(line).map_err(|error| format!("expected {{\"text\": \"…\"}}: {error}"))?;
    let score = model.score(&Normalised::of(&asked.text));
    let categories = score.categories().map(|(category, likely)| (category.as_str().to_owned(), likely.into()));
    let verdict = Verdict {
        score: score.toxic,
        stage1: score.toxic,
        stage2: None,
        categories: categories.collect(),
        action: if score.toxic >= Linear::THRESHOLD { "block" } else { "pass" },
    };
    serde_json::to_string(&verdict).map_err(|error| error.to_string())
}
