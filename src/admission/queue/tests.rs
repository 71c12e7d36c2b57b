//! Each method, and what the counters say.

mod random;

use super::*;

const TENANTS: usize = 4;
const WEIGHTS: [u32; TENANTS] = [1, 2, 3, 8];
const FREE: Bounds = Bounds { of_tenant: usize::MAX, of_all: usize::MAX };
const TIGHT: Bounds = Bounds { of_tenant: 12, of_all: 30 };

fn ask(tenant: usize, class: Priority, tokens: u64) -> Ask<usize> {
    Ask { tenant, class, weight: WEIGHTS.get(tenant).copied().unwrap_or(1), tokens, seats: 1 }
}

fn interactive(tenant: usize, tokens: u64) -> Ask<usize> {
    ask(tenant, Priority::Interactive, tokens)
}

fn batch(tenant: usize, tokens: u64) -> Ask<usize> {
    ask(tenant, Priority::Batch, tokens)
}

fn push(queue: &mut FairQueue<usize, usize>, ask: Ask<usize>, value: usize) -> Ticket<usize> {
    queue.push(ask, FREE, value).expect("no bounds").ticket
}

/// Serves the next, which takes what was expected.
fn pop(queue: &mut FairQueue<usize, usize>) -> Option<usize> {
    let Served { value, account } = queue.serve(u32::MAX)?;
    let tokens = account.tokens();
    queue.settle(account, tokens);
    Some(value)
}

fn drain(queue: &mut FairQueue<usize, usize>) -> Vec<usize> {
    std::iter::from_fn(|| pop(queue)).collect()
}

// === each method ===

#[test]
fn classes_have_names() {
    assert_eq!(Priority::ALL.map(Priority::as_str), ["interactive", "batch"]);
}

#[test]
fn a_new_queue_is_empty() {
    let mut queue = FairQueue::<usize, usize>::new();
    assert!(queue.is_empty() && queue.serve(u32::MAX).is_none() && queue.shed().is_none());
    assert_eq!((queue.len(), queue.tokens(), queue.flows()), (0, 0, 0));
}

#[test]
fn what_waits_is_counted() {
    let mut queue = FairQueue::new();
    push(&mut queue, interactive(0, 5), 0);
    push(&mut queue, batch(0, 6), 1);
    push(&mut queue, batch(1, 7), 2);
    assert_eq!((queue.len(), queue.tokens(), queue.flows()), (3, 18, 3));
    assert_eq!((queue.len_of(&0), queue.len_of(&1), queue.len_of(&2)), (2, 1, 0));
}

#[test]
fn a_tenant_may_not_have_more_waiting_than_its_bound() {
    let mut queue = FairQueue::new();
    let bounds = Bounds { of_tenant: 2, of_all: 9 };
    queue.push(interactive(0, 1), bounds, 0).expect("room");
    queue.push(batch(0, 1), bounds, 1).expect("room");
    assert_eq!(queue.push(interactive(0, 1), bounds, 2).unwrap_err(), (Full::OfTenant, 2));
    queue.push(interactive(1, 1), bounds, 3).expect("room for another");
}

#[test]
fn in_a_full_queue_interactive_displaces_the_newest_of_the_largest_batch_backlog() {
    let mut queue = FairQueue::new();
    let bounds = Bounds { of_tenant: 9, of_all: 3 };
    queue.push(batch(0, 10), bounds, 0).expect("room");
    queue.push(batch(0, 10), bounds, 1).expect("room");
    queue.push(batch(1, 15), bounds, 2).expect("room");
    assert_eq!(queue.push(batch(2, 100), bounds, 3).unwrap_err(), (Full::OfAll, 3));
    let displaced = |pushed: Result<Pushed<_, _>, _>| pushed.map(|it| it.displaced);
    assert_eq!(displaced(queue.push(interactive(2, 1), bounds, 4)), Ok(Some(1)));
    assert_eq!(displaced(queue.push(interactive(2, 1), bounds, 5)), Ok(Some(2)));
    assert_eq!(displaced(queue.push(interactive(2, 1), bounds, 6)), Ok(Some(0)));
    assert_eq!(displaced(queue.push(interactive(2, 1), bounds, 7)), Err((Full::OfAll, 7)));
    assert_eq!(drain(&mut queue), [4, 5, 6]);
}

