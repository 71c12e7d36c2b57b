//! What holds for any text.

use proptest::prelude::*;
use tenantry_guard::{Action, Entry, Linear, Lists, Normalised, Pattern, features, settled};

/// Texts that are likely to trip the rules, and any others.
fn text() -> impl Strategy<Value = String> {
    let tricky = prop::sample::select(vec![
        "a",
        "s",
        "f",
        "u",
        "l",
        "1",
        "5",
        "0",
        "$",
        "@",
        "!",
        "*",
        "'",
        ".",
        "-",
        "_",
        " ",
        "  ",
        "\n",
        "\t",
        "word",
        "ok",
        "ß",
        "é",
        "\u{301}",
        "\u{200b}",
        "\u{fe0f}",
        "🐒",
        "🏿",
        "👨\u{200d}👩",
        "ﬁ",
        "ǅ",
        "İ",
        "ſ",
        "К",
        "σ",
        "한",
        "\u{0}",
        "\"",
        "not",
        "U.S.",
        "lll",
        "…",
        "\u{a8}",
        "K",
        "🇩🇪",
    ]);
    prop_oneof![
        3 => prop::collection::vec(tricky, 0..40).prop_map(|parts| parts.concat()),
        1 => any::<String>(),
        1 => "[a-z '.!$@0-9]{0,60}",
    ]
}

fn word(pattern: &str, action: Action) -> Entry {
    Entry { pattern: Pattern::Word(pattern.to_owned()), action, category: "test".to_owned() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_offset_maps_back_to_characters_in_order(text in text()) {
        let normalised = Normalised::of(&text);
        let mut last = 0..0;
        for (at, ch) in normalised.text().char_indices() {
            let range = normalised.original(at..at + ch.len_utf8());
            prop_assert!(!range.is_empty() && text.get(range.clone()).is_some());
            prop_assert!(range.start >= last.start && range.end >= last.end);
            last = range;
        }
        prop_assert_eq!(normalised.original_len(), text.len());
        for at in 0..=normalised.text().len() + 1 {
            for end in at..=normalised.text().len() + 1 {
                prop_assert!(text.get(normalised.original(at..end)).is_some());
            }
        }
    }

    #[test]
    fn what_a_range_stands_for_reads_the_same_by_itself(words in prop::collection::vec("[a-z]{2,8}", 1..6), at in 0..6_usize) {
        let at = at % words.len();
        let text = words.join(" ");
        let start = words[..at].iter().map(|word| word.len() + 1).sum::<usize>();
        let normalised = Normalised::of(&text);
        let alone = Normalised::of(&words[at]);
        let found = normalised.text().match_indices(alone.text());
        let mut found = found.map(|(at, _)| normalised.original(at..at + alone.text().len()));
        prop_assert!(found.any(|range| range == (start..start + words[at].len())));
    }

    #[test]
    fn it_is_in_normal_form_afterwards(text in text()) {
        let once = Normalised::of(&text);
        // Lower case, one space, no run of three letters.
        let ascii: Vec<char> = once.text().chars().collect();
        prop_assert!(!once.text().contains("  "));
        prop_assert!(!once.text().chars().any(|ch| ch.is_ascii_uppercase() || ch.is_control()));
        prop_assert!(!ascii.windows(3).any(|three| three[0].is_ascii_alphabetic() && three.iter().all(|ch| *ch == three[0])));
    }

    /// Of plain words; a disguise within a disguise may take a second reading.
    #[test]
    fn plain_words_are_left_as_they_are(words in prop::collection::vec("[b-df-hj-km-z]{0,3}[a-z][b-d]", 0..12)) {
        let once = Normalised::of(&words.join(" "));
        let twice = Normalised::of(once.text());
        prop_assert_eq!(once.text(), twice.text());
    }

    #[test]
    fn pieces_cut_where_it_is_settled_are_the_whole(text in text(), at in 0..400_usize) {
        let cut = settled(&text, at.min(text.len()));
        let (left, right) = text.split_at(cut);
        let (whole, left, right) = (Normalised::of(&text), Normalised::of(left), Normalised::of(right));
        prop_assert_eq!(whole.text(), format!("{}{}", left.text(), right.text()));
        let middle = left.text().len();
        for at in 0..right.text().len() {
            let there = right.original(at..at + 1);
            prop_assert_eq!(whole.original(middle + at..middle + at + 1), there.start + cut..there.end + cut);
        }
    }

    #[test]
    fn verdicts_are_on_characters_and_never_panic(text in text(), threshold in 0.01_f32..1.0) {
        let lists = Lists::new([
            word("ass", Action::Block),
            word("full as", Action::Redact),
            word("word", Action::Allow),
            Entry { pattern: Pattern::Regex("a.?".to_owned()), action: Action::Block, category: String::new() },
        ]).expect("the lists are sound");
        let normalised = Normalised::of(&text);
        for hit in lists.find(&text, &normalised) {
            prop_assert!(!hit.span.is_empty() && text.get(hit.span.clone()).is_some());
            prop_assert_ne!(hit.action, Action::Allow);
        }
        let model = Linear::embedded();
        let score = model.score(&normalised);
        prop_assert!((0.0..=1.0).contains(&score.toxic));
        prop_assert!(score.categories().all(|(_, likely)| (0.0..=score.toxic).contains(&likely)));
        let carriers = model.carriers(&normalised, threshold);
        prop_assert_eq!(carriers.is_empty(), score.toxic < threshold);
        for pair in carriers.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start);
        }
        for carrier in carriers {
            prop_assert!(!carrier.is_empty() && text.get(carrier).is_some());
        }
        prop_assert!(features(&normalised).len() <= 16 * (normalised.text().len() + 1));
    }

    #[test]
    fn a_word_of_a_list_is_found_however_it_is_written(
        word in prop::sample::select(vec!["fuck", "shit", "asshole", "bitch", "faggot", "slut", "bullshit", "kill"]),
        disguise in disguise(),
        before in prop::sample::select(vec!["", "oh ", "you, ", "(", "the_", "so... "]),
        after in prop::sample::select(vec!["", " you", "!", ", no", ")", "'s", "_off"]),
    ) {
        let written = disguise.apply(word);
        let text = format!("{before}{written}{after}");
        let lists = Lists::new([self::word(word, Action::Block)]).expect("the list is sound");
        let hits = lists.find(&text, &Normalised::of(&text));
        prop_assert_eq!(hits.len(), 1, "{}", text);
        prop_assert_eq!(hits[0].span.clone(), before.len()..before.len() + written.len());
    }
}

