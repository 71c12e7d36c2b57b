use super::{Category, Linear, heaviest, windows};
use crate::Normalised;
use crate::linear::Part;
use crate::linear::weights::Weights;

fn toxic(text: &str) -> f32 {
    Linear::embedded().score(&Normalised::of(text)).toxic
}

const PAGE: &str = "The committee met on Tuesday to discuss the new library. Members heard a report on the roof, which \
    needs repair before winter, and on the opening hours of the reading room. The treasurer explained the costs of \
    both and asked for patience. Several visitors thanked the staff for their help with the exhibition on local \
    birds, and the chair closed the meeting shortly before nine in the evening. ";

#[test]
fn insults_score_and_plain_words_do_not() {
    for bad in ["you are a stupid fucking idiot", "you $tup1d f.u.c.k.i.n.g idiooooot", "shut up, you worthless bitch"]
    {
        assert!(toxic(bad) > 0.8, "{bad}: {}", toxic(bad));
    }
    for fine in [PAGE, "How do I kill a python process?", "The weather is lovely today.", "", " \n", "🎉"] {
        assert!(toxic(fine) < 0.3, "{fine}: {}", toxic(fine));
    }
}

#[test]
fn an_insult_in_a_long_text_is_not_thinned_out() {
    let insult = "you are a stupid fucking idiot";
    let text = format!("{}{insult}. {}", PAGE.repeat(10), PAGE.repeat(10));
    assert!(toxic(&text) > Linear::THRESHOLD, "{}", toxic(&text));
    let carriers = Linear::embedded().carriers(&Normalised::of(&text), Linear::THRESHOLD);
    let start = text.find(insult).expect("it is there");
    assert!(carriers.iter().any(|carrier| text[carrier.clone()].contains("stupid fucking idiot")), "{carriers:?}");
    assert!(carriers.iter().all(|carrier| carrier.start + 20 > start && carrier.end < start + insult.len() + 20));
}

#[test]
fn without_its_carriers_a_text_is_not_toxic() {
    let text = "I like the library, you stupid asshole, and the roof was repaired by those fucking morons last week.";
    let carriers = Linear::embedded().carriers(&Normalised::of(text), Linear::THRESHOLD);
    let mut rest = text.to_owned();
    for carrier in carriers.iter().rev() {
        rest.replace_range(carrier.clone(), "…");
    }
    assert!(!carriers.is_empty() && rest.contains("library"), "{rest}");
    assert!(toxic(&rest) < Linear::THRESHOLD, "{rest}: {}", toxic(&rest));
}

#[test]
fn kinds_are_told_apart() {
    let kind = |text: &str| Linear::embedded().score(&Normalised::of(text)).category();
    assert_eq!(kind("holy shit this is fucking damn good"), Category::Profanity);
    assert_eq!(kind("what a stupid, ignorant and foolish comment from an idiot"), Category::Insult);
    assert_eq!(kind("all muslims and immigrants are filthy vermin, women are inferior"), Category::Hate);
}

#[test]
fn windows_cover_every_word_and_overlap_by_half() {
    for words in 0..400 {
        let all: Vec<_> = windows(words).collect();
        assert_eq!(all.is_empty(), words == 0);
        assert!(all.first().is_none_or(|first| first.start == 0) && all.last().is_none_or(|last| last.end == words));
        assert!(all.iter().all(|window| window.len() <= Linear::WINDOW));
        assert!(all.windows(2).all(|pair| pair[1].start == pair[0].start + Linear::WINDOW / 2));
    }
}

#[test]
fn the_heaviest_run_is_the_one_most_over_the_average() {
    let parts = |sums: &[i32]| sums.iter().map(|&sum| Part { sum, count: 1 }).collect::<Vec<_>>();
    assert_eq!(heaviest(&parts(&[-1, 9, 0, 8, 1, 1, 1])), 1..4);
    assert_eq!(heaviest(&parts(&[-3, -1, -2])), 1..2);
    let mut taken = parts(&[3, 0, 2, 0]);
    taken[1] = Part::default();
    assert_eq!(heaviest(&taken), 0..1);
}

#[test]
fn what_is_no_file_of_weights_is_refused() {
    let file = include_bytes!("../weights/stage1.bin");
    assert!(Weights::parse(file).is_some());
    assert!(Weights::parse(&file[..file.len() - 1]).is_none());
    assert!(Weights::parse(&file[1..]).is_none());
    assert!(Weights::parse(b"TGL1").is_none());
    let mut other = file.to_vec();
    other[6] = 5;
    assert!(Weights::parse(&other).is_none());
}
