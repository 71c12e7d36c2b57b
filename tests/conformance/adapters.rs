//! Adapters: never the base, another one, or an earlier revision in their place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tenantry::types::{AdapterKey, Event};
use tenantry::worker::{AdapterLoad, WorkerError};

use super::{Bench, artifacts, key, question};

/// lessons: an unknown adapter falls back to the base model.
pub(super) async fn they_load_unload_and_are_replaced(bench: &Bench) {
    let (pirate, json) = (key("acme", "pirate", 1), key("acme", "json", 1));
    let missing = bench.answer(Some(&pirate), question(12)).await.map(|it| it.text);
    assert!(matches!(missing, Err(WorkerError::AdapterMissing(_))), "never the base in its place: {missing:?}");

    let base = bench.answer(None, question(12)).await.expect("an answer").text;
    bench.load(&pirate).await.expect("loaded");
    bench.load(&pirate).await.expect("loading it again is no error");
    bench.load(&json).await.expect("loaded");
    let arrr = bench.answer(Some(&pirate), question(12)).await.expect("an answer").text;
    assert!(arrr.starts_with("Ar"), "{arrr}");
    let object = bench.answer(Some(&json), question(12)).await.expect("an answer").text;
    assert!(object.starts_with("{\"question\""), "{object}");
    assert_eq!(bench.answer(None, question(12)).await.expect("an answer").text, base, "the base stays the base");

    // lessons 2: reloading under the same name reuses the old weights' cache.
    let before = bench.long_answer(&pirate).await.expect("an answer").text;
    // The name's second revision has the weights of another.
    let second = AdapterKey { name: pirate.name.clone(), revision: 2, ..json.clone() };
    let load = AdapterLoad { key: second.clone(), base: bench.base.clone(), folder: artifacts().join("json") };
    bench.driver.load_adapter(load).await.expect("loaded");
    let after = bench.long_answer(&second).await.expect("an answer");
    assert_eq!(
        after.text,
        bench.long_answer(&json).await.expect("an answer").text,
        "the second revision's own weights"
    );
    assert_ne!(after.text, before);
    assert_eq!(after.usage.cached_tokens, 0, "nothing that the first revision computed");
    assert_eq!(bench.long_answer(&pirate).await.expect("an answer").text, before, "the first one is there beside it");

    for key in [&second, &json, &pirate] {
        bench.driver.unload_adapter(key.clone()).await.expect("unloaded");
        bench.driver.unload_adapter(key.clone()).await.expect("unloading it again is no error");
        let gone = bench.answer(Some(key), question(12)).await.map(|it| it.text);
        assert!(matches!(gone, Err(WorkerError::AdapterMissing(_))), "{gone:?}");
    }
    bench.load(&pirate).await.expect("loaded once more");
    assert_eq!(bench.answer(Some(&pirate), question(12)).await.expect("an answer").text, arrr);
    bench.driver.unload_adapter(pirate).await.expect("unloaded");
}

pub(super) async fn a_wrong_artifact_changes_nothing(bench: &Bench) {
    let before = bench.answer(None, question(12)).await.expect("an answer").text;
    let folder = tempfile::tempdir().expect("a folder");
    let config = artifacts().join("pirate/adapter_config.json");
    std::fs::copy(config, folder.path().join("adapter_config.json")).expect("copied");
    std::fs::write(folder.path().join("adapter_model.safetensors"), b"cut off").expect("written");
    let broken = AdapterKey { digest: "0".repeat(64).into(), ..key("acme", "pirate", 9) };
    let load = AdapterLoad { key: broken.clone(), base: bench.base.clone(), folder: folder.path().to_owned() };
    let refused = bench.driver.load_adapter(load).await;
    assert!(matches!(refused, Err(WorkerError::AdapterInvalid(_))), "{refused:?}");
    let missing = bench.answer(Some(&broken), question(12)).await.map(|it| it.text);
    assert!(matches!(missing, Err(WorkerError::AdapterMissing(_))), "{missing:?}");
    let folder = AdapterLoad { key: broken, base: bench.base.clone(), folder: folder.path().join("nowhere") };
    bench.driver.load_adapter(folder).await.expect_err("nothing is there");
    assert_eq!(bench.answer(None, question(12)).await.expect("an answer").text, before);
}

pub(super) async fn fixed_ones(bench: &Bench) {
    let (pirate, json) = (key("acme", "pirate", 1), key("acme", "json", 1));
    let other = key("globex", "pirate", 1);
    assert!(bench.driver.accepts(&pirate) && !bench.driver.accepts(&other), "another tenant's of the same name");
    bench.load(&other).await.expect_err("it was not started with that");
    let refused = bench.answer(Some(&other), question(12)).await.map(|it| it.text);
    assert!(matches!(refused, Err(WorkerError::AdapterUnavailable(_))), "{refused:?}");
    let base = bench.answer(None, question(12)).await.expect("an answer").text;
    for _ in 0..3 {
        // Turn by turn: what one adapter computed must not answer for another.
        bench.load(&pirate).await.expect("there");
        let arrr = bench.answer(Some(&pirate), question(12)).await.expect("an answer").text;
        assert!(arrr.starts_with("Ar"), "{arrr}");
        assert_eq!(bench.answer(None, question(12)).await.expect("an answer").text, base, "the base stays the base");
        let object = bench.answer(Some(&json), question(12)).await.expect("an answer").text;
        assert!(object.starts_with("{\"question\""), "{object}");
    }
}