#[derive(Debug, Clone)]
enum Disguise {
    Upper,
    Fullwidth,
    Cyrillic,
    Invisible(usize),
    Marks,
    Leet,
    Stretched(usize, usize),
    Spaced(&'static str),
    Masked,
}

fn disguise() -> impl Strategy<Value = Disguise> {
    prop_oneof![
        Just(Disguise::Upper),
        Just(Disguise::Fullwidth),
        Just(Disguise::Cyrillic),
        (1..8_usize).prop_map(Disguise::Invisible),
        Just(Disguise::Marks),
        Just(Disguise::Leet),
        (0..8_usize, 3..9_usize).prop_map(|(at, times)| Disguise::Stretched(at, times)),
        prop::sample::select(vec![" ", ".", "-", "_", " - ", "*"]).prop_map(Disguise::Spaced),
        Just(Disguise::Masked),
    ]
}

impl Disguise {
    fn apply(&self, word: &str) -> String {
        let each = |disguise: fn(char) -> char| word.chars().map(disguise).collect::<String>();
        match self {
            Self::Upper => word.to_uppercase(),
            Self::Fullwidth => each(|ch| char::from_u32(u32::from(ch) - 0x61 + 0xff41).expect("a fullwidth letter")),
            Self::Cyrillic => each(|ch| match ch {
                'a' => 'а',
                'o' => 'о',
                'c' => 'с',
                'i' => 'і',
                's' => 'ѕ',
                'e' => 'е',
                ch => ch,
            }),
            Self::Invisible(every) => {
                let mut written = String::new();
                for (at, ch) in word.chars().enumerate() {
                    if at > 0 && at % every == 0 {
                        written.push('\u{200b}');
                    }
                    written.push(ch);
                }
                written
            }
            Self::Marks => word.chars().flat_map(|ch| [ch, '\u{336}']).collect(),
            // All but the first and last letter: at the edge of a word digits are digits.
            Self::Leet => {
                let last = word.len() - 1;
                let leet = |(at, ch)| match ch {
                    'i' | 'l' if (1..last).contains(&at) => '1',
                    'a' if (1..last).contains(&at) => '4',
                    'o' if (1..last).contains(&at) => '0',
                    's' if (1..last).contains(&at) => '$',
                    ch => ch,
                };
                word.chars().enumerate().map(leet).collect()
            }
            Self::Stretched(at, times) => {
                let at = at % word.len();
                format!("{}{}{}", &word[..at], word[at..=at].repeat(*times), &word[at + 1..])
            }
            Self::Spaced(separator) => word.chars().map(String::from).collect::<Vec<_>>().join(separator),
            Self::Masked => {
                let first = word.find(['a', 'e', 'i', 'o', 'u']).filter(|at| *at > 0).unwrap_or(word.len() - 3);
                format!("{}*{}", &word[..first], &word[first + 1..])
            }
        }
    }
}
