use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::admission::Scope;
use crate::types::Limit;

fn ask(tenant: &str, class: Priority, tokens: u64) -> Ask<TenantId> {
    Ask { tenant: TenantId::new(tenant), class, weight: 1, tokens, seats: 1 }
}

fn patience(seconds: u64) -> Patience {
    Patience { until: Instant::now() + Duration::from_secs(seconds), bounds: Bounds { of_tenant: 3, of_all: 6 } }
}

type Entering<'a> = BoxFuture<'a, Result<Seat, Refusal>>;

fn enter<'a>(line: &'a Arc<Line>, tenant: &str, class: Priority) -> Entering<'a> {
    line.enter(ask(tenant, class, 100), patience(30)).boxed()
}

/// Whether it has its place by now.
fn seated(entering: &mut Entering<'_>) -> Option<Seat> {
    entering.now_or_never().map(|seat| seat.expect("no refusal"))
}

fn line(seats: u32) -> Arc<Line> {
    let line = Arc::new(Line::default());
    line.resize(seats);
    line
}

#[tokio::test(start_paused = true)]
async fn who_was_served_least_is_next() {
    let line = line(1);
    let first = enter(&line, "acme", Priority::Interactive).await.expect("a free place");
    let mut of_acme = [0, 1].map(|_| enter(&line, "acme", Priority::Interactive));
    for entering in &mut of_acme {
        assert!(seated(entering).is_none());
    }
    let mut of_globex = enter(&line, "globex", Priority::Interactive);
    assert!(seated(&mut of_globex).is_none());
    assert_eq!((line.waiting(), line.taken()), (3, 1));

    let ends = |mut seat: Seat| seat.took = Some(100);
    ends(first);
    // Who comes to wait starts where those are who wait: absence earns nothing.
    let served = seated(&mut of_acme[0]).expect("whoever came first");
    assert!(seated(&mut of_globex).is_none());
    ends(served);
    let served = seated(&mut of_globex).expect("it was served less");
    assert!(seated(&mut of_acme[1]).is_none());
    ends(served);
    assert!(seated(&mut of_acme[1]).is_some());
    drop(of_acme);
    assert_eq!((line.waiting(), line.taken()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_leaves_the_line_when_nobody_waits_for_it() {
    let line = line(1);
    let held = enter(&line, "acme", Priority::Interactive).await.expect("a free place");
    let mut waiting = enter(&line, "globex", Priority::Interactive);
    assert!(seated(&mut waiting).is_none());
    drop(waiting);
    assert_eq!(line.waiting(), 0);

    // Nor does a place that was given away already get lost with it.
    let mut called = enter(&line, "globex", Priority::Interactive);
    assert!(seated(&mut called).is_none());
    drop(held);
    assert_eq!(line.taken(), 1);
    drop(called);
    assert_eq!((line.waiting(), line.taken()), (0, 0));

    // Behind one that is too large for what is free there may be a smaller one.
    line.resize(2);
    let _held = enter(&line, "acme", Priority::Interactive).await.expect("a free place");
    let mut large = line.enter(Ask { seats: 2, ..ask("a", Priority::Interactive, 10) }, patience(30)).boxed();
    assert!(seated(&mut large).is_none());
    let mut small = enter(&line, "b", Priority::Interactive);
    assert!(seated(&mut small).is_none(), "nobody passes the large one");
    drop(large);
    assert!(seated(&mut small).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_and_a_full_line_takes_nobody() {
    let line = line(1);
    let _held = enter(&line, "acme", Priority::Interactive).await.expect("a free place");
    let refused = line.enter(ask("acme", Priority::Interactive, 1), patience(5)).await.err();
    assert_eq!(refused, Some(Refusal::Waited));
    assert_eq!(line.waiting(), 0);

    let mut waiting: Vec<_> = (0..3).map(|_| enter(&line, "acme", Priority::Batch)).collect();
    waiting.extend((0..3).map(|_| enter(&line, "globex", Priority::Interactive)));
    for entering in &mut waiting {
        assert!(seated(entering).is_none());
    }
    let refusal = async |tenant, class| enter(&line, tenant, class).await.err();
    let full = |of_tenant| Some(Refusal::Full { of_tenant, wait: Duration::ZERO });
    assert_eq!(refusal("acme", Priority::Interactive).await, full(true));
    // As much as waits of the one of which most does, without its newest.
    let as_much = line.enter(ask("other", Priority::Batch, 200), patience(30)).await.err();
    assert_eq!(as_much, full(false));
    // Somebody waits for this one, and nobody for the newest of the batch.
    let mut urgent = enter(&line, "other", Priority::Interactive);
    assert!(seated(&mut urgent).is_none());
    let displaced = waiting[2].as_mut().now_or_never().expect("it is told").err();
    assert_eq!(displaced, full(false));

    let why = Refusal::Limit { limit: Limit::Concurrency, scope: Scope::Tenant, allowed: 1, wait: None };
    line.keep(&TenantId::new("globex"), 1, &why);
    let left = |entering: &mut Entering<'_>| entering.now_or_never().is_some();
    let left: Vec<bool> = waiting[3..].iter_mut().map(left).collect();
    assert_eq!(left, [false, true, true], "the newest leave where fewer may wait");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_there_are_no_workers_and_more_are_served_where_there_are_more() {
    let none = line(0);
    let held = [0, 1, 2].map(|_| enter(&none, "acme", Priority::Interactive).now_or_never().is_some());
    assert_eq!(held, [true; 3], "they are to learn that there is none");

    let line = line(1);
    let _held = enter(&line, "acme", Priority::Interactive).await.expect("a free place");
    let mut waiting = enter(&line, "acme", Priority::Interactive);
    assert!(seated(&mut waiting).is_none());
    line.resize(2);
    assert!(seated(&mut waiting).is_some());
    let mut alone = line.enter(Ask { seats: 9, ..ask("a", Priority::Interactive, 10) }, patience(30)).boxed();
    assert!(seated(&mut alone).is_none());
    drop(_held);
    assert!(seated(&mut alone).is_some(), "more than there are places for: it has them to itself");
}

#[tokio::test(start_paused = true)]
async fn what_would_come_too_late_is_refused_at_once_and_batch_before_interactive() {
    let line = line(1);
    // It is served a hundred tokens a second.
    let mut next = enter(&line, "acme", Priority::Interactive);
    for _ in 0..8 {
        let mut seat = seated(&mut next).expect("its turn");
        next = enter(&line, "acme", Priority::Interactive);
        assert!(seated(&mut next).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        seat.took = Some(100);
        drop(seat);
    }
    let _serving = seated(&mut next).expect("its turn");
    let mut more = enter(&line, "acme", Priority::Interactive);
    assert!(seated(&mut more).is_none());
    let late = async |class, seconds| {
        let entering = line.enter(ask("acme", class, 100), patience(seconds)).boxed().now_or_never();
        entering.is_some_and(|answer| matches!(answer, Err(Refusal::TooLate { .. })))
    };
    // About a second of work is before it.
    assert!(!late(Priority::Interactive, 10).await);
    assert!(!late(Priority::Batch, 10).await);
    assert!(late(Priority::Batch, 0).await);
    assert!(late(Priority::Interactive, 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn places_are_neither_lost_nor_given_twice_however_they_come_and_go() {
    let line = line(3);
    let inside = Arc::new(AtomicUsize::new(0));
    let clients = (0..8_u64).map(|client| {
        let (line, inside) = (line.clone(), inside.clone());
        tokio::spawn(async move {
            for round in 0..300_u64 {
                let tenant = format!("t{}", (client + round) % 5);
                let class = if round % 3 == 0 { Priority::Batch } else { Priority::Interactive };
                let entering = line.enter(ask(&tenant, class, 1 + round % 7), patience(30));
                // Some leave before it is their turn, and at any moment of it.
                let limit = Duration::from_micros((client * 37 + round * 101) % 900);
                if let Ok(Ok(mut seat)) = tokio::time::timeout(limit, entering).await {
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    seat.took = Some(round % 11);
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no client panics");
    }
    assert_eq!((line.waiting(), line.taken()), (0, 0));
    assert!(enter(&line, "last", Priority::Batch).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_flood_leaves_places_for_tenants_that_are_about() {
    let line = Arc::new(Line::new(25));
    line.resize(8);
    let patience = || Patience { bounds: Bounds { of_tenant: 16, of_all: 16 }, ..patience(300) };
    let enter = |tenant| line.enter(ask(tenant, Priority::Interactive, 100), patience()).boxed();
    let mut asked: Vec<_> = (0..8).map(|_| enter("flood")).collect();
    let alone: Vec<_> = asked.iter_mut().filter_map(seated).collect();
    assert_eq!(alone.len(), 8, "a tenant that is alone has them all");
    let mut calm = enter("calm");
    assert!(seated(&mut calm).is_none());
    drop(alone);
    drop(seated(&mut calm).expect("a place"));

    let mut asked: Vec<_> = (0..9).map(|_| enter("flood")).collect();
    let flood: Vec<_> = asked.iter_mut().filter_map(seated).collect();
    assert_eq!(flood.len(), 6, "others are about");
    // They go before those that wait already.
    let others = ["calm", "other"].map(|tenant| seated(&mut enter(tenant)).expect("a place at once"));
    assert_eq!((line.taken(), line.waiting()), (8, 3));
    drop(others);
    assert_eq!((line.taken(), line.waiting()), (6, 3));
    let calm = seated(&mut enter("calm")).expect("a place at once");
    assert!(seated(&mut enter("calm")).is_none(), "the last one is for who has none");
    drop(calm);

    // A minute later nobody is about any more, and nobody has to come for it to be seen.
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!((line.taken(), line.waiting()), (6, 3));
    line.resize(8);
    assert_eq!((line.taken(), line.waiting()), (8, 1));
}
