//! Cases that stop the engine's process, or end it.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tenantry::worker::WorkerError;

use super::{Bench, FIRST, STALL, healthy, long, long_prompt, question, signal};

/// All of them. `restart` brings another process up in the place of the last.
pub(crate) async fn violent(bench: &Bench, restart: impl AsyncFn() -> u32) {
    let process = bench.process.expect("an engine of its own");

    // It stands still before it is asked.
    signal(process, "STOP");
    let asked = async { bench.driver.generate(bench.call(None, question(12))).await?.events.next().await.transpose() };
    let silent = tokio::time::timeout(FIRST + STALL, asked).await.expect("a first event is not waited for without end");
    let typed = |error: &WorkerError| matches!(error, WorkerError::Failed(_) | WorkerError::Unavailable(_));
    assert!(silent.as_ref().is_err_and(typed), "{silent:?}");
    signal(process, "CONT");
    healthy(bench).await;
    bench.until_running(0).await;

    // It stands still in the middle of an answer.
    let mut events = bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
    events.next().await.expect("an event").expect("no error");
    signal(process, "STOP");
    let silent = tokio::time::timeout(STALL * 6, async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    });
    let silent = silent.await.expect("a stall is not waited for");
    assert!(matches!(silent, Some(Err(WorkerError::Failed(_)))), "{silent:?}");
    drop(events);
    signal(process, "CONT");
    healthy(bench).await;

    // It dies in the middle of an answer.
    let mut events = bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
    events.next().await.expect("an event").expect("no error");
    signal(process, "KILL");
    let mut rest: Vec<_> = events.by_ref().collect().await;
    let last = rest.pop();
    assert!(matches!(last, Some(Err(WorkerError::Failed(_)))), "{last:?}");
    assert!(rest.iter().all(Result::is_ok), "one error, and it is the last");

    // It is not there.
    let refused = bench.answer(None, question(12)).await.map(|it| it.text);
    assert!(matches!(refused, Err(WorkerError::Unavailable(_) | WorkerError::Failed(_))), "{refused:?}");

    let since = Instant::now();
    while bench.driver.status().unhealthy.is_none() {
        assert!(since.elapsed() < Duration::from_secs(10), "that it is gone is noticed");
        // Some workers are not looked after but by requests.
        bench.answer(None, question(12)).await.map(drop).expect_err("it is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Another one comes up in its place, without what the first had.
    let process = restart().await;
    healthy(bench).await;
    bench.answer(None, question(12)).await.expect("an answer");

    // It dies before its first event.
    let call = bench.call(None, long(&long_prompt()));
    let (first, ()) = tokio::join!(
        async {
            let mut events = bench.driver.generate(call).await?.events;
            events.next().await.expect("an event or an error")
        },
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            signal(process, "KILL");
        }
    );
    assert!(matches!(first, Err(WorkerError::Unavailable(_) | WorkerError::Failed(_))), "{first:?}");
}
