//! Whether a loaded adapter is the one that was asked for.

use super::*;
use crate::pool::residency::proving::SETTLED;

async fn probe(harness: &Harness, name: &str, answer: &str) {
    let probe = Probe { prompt: "q".to_owned(), answer: answer.to_owned(), tokens: 1 };
    harness.catalogue.record_probe(&BaseName::new("base"), &format!("probed {name}"), Some(probe)).await;
}

fn probed(name: &str) -> Artifact {
    let artifact = artifact(name);
    let key = AdapterKey { digest: format!("probed {name}").into(), ..artifact.key };
    Artifact { key, ..artifact }
}

/// lessons 1: a worker that answers with another adapter is found out by a
/// probe after every load, before any request.
#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_with_another_adapter_is_not_used_for_it() {
    let mut harness = Harness::new();
    probe(&harness, "a", "Arrr").await;
    let shared = harness.residency.0.clone();
    harness.answers.lock().expect("no panic").clone_from(&Ok("Once".to_owned()));
    let (pin, next) = shared.ask(&probed("a")).expect("nothing failed yet");
    // It is not in the catalogue by that digest, so what follows is the proof alone.
    drop((pin, next));
    let proven = shared.prove(&probed("a")).await;
    assert!(matches!(proven, Err(WorkerError::AdapterMismatch(_))), "{proven:?}");
    *harness.answers.lock().expect("no panic") = Ok(" Arrr".to_owned());
    assert_eq!(shared.prove(&probed("a")).await, Ok(()));
    let text = harness.metrics.render(&Readings::default()).expect("metrics render");
    assert!(text.contains("tenantry_adapter_probes_total{outcome=\"mismatch\"} 1"), "{text}");
    assert!(text.contains("tenantry_adapter_probes_total{outcome=\"match\"} 1"), "{text}");
    while harness.asked.try_recv().is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_recorded_once_at_a_time_and_not_before_its_adapter_is_left_alone() {
    let mut harness = Harness::new();
    let asker = harness.ask_for(fresh());
    succeed(harness.asked(Work::Load, "fresh").await);
    drop(pinned(asker).await);
    // As the placement loop does at every turn.
    let turn = || harness.residency.prove_later(&fresh());
    turn();
    tokio::time::sleep(ANSWERS_AFTER / 2).await;
    assert_eq!(harness.questions.load(Ordering::Acquire), 0, "who published it asks for it now");

    tokio::time::sleep(SETTLED).await;
    turn();
    turn();
    tokio::time::sleep(ANSWERS_AFTER / 2).await;
    turn();
    // It does not say how sure it is, so one question to each is all.
    assert_eq!(harness.questions.load(Ordering::Acquire), 2, "the adapter and its base");
    tokio::time::sleep(ANSWERS_AFTER + SETTLED).await;
    turn();
    tokio::time::sleep(ANSWERS_AFTER).await;
    assert_eq!(harness.questions.load(Ordering::Acquire), 4, "the next turn begins anew");
}
