use super::{Action, Entry, Hit, ListError, Lists, Pattern};
use crate::Normalised;

fn entry(pattern: Pattern, action: Action) -> Entry {
    Entry { pattern, action, category: format!("{action:?}").to_lowercase() }
}

fn word(word: &str) -> Entry {
    entry(Pattern::Word(word.to_owned()), Action::Block)
}

fn allow(word: &str) -> Entry {
    entry(Pattern::Word(word.to_owned()), Action::Allow)
}

fn regex(pattern: &str) -> Entry {
    entry(Pattern::Regex(pattern.to_owned()), Action::Redact)
}

fn lists(entries: impl IntoIterator<Item = Entry>) -> Lists {
    Lists::new(entries).expect("the lists are sound")
}

fn find<'text>(lists: &Lists, text: &'text str) -> Vec<&'text str> {
    lists.find(text, &Normalised::of(text)).into_iter().map(|hit| &text[hit.span]).collect()
}

#[test]
fn words_within_words_are_not_found() {
    let lists = lists(["ass", "cunt", "sex", "tit", "cock", "hell", "anal", "rape", "fag", "kill", "bob"].map(word));
    for innocent in [
        "Scunthorpe",
        "assassin",
        "class",
        "Essex",
        "a classic assessment",
        "The title of Hitchcock's shell analysis",
        "grapes",
        "skill",
        "fagot",
        "as a boob",
        "He passes the mass",
        "c l a s s",
        "cl4$$",
        "as s",
        "E s s e x",
    ] {
        assert!(find(&lists, innocent).is_empty(), "{innocent}: {:?}", find(&lists, innocent));
    }
}

#[test]
fn a_word_is_found_with_its_place_action_and_category() {
    let lists = lists([word("nothing"), word("ass")]);
    let text = "You ASS, you.";
    let hits = lists.find(text, &Normalised::of(text));
    assert_eq!(hits, [Hit { span: 4..7, action: Action::Block, category: "block", entry: 1 }]);
}

#[test]
fn disguises_are_found_and_repeated_letters_are_told_apart() {
    let lists = lists(["ass", "slut", "fuck", "asshole"].map(word));
    assert_eq!(find(&lists, "aSSSSS @$s a$$ ass2 a s s"), ["aSSSSS", "@$s", "a$$", "ass", "a s s"]);
    assert_eq!(find(&lists, "s1ut, $lut: 5lu7"), ["s1ut", "$lut"]);
    assert_eq!(find(&lists, "f**k f*ck a f u c k i"), ["f**k", "f*ck", "f u c k"]);
    assert_eq!(find(&lists, "assshole as5hole @sshole"), ["assshole", "as5hole", "@sshole"]);
    assert_eq!(find(&lists, "@fuck u r a s s"), ["a s s", "fuck"]);
}

#[test]
fn phrases_match_over_whatever_stands_between_their_words() {
    let lists = lists([word("kill yourself"), word("shut-up")]);
    assert_eq!(
        find(&lists, "Kill\n yourself! kill-yourself k1ll, yourself"),
        ["Kill\n yourself", "kill-yourself", "k1ll, yourself"]
    );
    assert_eq!(find(&lists, "SHUT UP"), ["SHUT UP"]);
    assert!(find(&lists, "overkill yourself; kill yourselves").is_empty());
}

#[test]
fn a_stem_may_go_on() {
    let lists = lists([entry(Pattern::Stem("scam".to_owned()), Action::Redact)]);
    assert_eq!(find(&lists, "scammers scam, no-scam, ascam, s-cam"), ["scammers", "scam", "scam"]);
}

#[test]
fn what_is_allowed_takes_back_what_lies_within_it() {
    let lists = lists([word("ass"), allow("pack ass"), regex("h.ll"), allow("hell's kitchen")]);
    assert_eq!(find(&lists, "a pack ass, an ass"), ["ass"]);
    assert!(find(&lists, "in hell's Kitchen").is_empty());
    assert_eq!(find(&lists, "hall"), ["hall"]);
}

#[test]
fn regular_expressions_read_the_original_and_empty_matches_do_not_count() {
    let lists = lists([regex(r"(?i)order \d{3}"), regex("x*")]);
    assert_eq!(find(&lists, "Order 123, 0rder 123"), ["Order 123"]);
}

#[test]
fn what_is_wrong_is_said_with_the_entry() {
    let error = |entries: Vec<Entry>| Lists::new(entries).expect_err("it is wrong").to_string();
    let bad = error(vec![word("fine"), regex("(open")]);
    assert!(bad.starts_with("entry 1: the regular expression \"(open\": ") && bad.contains("unclosed group"), "{bad}");
    let big = error(vec![regex(r"\w{500}")]);
    assert!(big.contains("entry 0") && big.contains("size limit"), "{big}");
    assert_eq!(
        error(vec![word("c++")]),
        "entry 0: \"c++\" has '+' in it, which is not part of a word; write a regular expression"
    );
    assert!(error(vec![word("\u{200b} ")]).contains("nothing to look for"));
    assert_eq!(error(vec![word(&"a".repeat(2000))]), "entry 0: 2000 bytes, and 128 at most");
    assert_eq!(error(vec![regex(&"a".repeat(2000))]), "entry 0: 2000 bytes, and 1024 at most");
    let many = (0..300).map(|_| regex("a")).collect();
    assert_eq!(error(many), ListError::TooManyRegexes { given: 300 }.to_string());
}

#[test]
fn after_very_many_matches_the_rest_counts_as_one() {
    let text = "ab".repeat(1500);
    let hits = lists([regex("a")]);
    let hits = hits.find(&text, &Normalised::of(&text));
    assert_eq!(hits.len(), Lists::MAX_MATCHES + 1);
    assert_eq!(hits[Lists::MAX_MATCHES].span, 1999..3000);
}

#[test]
fn no_lists_find_nothing() {
    let lists = lists([]);
    assert!(lists.is_empty() && find(&lists, "anything").is_empty());
}
