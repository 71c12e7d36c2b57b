//! Whatever the chunks: the same bytes out, the same found, and of what is blocked
//! not a byte.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::moderation::{Classifier, Guard, Mode, PoolConfig, Rules, Stage2};
use crate::telemetry::Metrics;
use crate::types::{Delta, Extra, FinishReason, TokenLogprob, TopLogprob, Usage};
use proptest::prelude::*;
use serde_json::json;
use tenantry_guard::{Action as Listed, Entry, Lists, Pattern};

/// What came out, as a client would see it.
#[derive(Debug, Clone, PartialEq, Default)]
struct Seen {
    text: String,
    tools: String,
    findings: Vec<Finding>,
    finish: Option<FinishReason>,
    usage: bool,
}

/// Doubts what says "fool", and nothing else.
struct Fools;

impl Classifier for Fools {
    fn score(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
        Ok(texts.iter().map(|text| if text.to_lowercase().contains("fool") { 0.999 } else { 0.001 }).collect())
    }
}

fn entry(pattern: Pattern, action: Listed) -> Entry {
    Entry { pattern, action, category: "house".to_owned() }
}

fn lists() -> Arc<Lists> {
    let word = |word: &str, action| entry(Pattern::Word(word.to_owned()), action);
    let lists = Lists::new([
        word("xyzzy", Listed::Block),
        word("open the pod bay doors", Listed::Block),
        word("plugh", Listed::Redact),
        word("twisty little maze", Listed::Redact),
        word("my xyzzy shop", Listed::Allow),
        entry(Pattern::Regex("[0-9]{4}-[0-9]{4}".to_owned()), Listed::Redact),
    ]);
    Arc::new(lists.expect("the lists are sound"))
}

/// With no lists, and time for every test.
fn policy(change: impl FnOnce(&mut Output)) -> Arc<Policy> {
    let mut output = Output { rules: Rules::default(), mode: Mode::Strict, hold: Duration::from_secs(3600) };
    change(&mut output);
    Arc::new(Policy { prompt: None, system_prompts: false, output: Some(output) })
}

fn guard(stage2: bool) -> Guard {
    let stage2 = stage2.then(|| {
        let patient = PoolConfig { wait: Duration::from_secs(3600), ..PoolConfig::default() };
        Stage2::start(Arc::new(Fools), patient)
    });
    Guard::new(stage2, HashMap::new(), Arc::new(Metrics::default()))
}

impl Seen {
    fn add(&mut self, event: Event) {
        match event {
            Event::Delta(delta) => {
                assert_eq!(self.finish, None, "nothing follows the end");
                self.text.push_str(&delta.text);
                if let Some(extra) = delta.extra {
                    let call = &extra.delta["tool_calls"][0]["function"]["arguments"];
                    self.tools.push_str(call.as_str().expect("arguments"));
                }
                self.findings.extend(delta.findings);
            }
            Event::Finished { reason, .. } => self.finish = Some(reason),
            Event::Usage(_) => self.usage = true,
        }
    }
}

async fn drain(guard: &mut OutputGuard, seen: &mut Seen) {
    while let Poll::Ready(event) = futures_util::poll!(std::future::poll_fn(|cx| guard.poll(cx))) {
        seen.add(event);
    }
}