pub(super) async fn none(bench: &Bench) {
    let pirate = key("acme", "pirate", 1);
    assert!(!bench.driver.accepts(&pirate));
    bench.load(&pirate).await.expect_err("it has none");
    let refused = bench.answer(Some(&pirate), question(12)).await.map(|it| it.text);
    assert!(matches!(refused, Err(WorkerError::AdapterUnavailable(_))), "{refused:?}");
}

/// lessons 1: loading an adapter while others decode gives a running request
/// another tenant's adapter.
pub(super) async fn running_requests_keep_theirs_while_others_come_and_go(bench: &Bench) {
    /// More than any engine here has places for adapters.
    const LOADS: u32 = 24;
    let (pirate, json) = (key("acme", "pirate", 1), key("acme", "json", 1));
    let mut expected = Vec::new();
    for adapter in [None, Some(&pirate), Some(&json)] {
        if let Some(key) = adapter {
            bench.load(key).await.expect("loaded");
        }
        expected.push((adapter, bench.answer(adapter, question(24)).await.expect("an answer").text));
    }
    let over = AtomicBool::new(false);
    let asking = expected.iter().map(async |(adapter, alone)| {
        let mut answers = 0;
        while answers == 0 || !over.load(Ordering::Acquire) {
            let answer = bench.answer(*adapter, question(24)).await.expect("an answer").text;
            assert!(bench.is_right(&answer, alone), "{adapter:?} answers {answer}, not {alone}");
            answers += 1;
        }
    });
    let loading = async {
        for revision in 0..LOADS {
            let name = ["rhyme", "json", "pirate"][revision as usize % 3];
            let other = key("globex", name, 100 + revision);
            bench.load(&other).await.expect("loaded");
            bench.driver.unload_adapter(other).await.expect("unloaded");
        }
        over.store(true, Ordering::Release);
    };
    tokio::join!(futures_util::future::join_all(asking), loading);
    for key in [pirate, json] {
        bench.driver.unload_adapter(key).await.expect("unloaded");
    }
}

/// lessons 9: unloading took adapters that running requests still named.
pub(super) async fn one_in_use_is_unloaded_behind_its_last_answer(bench: &Bench) {
    let pirate = key("acme", "pirate", 1);
    bench.load(&pirate).await.expect("loaded");
    let alone = bench.answer(Some(&pirate), question(24)).await.expect("an answer").text;
    let started = bench.driver.generate(bench.call(Some(&pirate), question(24))).await.expect("started");
    let mut events = started.events;
    let first = events.next().await.expect("an event");
    bench.driver.unload_adapter(pirate.clone()).await.expect("unloaded");
    let events: Vec<_> = futures_util::stream::iter([first]).chain(events).collect().await;
    let text = |event: &Result<Event, WorkerError>| match event.as_ref().expect("it is answered to its end") {
        Event::Delta(delta) => delta.text.clone(),
        _ => String::new(),
    };
    let answer: String = events.iter().map(text).collect();
    assert!(bench.is_right(&answer, &alone), "{answer}, not {alone}");
    let gone = bench.answer(Some(&pirate), question(24)).await.map(|it| it.text);
    assert!(matches!(gone, Err(WorkerError::AdapterMissing(_))), "{gone:?}");
}

/// lessons 10: two adapters that alternate quickly over a shared prefix corrupt
/// each other's cache.
pub(super) async fn two_take_turns_over_a_shared_prefix(bench: &Bench) {
    const APART: Duration = Duration::from_millis(8);
    let both = [key("acme", "pirate", 1), key("acme", "json", 1)];
    let mut alone = Vec::new();
    for key in &both {
        bench.load(key).await.expect("loaded");
        alone.push(bench.long_answer(key).await.expect("an answer").text);
    }
    assert_ne!(alone[0], alone[1]);
    let turns = (0..6_u32).map(async |turn| {
        tokio::time::sleep(APART * turn).await;
        let which = turn as usize % 2;
        let answer = bench.long_answer(&both[which]).await.expect("an answer").text;
        assert!(bench.is_right(&answer, &alone[which]), "turn {turn}: {answer}, not {}", alone[which]);
    });
    futures_util::future::join_all(turns).await;
    for key in both {
        bench.driver.unload_adapter(key).await.expect("unloaded");
    }
}
