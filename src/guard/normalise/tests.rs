use super::{EDGE, EITHER, Normalised, SPACED, STRETCHED, settled};

fn normal(text: &str) -> String {
    Normalised::of(text).text().to_owned()
}

/// The part of the original that `word` of the normal form stands for.
fn origin<'text>(text: &'text str, word: &str) -> &'text str {
    let normalised = Normalised::of(text);
    let at = normalised.text().find(word).expect("the word is there");
    &text[normalised.original(at..at + word.len())]
}

#[test]
fn ordinary_text_is_only_folded() {
    assert_eq!(normal("Don't  PANIC,\n\tit's 4 o'clock (or 5)!"), "don't panic, it's 4 o'clock (or 5)!");
    assert_eq!(normal("mp3, 4th, GPT4, A55, utf8, $100, $5k, 10%"), "mp3, 4th, gpt4, a55, utf8, $100, $5k, 10%");
    assert_eq!(normal("Straße, CAFÉ"), "strasse, cafe");
    assert_eq!(normal(""), "");
}

#[test]
fn compatibility_forms_and_look_alikes_are_latin() {
    for disguised in ["ｆｕｃｋ", "𝓯𝓾𝓬𝓴", "𝐅𝐔𝐂𝐊", "ⓕⓤⓒⓚ", "🅵🆄🅲🅺", "🇫🇺🇨🇰", "ғυсκ", "f\u{75}\u{308}ck", "füçk"]
    {
        assert_eq!(normal(disguised), "fuck", "{disguised}");
    }
    assert_eq!(normal("ѕһіт"), "shit");
}

#[test]
fn invisible_characters_and_marks_leave_nothing_and_belong_to_the_letter_before() {
    let text = "a f\u{200b}u\u{ad}c\u{2060}k\u{336}\u{fe0f} b";
    assert_eq!(normal(text), "a fuck b");
    assert_eq!(origin(text, "fuck"), "f\u{200b}u\u{ad}c\u{2060}k\u{336}\u{fe0f}");
    assert_eq!(normal("s\0h\u{e0041}it"), "shit");
}

#[test]
fn digits_and_signs_are_letters_within_words() {
    for (disguised, word) in [
        ("sh1t", "shit"),
        ("5h1t", "shit"),
        ("b!tch", "bitch"),
        ("f4gg0t", "faggot"),
        ("@ss", "ass"),
        ("a$$", "ass"),
        ("a$$hole!", "asshole!"),
        ("$hit", "shit"),
        ("n1663r", "nigger"),
        ("$lu7", "slu7"),
    ] {
        assert_eq!(normal(disguised), word, "{disguised}");
    }
    assert_eq!(normal("wow!that was great! a1 b2 sha256sum"), "wow!that was great! a1 b2 sha256sum");
}

#[test]
fn readings_that_are_unsure_say_so() {
    let text = Normalised::of("s1ut $hit cooool");
    assert_eq!(text.text(), "siut shit col");
    assert_eq!(text.flags(1), EITHER);
    assert_eq!(text.flags(5), EDGE);
    assert_eq!(text.flags(11), STRETCHED);
}

#[test]
fn stretched_letters_stand_once_for_all_their_bytes() {
    assert_eq!(normal("fuuuuuck class 1000 !!!!!!"), "fuck class 1000 !!!");
    assert_eq!(origin("oh fuuuuuck no", "fuck"), "fuuuuuck");
    assert_eq!(origin("oh shitttt no", "shit"), "shitttt");
}

#[test]
fn letters_set_apart_are_one_word() {
    for spaced in
        ["f u c k", "f.u.c.k", "f-u-c-k", "f_u_c_k", "F * U * C * K", "f, u, c, k", "f u c \n k", "fff uuu ccc kkk"]
    {
        assert_eq!(normal(spaced), "fuck", "{spaced}");
    }
    assert_eq!(origin("so f.u.c.k. you", "fuck"), "f.u.c.k");
    assert_eq!(normal("s h 1 t and a.$$.s 1 + 1 + x"), "shit and a.$$.s 1 + 1 + x");
    assert_eq!(normal("I don't a b, e.g. a b"), "i don't a b, e.g. a b");
    assert_ne!(Normalised::of("s h i t").flags(2) & SPACED, 0);
}

#[test]
fn emoji_of_abuse_have_names() {
    assert_eq!(normal("you🐒!"), "you monkey !");
    assert_eq!(normal("🖕🏿"), "middle finger dark skin ");
    assert_eq!(origin("you 🐒!", "monkey"), "🐒");
    assert_eq!(normal("nice 🎉"), "nice 🎉");
}

#[test]
fn ranges_past_the_end_and_empty_ones_are_empty() {
    let text = Normalised::of("abc");
    assert_eq!(text.original(3..3), 3..3);
    assert_eq!(text.original(7..9), 3..3);
    assert_eq!(text.original(1..1), 1..1);
    assert_eq!(text.original(1..99), 1..3);
}

#[test]
fn text_is_settled_before_a_word_that_nothing_on_its_left_can_join() {
    let text = "one two f u c k after fourrr five";
    assert_eq!(settled(text, text.len()), 22); // "rr" may be a single letter
    assert_eq!(settled(text, 21), 8);
    assert_eq!(settled(text, 7), 4);
    assert_eq!(settled(text, 3), 0);
    assert_eq!(settled("", 9), 0);
    let endless = "é".repeat(1000);
    let cut = settled(&endless, 2000);
    assert!((1400..=1500).contains(&cut) && endless.is_char_boundary(cut));
}