#[test]
fn the_largest_batch_backlog_is_shed_first() {
    let mut queue = FairQueue::new();
    push(&mut queue, interactive(0, 900), 0);
    push(&mut queue, batch(1, 20), 1);
    push(&mut queue, batch(2, 30), 2);
    assert_eq!([queue.shed(), queue.shed(), queue.shed()], [Some(2), Some(1), None]);
}

#[test]
fn a_removed_request_is_not_served_and_removed_once() {
    let mut queue = FairQueue::new();
    let first = push(&mut queue, interactive(0, 5), 0);
    let second = push(&mut queue, interactive(0, 6), 1);
    assert_eq!(queue.remove(first.clone()), Some(0));
    assert_eq!(queue.remove(first), None);
    assert_eq!((queue.len(), queue.tokens()), (1, 6));
    assert_eq!(pop(&mut queue), Some(1));
    assert_eq!(queue.remove(second), None);
    assert_eq!(queue.flows(), 0);
}

#[test]
fn a_large_request_waits_for_its_seats_and_nobody_passes_it() {
    let mut queue = FairQueue::new();
    push(&mut queue, Ask { seats: 4, ..interactive(0, 5) }, 0);
    push(&mut queue, interactive(1, 5), 1);
    assert!(queue.serve(3).is_none());
    assert_eq!(queue.len(), 2);
    let served = queue.serve(4).expect("its seats are free");
    assert_eq!(served.value, 0);
}

#[test]
fn an_account_says_what_was_charged_to_whom() {
    let mut queue = FairQueue::new();
    push(&mut queue, batch(2, 70), 0);
    let Served { account, .. } = queue.serve(1).expect("one waits");
    let charged = (*account.tenant(), account.class(), account.weight(), account.tokens());
    assert_eq!(charged, (2, Priority::Batch, 3, 70));
    assert_eq!(queue.flows(), 1, "it runs");
    queue.settle(account, 70);
    assert_eq!(queue.flows(), 0);
}

#[test]
fn service_is_by_weight_and_interactive_goes_first() {
    let mut queue = FairQueue::new();
    for value in 0..9 {
        push(&mut queue, interactive(if value < 3 { 0 } else { 1 }, 10), value);
        push(&mut queue, batch(0, 10), 100 + value);
    }
    let first: Vec<usize> = drain(&mut queue).into_iter().take(10).collect();
    assert_eq!(first, [0, 100, 3, 4, 1, 5, 6, 2, 7, 8]);
}

#[test]
fn who_took_more_than_expected_waits_longer_and_who_took_less_comes_sooner() {
    let mut queue = FairQueue::new();
    let even = |tokens| Ask { weight: 1, ..interactive(0, tokens) };
    for value in 0..5 {
        push(&mut queue, even(10), value);
        push(&mut queue, Ask { tenant: 1, ..even(10) }, 10 + value);
    }
    let (first, other) = (queue.serve(1).expect("waits"), queue.serve(1).expect("waits"));
    assert_eq!((first.value, other.value), (0, 10));
    queue.settle(first.account, 35);
    queue.settle(other.account, 5);
    assert_eq!(drain(&mut queue), [11, 12, 13, 1, 14, 2, 3, 4]);
}

#[test]
fn what_is_ahead_is_the_own_backlog_and_the_others_share_beside_it() {
    let mut queue = FairQueue::new();
    assert_eq!(queue.ahead(&interactive(0, 10)), 0);
    push(&mut queue, interactive(0, 20), 0);
    push(&mut queue, interactive(1, 500), 1);
    push(&mut queue, interactive(2, 40), 2);
    // 20 of its own, 2 × 30 of tenant 1, all 40 of tenant 2.
    assert_eq!(queue.ahead(&interactive(0, 10)), 120);
    // Of batch an eighth beside those and the request.
    push(&mut queue, batch(3, 9999), 3);
    assert_eq!(queue.ahead(&interactive(0, 10)), 120 + 130 / 8);
    // The other way round: of tenant 3, with eight times the weight, as much; and all of interactive.
    assert_eq!(queue.ahead(&batch(0, 1000)), 8000 + 560);
}

