//! What the guard costs for a text, on one core: normalising it, stage 0 with a
//! thousand words, stage 1, and all together, in microseconds; and stage 2, by how
//! many texts it is given at once, in milliseconds. Asserts nothing.
//!
//! `cargo run --release -p tenantry-bench-guard`

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use tenantry_guard::{Action, Encoder, Entry, Linear, Lists, Normalised, Pattern, settled};

const PROSE: &str = "The committee met on Tuesday to discuss the new library. Members heard a report on the roof, which \
    needs repair before winter, and on the opening hours of the reading room, and \"asked\" the treasurer for 2 figures.";
const TWEET: &str = "@user LOL youuuu are such an 1diot, u r n0t even g00d at th1s sh!t 😂🖕 go f.u.c.k y0urself & ur d4mn \
    fam1ly… whаt а lоsеr!!!! \u{200b}seriously, shut up already & leave us alone pls, k thx byeee #rekt";
const RUSSIAN: &str = "Комитет собрался во вторник, чтобы обсудить новую библиотеку. Члены комитета заслушали доклад о \
    крыше, которую нужно починить до зимы, и о часах работы читального зала, и попросили цифры.";

/// Each is measured for so long, in rounds of a thousand; the fastest round counts,
/// since whatever else runs on the machine only ever makes one slower.
const LONG: Duration = Duration::from_millis(700);

fn main() -> std::io::Result<()> {
    let lists = Lists::new((0..1000).map(entry)).expect("the lists are sound");
    let model = Linear::embedded();
    let mut table = String::from("µs a text                    chars  normalise  lists  stage 1    all\n");
    let long = PROSE.repeat(50);
    let hostile = "u r a s s l l 1 1 f u c k @$ ".repeat(350);
    for (name, text) in [
        ("200 characters of prose", cut(PROSE, 200)),
        ("200 of a hostile tweet", cut(TWEET, 200)),
        ("200 of Russian", cut(RUSSIAN, 200)),
        ("10 000 of prose", cut(&long, 10_000)),
        ("10 000 of disguises", cut(&hostile, 10_000)),
        ("10 000 of one letter", "a".repeat(10_000)),
        ("10 000 of single letters", "a b ".repeat(2_500)),
    ] {
        let normalised = Normalised::of(&text);
        let times = [
            fastest(|| Normalised::of(&text)),
            fastest(|| lists.find(&text, &normalised)),
            fastest(|| model.score(&normalised)),
            fastest(|| {
                let text = black_box(text.as_str());
                let normalised = Normalised::of(text);
                (lists.find(text, &normalised).len(), model.score(&normalised))
            }),
        ];
        let _ = write!(table, "{name:<28} {:>6}", text.chars().count());
        for (time, width) in times.into_iter().zip([10, 6, 8, 6]) {
            let _ = write!(table, " {:>width$.2}", time.as_secs_f64() * 1e6);
        }
        table.push('\n');
    }
    let settle = fastest(|| settled(&long, long.len()));
    let carry = Normalised::of(&cut(TWEET, 200));
    let carriers = fastest(|| model.carriers(&carry, Linear::THRESHOLD));
    let _ = writeln!(table, "settled: {:.2}", settle.as_secs_f64() * 1e6);
    let _ = writeln!(table, "carriers of the tweet: {:.2}", carriers.as_secs_f64() * 1e6);
    table.push_str(&stage2());
    std::io::stdout().write_all(table.as_bytes())
}

/// By calls of so many texts, and by so many threads that call at once.
fn stage2() -> String {
    let encoder = Encoder::embedded().expect("the embedded model is sound");
    let mut table = String::from("\nstage 2                        texts  ms a text  texts/s\n");
    for (name, chars) in
        [("50 characters of prose", 50), ("200 characters of prose", 200), ("1 000 characters of prose", 1000)]
    {
        let text = cut(&PROSE.repeat(5), chars);
        for texts in [1, 4, 16] {
            let texts = vec![text.as_str(); texts];
            let time = fastest(|| encoder.score(&texts)).as_secs_f64() / texts.len() as f64;
            let _ = writeln!(table, "{name:<28} {:>7} {:>10.2} {:>8.0}", texts.len(), time * 1e3, 1.0 / time);
        }
    }
    table
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// Words that are not in the texts, so that the automaton is what is measured, and a
/// dozen regular expressions.
fn entry(number: usize) -> Entry {
    let letter = |shift: usize| char::from(b'a' + ((number >> (shift * 3)) % 8 + shift) as u8);
    let pattern = match number % 80 {
        0 => Pattern::Regex(format!(r"(?i)\bcontract {number}-\d+\b")),
        _ => Pattern::Word(format!("{}{}{}qu{}", letter(0), letter(1), letter(2), number % 7)),
    };
    Entry { pattern, action: Action::Block, category: "bench".to_owned() }
}

fn fastest<T>(mut work: impl FnMut() -> T) -> Duration {
    let began = Instant::now();
    let mut best = Duration::MAX;
    let mut rounds = 1;
    while began.elapsed() < LONG {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(work());
        }
        best = best.min(start.elapsed() / rounds);
        rounds = if best > Duration::from_micros(100) { 3 } else { 100 };
    }
    best
}
