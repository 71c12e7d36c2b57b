//! Which ratings are refused, and in which words.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};
use tenantry_ratings::{Config, IdError, RateError, Rating, Reason, Refusal};

use crate::support::{folder, policy, running, tenant, thumb};

fn refusal(rating: Value) -> (String, String) {
    let parsed = Rating::from_json(rating).and_then(|rating| rating.check(&policy().labels));
    let Refusal { field, message } = parsed.expect_err("refused");
    (field, message)
}

#[test]
fn each_refusal_names_its_field() {
    let range = "must be a whole number from 1 to 5";
    let long = |field: &str, bytes: usize| json!({"generation_id": "g", field: "x".repeat(bytes)});
    let cases = [
        (json!([]), "", "a rating is a JSON object"),
        (json!({"thumb": "up"}), "generation_id", "is missing"),
        (json!({"generation_id": 5}), "generation_id", "must be a string"),
        (json!({"generation_id": "", "score": 1}), "generation_id", "is empty"),
        (json!({"generation_id": "g", "thumb": "UP"}), "thumb", "must be \"up\" or \"down\""),
        (json!({"generation_id": "g", "score": 0}), "score", range),
        (json!({"generation_id": "g", "score": 6}), "score", range),
        (json!({"generation_id": "g", "score": 4.5}), "score", range),
        (json!({"generation_id": "g", "score": -1}), "score", range),
        (json!({"generation_id": "g", "score": "5"}), "score", range),
        (json!({"generation_id": "g", "labels": "rude"}), "labels", "must be an array of strings"),
        (json!({"generation_id": "g", "labels": ["rude", 1]}), "labels[1]", "must be a string"),
        (
            json!({"generation_id": "g", "labels": ["rude", "nice"]}),
            "labels[1]",
            "\"nice\" is not one of the tenant's labels",
        ),
        (json!({"generation_id": "g", "labels": ["rude", "rude"]}), "labels[1]", "\"rude\" is given twice"),
        (json!({"generation_id": "g", "labels": vec!["rude"; 33]}), "labels", "there are more than 32"),
        (json!({"generation_id": "g", "comment": ""}), "comment", "is empty"),
        (long("comment", 8193), "comment", "has 8193 bytes; the most is 8192"),
        (long("corrected_text", 131_073), "corrected_text", "has 131073 bytes; the most is 131072"),
        (long("end_user", 257), "end_user", "has 257 bytes; the most is 256"),
        (long("idempotency_key", 257), "idempotency_key", "has 257 bytes; the most is 256"),
        (json!({"generation_id": "g", "idempotency_key": "a\u{0}b"}), "idempotency_key", "has a control character"),
        (json!({"generation_id": "g", "stars": 5, "score": 5}), "stars", "is not a field of a rating"),
        (
            json!({"generation_id": "g", "end_user": "ada", "labels": [], "comment": null}),
            "",
            "a rating has at least one of: thumb, score, labels, comment, corrected_text",
        ),
    ];
    for (rating, field, message) in cases {
        assert_eq!(refusal(rating.clone()), (field.to_owned(), message.to_owned()), "{rating}");
    }
}

#[test]
fn what_a_rating_may_be_is_taken() {
    let all = json!({
        "generation_id": "g", "thumb": "down", "score": 2, "labels": ["rude", "late"], "comment": "c".repeat(8192),
        "corrected_text": "d".repeat(131_072), "end_user": "e".repeat(256), "idempotency_key": "f".repeat(256),
    });
    let rating: Rating = serde_json::from_value(all.clone()).expect("a rating");
    assert_eq!(rating.check(&policy().labels), Ok(()));
    assert_eq!(serde_json::to_value(&rating).expect("JSON"), all);
    for judgement in ["thumb", "score", "labels", "comment", "corrected_text"] {
        let one = json!({"generation_id": "g", judgement: all[judgement]});
        assert_eq!(Rating::from_json(one).and_then(|it| it.check(&policy().labels)), Ok(()), "{judgement}");
    }
}

#[tokio::test]
async fn a_generation_that_may_not_be_rated_is_refused_with_the_reason() {
    let folder = folder();
    let room = running(Config { rate_within: Duration::from_secs(60), ..Config::new(folder.path()) }).await;
    let acme = tenant("acme");
    let id = room.ratings.issue(&acme);
    assert_eq!(room.rate(&tenant("globex"), thumb(id, None)).await, Err(RateError::Generation(IdError::Unknown)));
    let late = SystemTime::now() + Duration::from_secs(62);
    let refused = room.ratings.rate(&acme, &policy(), thumb(id, None), late).await;
    assert_eq!(refused, Err(RateError::Generation(IdError::Expired)));
    let made_up = Rating { generation_id: "gen_x".to_owned(), ..thumb(id, None) };
    assert_eq!(room.rate(&acme, made_up).await, Err(RateError::Generation(IdError::Malformed)));
    let judged = room.rate(&acme, Rating { score: Some(9), ..thumb(id, None) }).await.expect_err("refused");
    assert_eq!(judged.to_string(), "score: must be a whole number from 1 to 5");
    assert!(room.rate(&acme, thumb(id, None)).await.is_ok());
    let metrics = room.ratings.metrics().clone();
    for reason in [Reason::Unknown, Reason::Expired, Reason::Malformed, Reason::Invalid] {
        assert_eq!(metrics.refused(reason), 1, "{reason:?}");
    }
    assert_eq!((metrics.accepted(), metrics.refused(Reason::Full)), (1, 0));
    room.stop().await;
}

proptest! {
    /// Whatever comes is a rating or a refusal, and a rating reads back as itself.
    #[test]
    fn any_json_is_a_rating_or_a_refusal(
        generation in any::<String>(), score in -2_i64..9, comment in any::<Option<String>>(),
        odd in prop::option::of("[a-z_]{1,12}"),
    ) {
        let mut value = json!({"generation_id": generation, "score": score, "comment": comment});
        if let Some(odd) = &odd {
            value[odd] = json!("x");
        }
        if let Ok(rating) = Rating::from_json(value) {
            prop_assert!((1..=5).contains(&score));
            let again = serde_json::to_value(&rating).and_then(serde_json::from_value::<Rating>);
            prop_assert_eq!(again.expect("reads back"), rating);
        }
    }
}
