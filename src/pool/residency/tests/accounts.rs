//! What the worker says that it holds, against what we think.

use super::*;

fn held(instance: &str, names: &[&str]) -> Held {
    let adapters = names.iter().map(|name| (artifact(name).key, 10)).collect();
    Held { instance: instance.to_owned(), adapters, as_of: Instant::now() }
}

/// lessons 6: actual state is polled, keyed by the worker's instance.
#[tokio::test(start_paused = true)]
async fn what_a_restarted_worker_had_is_gone_and_is_loaded_again() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.residency.reconcile(&held("first run", &["a"]));
    assert!(harness.holds("a"));
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.residency.reconcile(&held("second run", &[]));
    assert!(!harness.residency.has(&artifact("a").key), "though it is pinned");
    assert!(harness.residency.is_restoring(), "before any request asks for it");
    succeed(harness.asked(Work::Load, "a").await);
    harness.settled().await;
    assert!(!harness.residency.is_restoring() && harness.residency.has(&artifact("a").key));
    drop(pin);
    assert_eq!(harness.residency.pins(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_account_given_before_a_load_says_nothing_of_it() {
    let mut harness = Harness::new();
    let before = held("run", &[]);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(harness.loaded("a").await);
    harness.residency.reconcile(&before);
    assert!(harness.holds("a"));
}

/// lessons 6: the gateway forgets adapters when it restarts.
#[tokio::test(start_paused = true)]
async fn what_the_worker_had_before_we_asked_is_used_as_it_is() {
    let harness = Harness::new();
    harness.residency.reconcile(&held("run", &["a"]));
    // No load was asked for: the scripted worker would have to answer it.
    timeout(Duration::from_secs(1), harness.residency.pin(&artifact("a"))).await.expect("at once").expect("there");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_adapter_is_loaded_by_the_next_who_asks() {
    let mut harness = Harness::new();
    let pin = harness.loaded("a").await;
    pin.forget();
    drop(harness.loaded("a").await);
    drop(pin);
    assert_eq!(harness.residency.pins(), 0);
}
