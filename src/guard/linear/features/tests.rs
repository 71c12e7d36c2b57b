use super::features;
use crate::Normalised;

/// `scripts/guard/features.py` wrote them.
#[test]
fn hashes_are_those_of_the_golden_vectors() {
    let golden = include_str!("../../../../tests/fixtures/guard/features.json");
    let rows: Vec<serde_json::Value> = serde_json::from_str(golden).expect("the fixture is JSON");
    assert!(rows.len() > 5);
    for row in rows {
        let text = row["text"].as_str().expect("a text");
        let normalised = Normalised::of(text);
        assert_eq!(normalised.text(), row["normal"].as_str().expect("a normal form"));
        let hashes: Vec<_> =
            row["hashes"].as_array().expect("hashes").iter().filter_map(|hash| hash.as_u64()).collect();
        assert_eq!(features(&normalised).into_iter().map(u64::from).collect::<Vec<_>>(), hashes, "{text:?}");
    }
}

#[test]
fn a_word_gives_the_same_whatever_disguise_it_wears() {
    let plain = features(&Normalised::of("you shit"));
    for disguised in ["YOU $h1t", "you s.h.i.t", "ｙｏｕ ѕһіт"] {
        assert_eq!(features(&Normalised::of(disguised)), plain, "{disguised}");
    }
}
