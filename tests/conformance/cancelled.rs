//! lessons 11: the client leaves, and upstream goes on for minutes.
//!
//! Dropping a generation stops it at the engine, whatever it is doing; looked at
//! past the driver, by the engine's own account.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinSet;

use super::{Bench, long, long_prompt};

pub(super) async fn in_every_phase(bench: &Bench) {
    bench.until_running(0).await;
    while_it_generates(bench).await;
    while_its_prompt_is_read(bench).await;
    while_it_waits_for_a_place(bench).await;
}

async fn while_it_generates(bench: &Bench) {
    let mut events = bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
    for _ in 0..3 {
        events.next().await.expect("an event").expect("no error");
    }
    bench.until_running(1).await;
    drop(events);
    bench.left_at_once(0, "while it generated", Duration::ZERO).await;
}

async fn while_its_prompt_is_read(bench: &Bench) {
    {
        let mut reading = pin!(async {
            let call = bench.call(None, long(&long_prompt()));
            bench.driver.generate(call).await.expect("started").events.next().await
        });
        let has_it = async {
            match bench.habits.prompt_step {
                Duration::ZERO => bench.until_running(1).await,
                // It says nothing of itself before the prompt is read.
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        tokio::select! {
            first = &mut reading => panic!("it is still at its prompt: {first:?}"),
            () = has_it => {}
        }
    }
    bench.left_at_once(0, "while its prompt was read", bench.habits.prompt_step).await;
}

async fn while_it_waits_for_a_place(bench: &Bench) {
    // Read as they come: a stream that nobody reads would give its place away.
    let mut others = JoinSet::new();
    for _ in 0..bench.places {
        let mut events =
            bench.driver.generate(bench.call(None, long("Once upon a time"))).await.expect("started").events;
        events.next().await.expect("an event").expect("no error");
        others.spawn(async move { while events.next().await.is_some() {} });
    }
    {
        let mut waiting = pin!(async {
            let call = bench.call(None, long("Once upon a time"));
            bench.driver.generate(call).await.expect("started").events.next().await
        });
        tokio::select! {
            first = &mut waiting => panic!("no place is free: {first:?}"),
            () = bench.until_running(bench.places + 1) => {}
        }
    }
    bench.left_at_once(bench.places, "while it waited for a place", bench.habits.prompt_step).await;
    others.shutdown().await;
    bench.left_at_once(0, "while several generated", Duration::ZERO).await;
}