/// Runs chunks through; the end is waited for.
async fn run(judge: &Guard, policy: &Arc<Policy>, chunks: &[&str]) -> Seen {
    let mut guard = judge.output(policy, 1, Vec::new()).expect("the policy looks at answers");
    let mut seen = Seen::default();
    for chunk in chunks {
        guard.push(Event::Delta(Delta { text: (*chunk).to_owned(), tokens: 1, ..Delta::default() }));
        drain(&mut guard, &mut seen).await;
    }
    guard.push(Event::Finished { choice: 0, reason: FinishReason::Stop });
    guard.push(Event::Usage(Usage::default()));
    guard.end();
    while !guard.is_done() {
        seen.add(std::future::poll_fn(|cx| guard.poll(cx)).await);
    }
    seen
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

/// Answers, with what is blocked, redacted or doubtful in them and around them.
fn answer() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "The garden ",
        "is lovely in ",
        "the morning. ",
        "Rabbits eat hay",
        " and grass, ",
        "so they do",
        ".\n",
        "! ",
        "you ",
        "stupid ",
        "fool",
        "idiot",
        " xyzzy ",
        "x.y.z.z.y",
        "XYZZY",
        " plugh",
        "open the ",
        "pod bay ",
        "doors",
        "my ",
        "shop",
        "twisty ",
        "little ",
        "maze ",
        "1234-",
        "5678",
        "1",
        "-",
        "é",
        "привет ",
        "你好",
        "👍🏽",
        "\u{200b}",
        "kill ",
        "the process ",
        "a",
        " ",
        "f o o l ",
        "I ",
        "hate ",
        "mondays",
        "damn ",
    ]);
    prop::collection::vec(parts, 1..60).prop_map(|parts| parts.concat())
}

