//! Who stays and who goes.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_adapter_used_longest_ago_makes_room() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    drop(harness.loaded("b").await);
    drop(pinned(harness.ask("a")).await);
    let _new = harness.loaded("c").await;
    succeed(harness.asked(Work::Unload, "b").await);
    harness.settled().await;
    assert!(harness.holds("a") && !harness.holds("b") && harness.holds("c"));
    assert_eq!(harness.evictions(), "1");
}

#[tokio::test(start_paused = true)]
async fn an_adapter_in_use_stays_though_the_budget_is_passed() {
    let mut harness = Harness::new();
    let oldest = harness.loaded("a").await;
    let _in_use = (harness.loaded("b").await, harness.loaded("c").await);
    harness.settled().await;
    assert_eq!(harness.residency.resident(), 3);
    drop(oldest);
    succeed(harness.asked(Work::Unload, "a").await);
    harness.settled().await;
    assert_eq!(harness.residency.resident(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_is_being_unloaded_is_waited_for_and_loaded_anew() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    let others = (harness.loaded("b").await, harness.loaded("c").await);
    let unload = harness.asked(Work::Unload, "a").await;
    let asker = harness.ask("a");
    harness.settled().await;
    assert!(!asker.is_finished() && !harness.holds("a"));
    succeed(unload);
    succeed(harness.asked(Work::Load, "a").await);
    drop((pinned(asker).await, others));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_cannot_be_unloaded_stays_and_is_tried_again_after_the_next_load() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    let others = (harness.loaded("b").await, harness.loaded("c").await);
    let unload = harness.asked(Work::Unload, "a").await;
    let asker = harness.ask("a");
    harness.settled().await;
    fail(unload);
    drop(pinned(asker).await);
    harness.settled().await;
    assert_eq!((harness.residency.resident(), harness.evictions()), (3, "0".to_owned()));

    let last = harness.loaded("d").await;
    succeed(harness.asked(Work::Unload, "a").await);
    harness.settled().await;
    assert_eq!((harness.residency.resident(), harness.evictions()), (3, "1".to_owned()));
    drop((others, last));
}

#[tokio::test(start_paused = true)]
async fn where_one_adapter_cannot_be_unloaded_the_next_oldest_goes() {
    let mut harness = Harness::new();
    drop(harness.loaded("a").await);
    drop(harness.loaded("b").await);
    let _new = harness.loaded("c").await;
    drop(harness.asked(Work::Unload, "a").await);
    succeed(harness.asked(Work::Unload, "b").await);
    harness.settled().await;
    assert!(harness.holds("a") && !harness.holds("b") && harness.holds("c"));
}

#[tokio::test(start_paused = true)]
async fn a_pin_whose_entry_was_replaced_leaves_the_new_one_alone() {
    let mut harness = Harness::new();
    let (stale, _) = harness.residency.0.ask(&artifact("a")).expect("nothing failed yet");
    fail(harness.asked(Work::Load, "a").await);
    harness.settled().await;
    tokio::time::advance(Duration::from_secs(300)).await;
    let pin = harness.loaded("a").await;
    drop(stale);
    assert_eq!(harness.residency.pins(), 1);
    drop(pin);
    assert_eq!(harness.residency.pins(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pin_dropped_outside_the_runtime_makes_room_all_the_same() {
    let mut harness = Harness::new();
    let oldest = harness.loaded("a").await;
    let _in_use = (harness.loaded("b").await, harness.loaded("c").await);
    std::thread::spawn(move || drop(oldest)).join().expect("the drop does not panic");
    succeed(harness.asked(Work::Unload, "a").await);
    harness.settled().await;
    assert_eq!(harness.residency.resident(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_retired_adapter_is_unloaded_once_nobody_uses_it() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    harness.residency.retire(&artifact("a").key);
    assert!(harness.asked.try_recv().is_err(), "it is in use");
    drop(pin);
    let asked = timeout(Duration::from_secs(1), harness.asked.recv()).await.expect("asked").expect("asked");
    assert_eq!((asked.work, &*asked.name), (Work::Unload, "a"));
    asked.answer.send(Ok(())).expect("waited for");
}

#[tokio::test(start_paused = true)]
async fn where_places_are_counted_one_is_made_free_before_the_load() {
    let mut harness = Harness::with(Some(1), false);
    drop(harness.loaded("a").await);
    let asker = harness.ask("b");
    let unload = harness.asked(Work::Unload, "a").await;
    harness.settled().await;
    succeed(unload);
    succeed(harness.asked(Work::Load, "b").await);
    let in_use = pinned(asker).await;
    // All in use: it goes beside them.
    drop(harness.loaded("c").await);
    drop(in_use);
}
