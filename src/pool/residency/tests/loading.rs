//! What asking for an adapter sets going, and who learns of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn many_askers_start_one_load_and_all_hold_the_adapter() {
    let mut harness = Harness::new();
    let askers: Vec<Asker> = (0..20).map(|_| harness.ask("a")).collect();
    let load = harness.asked(Work::Load, "a").await;
    harness.settled().await;
    assert_eq!(harness.residency.tasks(), 1);
    succeed(load);
    let mut pins = Vec::new();
    for asker in askers {
        pins.push(pinned(asker).await);
    }
    assert_eq!((harness.residency.pins(), harness.residency.resident()), (20, 1));
    drop(pins);
    harness.settled().await;
    assert_eq!((harness.residency.pins(), harness.residency.resident(), harness.residency.tasks()), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_asker_that_started_a_load_may_leave_and_disturbs_nobody() {
    let mut harness = Harness::new();
    let first = harness.ask("a");
    let load = harness.asked(Work::Load, "a").await;
    let second = harness.ask("a");
    first.abort();
    harness.settled().await;
    succeed(load);
    let pin = pinned(second).await;
    assert_eq!(harness.residency.pins(), 1);
    drop(pin);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_all_askers_left_is_finished_and_kept() {
    let mut harness = Harness::new();
    let asker = harness.ask("a");
    let load = harness.asked(Work::Load, "a").await;
    asker.abort();
    harness.settled().await;
    succeed(load);
    harness.settled().await;
    assert_eq!((harness.residency.pins(), harness.residency.resident()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_reaches_all_who_asked_for_that_adapter_and_nobody_else() {
    let mut harness = Harness::new();
    let askers = [harness.ask("a"), harness.ask("a")];
    let load = harness.asked(Work::Load, "a").await;
    let other = harness.ask("b");
    let other_load = harness.asked(Work::Load, "b").await;
    fail(load);
    for asker in askers {
        assert_eq!(outcome(asker).await.err(), Some(broken()));
    }
    succeed(other_load);
    let _other = pinned(other).await;
    assert!(!harness.holds("a"));
}

#[tokio::test(start_paused = true)]
async fn one_slow_load_delays_no_other_adapter() {
    let mut harness = Harness::new();
    let slow = harness.ask("a");
    let load = harness.asked(Work::Load, "a").await;
    let quick = harness.loaded("b").await;
    assert!(!slow.is_finished());
    succeed(load);
    drop((quick, pinned(slow).await));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_panics_fails_its_askers_and_the_next_one_loads_anew() {
    let mut harness = Harness::new();
    let askers = [harness.ask("a"), harness.ask("a")];
    drop(harness.asked(Work::Load, "a").await);
    for asker in askers {
        assert!(matches!(outcome(asker).await.err(), Some(WorkerError::AdapterUnavailable(_))));
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let _pin = harness.loaded("a").await;
    assert_eq!(harness.residency.pins(), 1);
}

/// lessons 7: a load that fails for ever is not tried for ever, and says why.
#[tokio::test(start_paused = true)]
async fn a_failed_load_is_not_tried_again_at_once_and_its_reason_is_told_meanwhile() {
    let mut harness = Harness::new();
    let asker = harness.ask("a");
    fail(harness.asked(Work::Load, "a").await);
    assert_eq!(outcome(asker).await.err(), Some(broken()));
    assert_eq!(outcome(harness.ask("a")).await.err(), Some(broken()), "without a load");
    assert_eq!(harness.residency.failure(&artifact("a").key), Some(broken()));
    drop(harness.loaded("b").await);
    tokio::time::advance(Duration::from_secs(300)).await;
    drop(harness.loaded("a").await);
    assert_eq!(harness.residency.failure(&artifact("a").key), None);
}

/// lessons 4: a burst of new adapters neither loads one twice nor waits in line.
#[tokio::test(start_paused = true)]
async fn a_burst_of_new_adapters_is_loaded_side_by_side_each_once() {
    let mut harness = Harness::new();
    let names = ["a", "b", "c", "d", "e"];
    let askers: Vec<Asker> = (0..25).map(|number| harness.ask(names[number % names.len()])).collect();
    let mut loads = Vec::new();
    for _ in names {
        let asked = timeout(Duration::from_secs(1), harness.asked.recv()).await.expect("asked").expect("asked");
        assert_eq!(asked.work, Work::Load);
        loads.push(asked.answer);
    }
    assert!(harness.asked.try_recv().is_err(), "each once");
    loads.into_iter().for_each(succeed);
    let mut pins = Vec::new();
    for asker in askers {
        pins.push(pinned(asker).await);
    }
    assert_eq!(harness.residency.pins(), 25);
}

/// lessons 1: an engine that mixes adapters up while it loads is given one
/// only while nothing runs there.
#[tokio::test(start_paused = true)]
async fn an_engine_that_mixes_adapters_up_loads_only_when_idle() {
    let mut harness = Harness::with(None, true);
    let running = harness.activity.run(true).await;
    let asker = harness.ask("a");
    harness.settled().await;
    drop(running);
    let load = harness.asked(Work::Load, "a").await;
    let next = timeout(Duration::from_secs(1), harness.activity.run(true)).await;
    assert!(next.is_err(), "nothing begins before the load is done");
    succeed(load);
    drop(pinned(asker).await);
    timeout(Duration::from_secs(1), harness.activity.run(true)).await.expect("it goes on");

    // Within its places it has nothing to rotate.
    let mut harness = Harness::with(Some(2), true);
    let _running = harness.activity.run(true).await;
    drop(harness.loaded("a").await);
}