fn cut(text: &str, mut at: Vec<prop::sample::Index>) -> Vec<&str> {
    let mut places: Vec<usize> = at.drain(..).map(|at| text.floor_char_boundary(at.index(text.len() + 1))).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_chunks_the_same_comes_out(
        text in answer(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        redacts in any::<bool>(),
    ) {
        let policy = policy(|output| {
            output.rules.lists = lists();
            output.rules.action = if redacts { Action::Redact } else { Action::Block };
        });
        for stage2 in [false, true] {
            let judge = guard(stage2);
            let (whole, parts) = block_on(async {
                (run(&judge, &policy, &[&text]).await, run(&judge, &policy, &cut(&text, at.clone())).await)
            });
            prop_assert_eq!(&whole, &parts);
            prop_assert!(whole.finish.is_some());
            prop_assert_eq!(whole.usage, true);
        }
    }

    #[test]
    fn of_what_is_blocked_no_byte_is_sent(
        before in answer(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
    ) {
        let before = before.replace(['x', 'X'], "");
        let policy = policy(|output| {
            let words = ["xyzzy", "xyzzy open the pod bay doors"].map(|word| Pattern::Word(word.to_owned()));
            let lists = Lists::new(words.map(|word| entry(word, Listed::Block))).expect("the lists are sound");
            output.rules = Rules { thresholds: [None; 4], lists: Arc::new(lists), ..Rules::default() };
        });
        let text = format!("{before} xyzzy, open the pod bay doors");
        let seen = block_on(run(&guard(false), &policy, &cut(&text, at)));
        prop_assert_eq!(seen.finish, Some(FinishReason::ContentFilter));
        prop_assert!(text.starts_with(&seen.text) && seen.text.len() <= before.len() + 1, "{}", seen.text);
    }

    #[test]
    fn what_is_let_through_is_what_came(words in prop::collection::vec("[a-e]{1,9}", 1..80), at in prop::collection::vec(any::<prop::sample::Index>(), 0..80)) {
        let text = words.join(" ");
        let off = policy(|output| output.rules = Rules { thresholds: [Some(1.1); 4], ..Rules::default() });
        let seen = block_on(run(&guard(false), &off, &cut(&text, at)));
        prop_assert_eq!(seen, Seen { text, finish: Some(FinishReason::Stop), usage: true, ..Seen::default() });
    }

    #[test]
    fn what_waits_never_grows_past_its_bound(text in answer(), size in 1_usize..40) {
        let policy = policy(|output| output.rules.lists = lists());
        block_on(async {
            let mut guard = guard(false).output(&policy, 1, Vec::new()).expect("it looks at answers");
            let mut seen = Seen::default();
            let chars: Vec<char> = text.repeat(8).chars().collect();
            for chunk in chars.chunks(size) {
                guard.push(Event::Delta(Delta { text: chunk.iter().collect(), ..Delta::default() }));
                drain(&mut guard, &mut seen).await;
                // A window of words and the piece that follows it.
                assert!(guard.choices[0].held_bytes() <= 384 + 2 * 256 + 4 * size, "{}", guard.choices[0].held_bytes());
            }
        });
    }
}

#[tokio::test]
async fn harmless_words_are_sent_as_soon_as_the_next_has_begun() {
    let mut guard = guard(false).output(&policy(|_| {}), 1, Vec::new()).expect("it looks at answers");
    let mut seen = Seen::default();
    let mut after = Vec::new();
    for chunk in ["The", " libr", "ary", " opens", " at", " nine"] {
        guard.push(Event::Delta(Delta { text: chunk.to_owned(), ..Delta::default() }));
        drain(&mut guard, &mut seen).await;
        after.push(seen.text.clone());
    }
    assert_eq!(after, ["", "The", "The", "The library", "The library opens", "The library opens at"]);
}

#[tokio::test]
async fn a_doubtful_word_waits_for_those_that_decide() {
    let judge = guard(true);
    let fine = run(&judge, &policy(|_| {}), &["Kill", " the", " process", " with", " SIGTERM", "."]).await;
    assert_eq!((fine.text.as_str(), fine.finish), ("Kill the process with SIGTERM.", Some(FinishReason::Stop)));
    let stopped =
        run(&judge, &policy(|_| {}), &["Rabbits eat hay. ", "You", " stupid", " f", "ool", "!", " Bye."]).await;
    assert_eq!((stopped.text.as_str(), stopped.finish), ("Rabbits eat hay. You ", Some(FinishReason::ContentFilter)));
    let [finding] = stopped.findings.as_slice() else { panic!("{:?}", stopped.findings) };
    assert_eq!((finding.side, finding.action, &*finding.category), (Side::Output, Action::Block, "insult"));
    let span = finding.span.clone().expect("a span");
    assert!("Rabbits eat hay. You stupid fool!"[span].contains("fool"));
}

#[tokio::test]
async fn a_reader_waits_no_longer_than_the_hold() {
    const HOLD: Duration = Duration::from_millis(50);
    let policy = policy(|output| output.hold = HOLD);
    let mut guard = guard(true).output(&policy, 1, Vec::new()).expect("it looks at answers");
    let mut seen = Seen::default();
    guard.push(Event::Delta(Delta { text: "Kill all stupid mosquitoes ".to_owned(), ..Delta::default() }));
    guard.push(Event::Delta(Delta { text: "w".to_owned(), ..Delta::default() }));
    drain(&mut guard, &mut seen).await;
    assert_eq!(seen.text, "", "the words are doubtful, and not yet decided");
    seen.add(std::future::poll_fn(|cx| guard.poll(cx)).await);
    assert_eq!(seen.text, "Kill all stupid mosquitoes ", "an unfinished word is not sent");
}

#[tokio::test]
async fn tool_calls_are_judged_in_their_fields() {
    let call = |arguments: &str| {
        let delta = json!({ "tool_calls": [{ "index": 0, "function": { "arguments": arguments } }] });
        let serde_json::Value::Object(delta) = delta else { panic!("an object") };
        let extra = Some(Box::new(Extra { delta, ..Extra::default() }));
        Event::Delta(Delta { extra, ..Delta::default() })
    };
    for (action, tools, finish) in [
        (Action::Block, "", FinishReason::ContentFilter),
        (Action::Redact, "{\"say\": \"the [redacted] word\"}", FinishReason::ToolCalls),
    ] {
        let policy = policy(|output| {
            let listed = if action == Action::Block { Listed::Block } else { Listed::Redact };
            let lists = Lists::new([entry(Pattern::Word("plover".to_owned()), listed)]);
            output.rules.lists = Arc::new(lists.expect("sound"));
        });
        let mut guard = guard(false).output(&policy, 1, Vec::new()).expect("it looks at answers");
        let mut seen = Seen::default();
        guard.push(Event::Delta(Delta { text: "The library opens".to_owned(), ..Delta::default() }));
        drain(&mut guard, &mut seen).await;
        for part in ["{\"say\": \"the pl", "over word\"}"] {
            guard.push(call(part));
            drain(&mut guard, &mut seen).await;
        }
        guard.push(Event::Finished { choice: 0, reason: FinishReason::ToolCalls });
        guard.end();
        drain(&mut guard, &mut seen).await;
        assert_eq!((seen.tools.as_str(), seen.finish), (tools, Some(finish)));
        // Where the call is blocked, the word that it cut through had no time to end.
        let text = if action == Action::Block { "The library" } else { "The library opens" };
        assert_eq!(seen.text.trim_end(), text);
    }
}

#[tokio::test]
async fn sent_at_once_it_is_cut_when_something_is_found() {
    let policy = policy(|output| {
        output.rules.lists = lists();
        output.mode = Mode::Async;
    });
    let mut guard = guard(false).output(&policy, 1, Vec::new()).expect("it looks at answers");
    let mut seen = Seen::default();
    let mut after = Vec::new();
    for chunk in ["Rab", "bits. xy", "zzy ", "is here", " and on"] {
        guard.push(Event::Delta(Delta { text: chunk.to_owned(), ..Delta::default() }));
        drain(&mut guard, &mut seen).await;
        after.push(seen.text.clone());
    }
    assert_eq!(after[..3], ["Rab", "Rabbits. xy", "Rabbits. xyzzy "]);
    assert_eq!(seen.finish, Some(FinishReason::ContentFilter));
    assert!(guard.has_stopped() && !seen.text.contains("and on"));
}

#[tokio::test]
async fn one_choice_is_stopped_and_the_others_go_on() {
    let policy = policy(|output| output.rules.lists = lists());
    let mut guard = guard(false).output(&policy, 2, Vec::new()).expect("it looks at answers");
    let mut ends = Vec::new();
    for (choice, text) in [(0, "say xyzzy now "), (1, "say please "), (0, "more "), (7, "nobody's ")] {
        guard.push(Event::Delta(Delta { choice, text: text.to_owned(), ..Delta::default() }));
    }
    for choice in [0, 1] {
        guard.push(Event::Finished { choice, reason: FinishReason::Length });
    }
    guard.push(Event::Usage(Usage::default()));
    let mut texts = [String::new(), String::new()];
    while let Poll::Ready(event) = futures_util::poll!(std::future::poll_fn(|cx| guard.poll(cx))) {
        match event {
            Event::Delta(delta) => texts[delta.choice as usize].push_str(&delta.text),
            Event::Finished { choice, reason } => ends.push((choice, reason)),
            Event::Usage(_) => ends.push((9, FinishReason::Stop)),
        }
    }
    // The lists hold as much as their regular expression may need.
    assert_eq!(texts, ["sa", "say please "]);
    assert_eq!(
        ends,
        [(0, FinishReason::ContentFilter), (1, FinishReason::Length), (9, FinishReason::Stop)],
        "usage comes last"
    );
}

#[tokio::test]
async fn log_probabilities_do_not_run_ahead_of_their_text() {
    let token = |token: &str| TokenLogprob {
        token: TopLogprob { bytes: token.as_bytes().to_vec(), logprob: -0.1 },
        top: Vec::new(),
    };
    // The engine holds " xyzzy" back, which may begin a stop string, and tells its token.
    let events = [("say", " say"), (" it", " it"), ("", " xyzzy"), (" xyzzy now", " now"), (" and", " and")];
    let lists = Lists::new([entry(Pattern::Word("xyzzy".to_owned()), Listed::Block)]).expect("sound");
    let policy = policy(|output| output.rules.lists = Arc::new(lists));
    let mut guard = guard(false).output(&policy, 1, Vec::new()).expect("it looks at answers");
    let mut spelled = String::new();
    for (text, said) in events {
        let logprobs = vec![token(said)];
        guard.push(Event::Delta(Delta { text: text.to_owned(), tokens: 1, logprobs, ..Delta::default() }));
        while let Poll::Ready(event) = futures_util::poll!(std::future::poll_fn(|cx| guard.poll(cx))) {
            if let Event::Delta(delta) = event {
                spelled.push_str(&delta.text);
                delta.logprobs.iter().for_each(|it| spelled.push_str(&String::from_utf8_lossy(&it.token.bytes)));
            }
        }
    }
    assert!(guard.has_stopped() && spelled.contains("say") && !spelled.contains("xyzzy"), "{spelled}");
}

fn reasoning(text: &str) -> Event {
    let serde_json::Value::Object(delta) = json!({ "reasoning_content": text }) else { panic!("an object") };
    Event::Delta(Delta { extra: Some(Box::new(Extra { delta, ..Extra::default() })), ..Delta::default() })
}

fn content(text: &str) -> Event {
    Event::Delta(Delta { text: text.to_owned(), ..Delta::default() })
}

/// What is said by now, reasoning in brackets.
async fn said(guard: &mut OutputGuard) -> String {
    let mut said = String::new();
    while let Poll::Ready(event) = futures_util::poll!(std::future::poll_fn(|cx| guard.poll(cx))) {
        let Event::Delta(delta) = event else { continue };
        said.push_str(&delta.text);
        if let Some(extra) = delta.extra {
            said.push_str(&format!("[{}]", extra.delta["reasoning_content"].as_str().expect("a text")));
        }
    }
    said
}

#[tokio::test]
async fn a_word_that_another_text_cuts_through_is_judged_as_a_whole() {
    let lists = Lists::new([entry(Pattern::Word("plover".to_owned()), Listed::Block)]).expect("sound");
    let policy = policy(|output| output.rules.lists = Arc::new(lists));
    let mut guard = guard(false).output(&policy, 1, Vec::new()).expect("it looks at answers");
    let mut all = String::new();
    for event in [content("I say plo"), reasoning("hm. "), content("ver and"), reasoning("more. ")] {
        guard.push(event);
        all.push_str(&said(&mut guard).await);
    }
    assert!(guard.has_stopped() && all.trim_end() == "I say", "{all}");
}

#[tokio::test(start_paused = true)]
async fn a_word_that_was_cut_through_and_never_goes_on_delays_others_no_longer_than_any_other() {
    let hold = Duration::from_millis(300);
    let mut guard =
        guard(false).output(&policy(|output| output.hold = hold), 1, Vec::new()).expect("it looks at answers");
    guard.push(reasoning("They ask for a greeting"));
    guard.push(content("Hello there, "));
    assert_eq!(said(&mut guard).await, "");
    tokio::time::advance(hold).await;
    assert_eq!(said(&mut guard).await, "[They ask for a greeting]Hello ");
    // Where it ended with its sentence, nothing has to wait.
    guard.push(content("you.\n"));
    guard.push(reasoning("Done."));
    guard.push(content(" Bye now."));
    let rest = said(&mut guard).await;
    assert!(rest.starts_with("there, you.\n[Done.]"), "{rest}");
}

#[tokio::test]
async fn text_that_waits_behind_another_is_kept_until_it_is_sent() {
    let judge = guard(true);
    let mut guard = judge.output(&policy(|_| {}), 1, Vec::new()).expect("it looks at answers");
    let long = "The garden is lovely in the morning. ".repeat(120);
    guard.push(reasoning("Kill all stupid mosquitoes."));
    for part in [long.as_str(), "And so", " it", " goes."] {
        guard.push(Event::Delta(Delta { text: part.to_owned(), ..Delta::default() }));
    }
    guard.push(Event::Finished { choice: 0, reason: FinishReason::Stop });
    guard.end();
    let mut text = String::new();
    while !guard.is_done() {
        if let Event::Delta(delta) = std::future::poll_fn(|cx| guard.poll(cx)).await {
            text.push_str(&delta.text);
        }
    }
    assert_eq!(text, long + "And so it goes.");
}