#[test]
fn the_newest_of_a_tenant_are_evicted_whatever_their_class() {
    let mut queue = FairQueue::new();
    for value in 0..6 {
        push(&mut queue, ask(0, Priority::ALL[value % 2], 10), value);
    }
    push(&mut queue, interactive(1, 10), 6);
    assert_eq!(queue.evict(&0, 2), [5, 4, 3, 2]);
    assert_eq!(queue.evict(&0, 2), Vec::<usize>::new());
    assert_eq!((queue.len(), queue.len_of(&0)), (3, 2));
}

// === counters ===

#[test]
fn absence_earns_nothing() {
    let mut queue = FairQueue::new();
    for value in 0..100 {
        push(&mut queue, interactive(0, 10), value);
    }
    for _ in 0..50 {
        pop(&mut queue);
    }
    for value in 100..110 {
        push(&mut queue, Ask { weight: 1, ..interactive(1, 10) }, value);
    }
    let next: Vec<bool> = (0..10).filter_map(|_| pop(&mut queue)).map(|value| value < 100).collect();
    assert_eq!(next.iter().filter(|of_first| **of_first).count(), 5);
}

/// Else a tenant with many long requests, of each of which it asks for more than
/// it takes, would come back with all that is given back as a credit.
#[test]
fn what_is_given_back_for_requests_before_an_absence_is_no_credit() {
    let mut queue = FairQueue::new();
    let even = |tenant, tokens| Ask { weight: 1, ..interactive(tenant, tokens) };
    push(&mut queue, even(1, 1000), 0);
    let long = queue.serve(1).expect("waits").account;
    for value in 0..200 {
        push(&mut queue, even(0, 10), value);
    }
    for _ in 0..150 {
        pop(&mut queue);
    }
    for value in 1000..1050 {
        push(&mut queue, even(1, 10), value);
    }
    queue.settle(long, 1);
    let next: Vec<usize> = (0..20).filter_map(|_| pop(&mut queue)).filter(|value| *value >= 1000).collect();
    assert_eq!(next.len(), 10);
}

#[test]
fn what_is_given_back_counts_where_the_tenant_was_still_ahead() {
    let mut queue = FairQueue::new();
    let even = |tenant, tokens| Ask { weight: 1, ..interactive(tenant, tokens) };
    push(&mut queue, even(1, 1000), 0);
    push(&mut queue, even(0, 10), 1);
    push(&mut queue, even(0, 10), 2);
    let long = queue.serve(1).expect("waits").account;
    assert_eq!(pop(&mut queue), Some(1));
    push(&mut queue, even(1, 10), 3);
    push(&mut queue, even(0, 10), 4);
    queue.settle(long, 10);
    assert_eq!(drain(&mut queue), [2, 3, 4]);
}

#[test]
fn who_is_ahead_is_forgotten_once_the_others_have_passed() {
    let mut queue = FairQueue::new();
    for value in 0..30 {
        push(&mut queue, Ask { weight: 1, ..interactive(0, 10) }, value);
    }
    push(&mut queue, Ask { weight: 1, ..interactive(1, 100) }, 99);
    assert_eq!((pop(&mut queue), pop(&mut queue)), (Some(0), Some(99)));
    for _ in 0..8 {
        pop(&mut queue);
        assert_eq!(queue.flows(), 2, "its counter is ahead");
    }
    pop(&mut queue);
    assert_eq!(queue.flows(), 1);
    drain(&mut queue);
    assert_eq!(queue.flows(), 0);
}

#[test]
fn many_tenants_that_come_once_leave_nothing_behind() {
    let mut queue = FairQueue::new();
    for tenant in 0..10_000 {
        push(&mut queue, interactive(tenant, 10), tenant);
        let served = queue.serve(1).expect("waits");
        queue.settle(served.account, [0, 10, 15][tenant % 3]);
        assert!(queue.flows() <= 1);
    }
}

#[test]
fn weights_and_tokens_at_their_limits_are_counted() {
    let mut queue = FairQueue::new();
    for (tenant, weight) in [(0, 0), (1, 1), (2, u32::MAX)] {
        for tokens in [0, 1, u64::MAX] {
            push(&mut queue, Ask { weight, ..interactive(tenant, tokens) }, tenant);
        }
    }
    assert_eq!(queue.tokens(), u64::MAX);
    let _ = queue.ahead(&interactive(3, u64::MAX));
    assert_eq!(drain(&mut queue).len(), 9);
}
