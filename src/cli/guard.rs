//! `tenantry guard score`: the guard's judgement of many texts, line by line.

use std::io::{self, BufRead, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use tenantry_guard::{self as guard, Category, Encoder, EncoderScore, Linear, Normalised, THRESHOLD, combined};

use super::{Failure, note};

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
    Score(Score),
}

#[derive(Debug, Args)]
struct Score {
    /// Stage 2's model, a folder as Hugging Face has it, instead of the embedded one
    #[arg(long, value_name = "FOLDER")]
    stage2: Option<PathBuf>,
    /// Ask stage 2 of every text, not only of those that stage 1 finds doubtful
    #[arg(long)]
    every: bool,
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
    /// Where stage 1 finds it doubtful.
    stage2: Option<f32>,
    categories: Map<String, Value>,
    /// What the default policy does with it.
    action: &'static str,
}

/// What reads the texts.
struct Stages {
    linear: Linear,
    encoder: Encoder,
    every: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command: Command::Score(Score { stage2, every }) } = arguments;
    let encoder = stage2.as_deref().map_or_else(Encoder::embedded, Encoder::open);
    let encoder = encoder.map_err(|error| Failure::Other(format!("stage 2: {error}")))?;
    let stages = Stages { linear: Linear::embedded(), encoder, every };
    let written = |error: io::Error| Failure::Other(format!("cannot write the verdicts: {error}"));
    let (mut lines, mut out) = (io::stdin().lock().lines(), io::BufWriter::new(io::stdout().lock()));
    let (mut before, mut bad) = (0, 0_u64);
    loop {
        let some: Vec<String> = lines
            .by_ref()
            .take(TOGETHER)
            .collect::<io::Result<_>>()
            .map_err(|error| Failure::Other(format!("cannot read the texts: {error}")))?;
        if some.is_empty() {
            out.flush().map_err(written)?;
            return match bad {
                0 => Ok(()),
                1 => Err(Failure::Other("one line could not be judged".to_owned())),
                bad => Err(Failure::Other(format!("{bad} lines could not be judged"))),
            };
        }
        let verdicts = judged(&stages, &some);
        for (number, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                Ok(line) => writeln!(out, "{line}").map_err(written)?,
                Err(why) => {
                    bad += 1;
                    note(&format!("line {}: {why}", before + number + 1));
                }
            }
        }
        before += some.len();
    }
}

/// In the order of the lines, by as many threads as there are cores.
fn judged(stages: &Stages, lines: &[String]) -> Vec<Result<String, String>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    // Dealt out in turn: doubtful texts often stand together.
    let dealt = |nth: usize| lines.iter().skip(nth).step_by(threads).collect::<Vec<_>>();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|nth| scope.spawn(move || stages.verdicts(&dealt(nth)))).collect();
        let dealt: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
        let mut hands: Vec<_> = dealt.into_iter().map(Vec::into_iter).collect();
        let panicked = || Err("it could not be judged".to_owned());
        (0..lines.len()).map(|at| hands[at % threads].next().unwrap_or_else(panicked)).collect()
    })
}

impl Stages {
    /// In order; those that are doubtful go through stage 2 together.
    fn verdicts(&self, lines: &[&String]) -> Vec<Result<String, String>> {
        let expected = |error| format!("expected {{\"text\": \"…\"}}: {error}");
        let asked: Vec<Result<Asked, String>> =
            lines.iter().map(|line| serde_json::from_str(line).map_err(expected)).collect();
        let first = |asked: &Asked| self.linear.score(&Normalised::of(&asked.text));
        let firsts: Vec<_> = asked.iter().map(|asked| asked.as_ref().ok().map(first)).collect();
        let doubtful = |first: &guard::Score| self.every || first.toxic >= Linear::DOUBTFUL;
        let texts = asked.iter().zip(&firsts).filter(|(_, first)| first.as_ref().is_some_and(doubtful));
        let texts: Vec<&str> = texts.filter_map(|(asked, _)| Some(asked.as_ref().ok()?.text.as_str())).collect();
        let mut seconds = match self.encoder.score(&texts) {
            Ok(scores) => scores.into_iter(),
            Err(error) => return lines.iter().map(|_| Err(format!("stage 2: {error}"))).collect(),
        };
        let verdict = |(asked, first): (Result<Asked, String>, Option<guard::Score>)| {
            asked?;
            let first = first.ok_or("it was not read")?;
            let second = if doubtful(&first) { seconds.next() } else { None };
            serde_json::to_string(&Verdict::of(&first, second)).map_err(|error| error.to_string())
        };
        asked.into_iter().zip(firsts).map(verdict).collect()
    }
}

impl Verdict {
    fn of(first: &guard::Score, second: Option<EncoderScore>) -> Self {
        let (score, threshold) = match second {
            Some(second) => (combined(first.toxic, second.toxic), THRESHOLD),
            None => (first.toxic, Linear::THRESHOLD),
        };
        // Given that it is toxic; who has read more knows more of the kind, where it tells it.
        let given = |category| match second.and_then(|second| Some((second.of(category)?, second.toxic))) {
            Some((likely, toxic)) => likely / toxic.max(f32::MIN_POSITIVE),
            None => first.of(category) / first.toxic.max(f32::MIN_POSITIVE),
        };
        let named = |category: Category| (category.as_str().to_owned(), (score * given(category)).into());
        Self {
            score,
            stage1: first.toxic,
            stage2: second.map(|second| second.toxic),
            categories: Category::ALL.into_iter().map(named).collect(),
            action: if score >= threshold { "block" } else { "pass" },
        }
    }
}
