//! Delivery: at least once, in order, and nobody waits for another sink.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tenantry_ratings::{Config, Entry, Outcome, Sink, SinkKind};

use crate::support::{Scripted, folder, ids, running, tenant, until};

fn later() -> Outcome {
    Outcome::Later { why: "not now".to_owned(), after: None }
}

/// One that never answers.
struct Hanging;

impl Sink for Hanging {
    fn deliver<'a>(&'a mut self, _: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_sink_that_is_down_or_hangs_costs_nobody_else() {
    let folder = folder();
    let (willing, taken) = Scripted::willing();
    let (down, none) = Scripted::asking(|_| later());
    let config = Config { flush_for: Duration::ZERO, ..Config::new(folder.path()) };
    let config = config.with_sink("down", down).with_sink("hangs", SinkKind::Custom(Box::new(Hanging)));
    let room = running(config.with_sink("willing", willing)).await;
    let mut recorded = Vec::new();
    for _ in 0..200 {
        recorded.push(room.rate_new(&tenant("acme"), None).await.id);
    }
    until("delivery to the willing one", || taken.lock().expect("not poisoned").len() == 200).await;
    assert_eq!(ids(&taken), recorded);
    assert_eq!(room.ratings.metrics().spool_events(), 200, "two sinks have nothing");
    let [down, hangs, willing] = room.ratings.metrics().sinks() else { panic!("three sinks") };
    assert_eq!((down.delivered(), hangs.delivered(), willing.delivered()), (0, 0, 200));
    let down = down.clone();
    until("the breaker", || down.is_open()).await;
    assert!(down.retried() >= 5 && ids(&none).is_empty());
    room.stop().await;
}

/// Fails at random, per event and for whole batches: each tenant's events still
/// come in order, and each once to who drops what it has seen.
#[tokio::test]
async fn a_sink_that_fails_at_random_gets_all_in_order() {
    let folder = folder();
    let state = AtomicU64::new(0x2545_F491_4F6C_DD1D);
    let (sink, taken) = Scripted::asking(move |_| {
        // xorshift (Marsaglia, 2003).
        let mut it = state.load(Ordering::Relaxed);
        it ^= it << 13;
        it ^= it >> 7;
        it ^= it << 17;
        state.store(it, Ordering::Relaxed);
        if it.is_multiple_of(40) { later() } else { Outcome::Taken }
    });
    let room = running(Config::new(folder.path()).with_sink("moody", sink)).await;
    let mut recorded: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..300 {
        let name = format!("tenant-{}", number % 3);
        let ack = room.rate_new(&tenant(&name), None).await;
        recorded.entry(name).or_default().push(ack.id);
    }
    room.settled().await;
    let mut delivered: HashMap<String, Vec<String>> = HashMap::new();
    for entry in taken.lock().expect("not poisoned").iter() {
        let of_tenant = delivered.entry(entry.tenant.clone()).or_default();
        if !of_tenant.contains(&entry.id) {
            of_tenant.push(entry.id.clone());
        }
    }
    assert_eq!(delivered, recorded);
    let sink = &room.ratings.metrics().sinks()[0];
    assert!(sink.delivered() == 300 && sink.retried() > 0);
    room.stop().await;
}

#[tokio::test]
async fn poison_is_put_away_with_its_reason_and_the_rest_goes_on() {
    let folder = folder();
    let (sink, taken) = Scripted::asking(|entry| match entry.payload.contains("poison") {
        true => Outcome::Refused { why: "cannot be swallowed".to_owned() },
        false => Outcome::Taken,
    });
    let room = running(Config::new(folder.path()).with_sink("picky", sink)).await;
    let acme = tenant("acme");
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for key in ["one", "poison-1", "two", "three", "poison-2"] {
        let ack = room.rate_new(&acme, Some(key)).await;
        if key.starts_with("poison") { bad.push(ack.id) } else { good.push(ack.id) }
    }
    room.settled().await;
    assert_eq!(ids(&taken), good);
    let letters = crate::support::events_in(&folder.path().join("dead-letters"));
    let told: Vec<_> = letters.iter().map(|letter| letter["event"]["id"].as_str().expect("an id")).collect();
    assert_eq!(told, bad);
    assert!(letters.iter().all(|letter| letter["reason"] == "cannot be swallowed" && letter["sink"] == "picky"));
    let sink = &room.ratings.metrics().sinks()[0];
    assert_eq!((sink.delivered(), sink.dead_lettered(), sink.retried()), (3, 2, 0));
    room.stop().await;
}

#[tokio::test]
async fn a_sink_goes_on_where_it_was_and_a_new_one_begins_with_the_oldest() {
    let folder = folder();
    let acme = tenant("acme");
    let (first, taken) = Scripted::willing();
    let room = running(Config::new(folder.path()).with_sink("first", first)).await;
    let one = room.rate_new(&acme, None).await.id;
    room.settled().await;
    room.stop().await;
    assert_eq!(ids(&taken), [one.as_str()]);

    // While it is not configured, nothing waits for it.
    let room = running(Config::new(folder.path())).await;
    let two = room.rate_new(&acme, None).await.id;
    assert_eq!(room.ratings.metrics().spool_events(), 0);
    room.stop().await;

    let (first, taken) = Scripted::willing();
    let (second, all) = Scripted::willing();
    let room = running(Config::new(folder.path()).with_sink("first", first).with_sink("second", second)).await;
    room.settled().await;
    assert_eq!(ids(&taken), [two.as_str()]);
    assert_eq!(ids(&all), [one, two]);
    room.stop().await;
}

#[tokio::test]
async fn the_age_of_the_oldest_event_is_told_until_it_is_delivered() {
    let folder = folder();
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let (sink, _) = Scripted::asking(move |_| if gate.load(Ordering::Relaxed) { Outcome::Taken } else { later() });
    let room = running(Config::new(folder.path()).with_sink("one", sink)).await;
    let metrics = room.ratings.metrics().clone();
    assert_eq!(metrics.spool_oldest(), None);
    room.rate_new(&tenant("acme"), None).await;
    until("a look", || metrics.spool_oldest().is_some()).await;
    open.store(true, Ordering::Relaxed);
    until("another look", || metrics.spool_oldest().is_none()).await;
    room.stop().await;
}

#[tokio::test]
async fn sinks_names_are_checked() {
    let folder = folder();
    let refused = |names: &'static [&str]| {
        let config = names
            .iter()
            .fold(Config::new(folder.path()), |config, name| config.with_sink(*name, Scripted::willing().0));
        async { tenantry_ratings::Ratings::open(config, crate::support::keys()).await.err().map(|it| it.to_string()) }
    };
    assert_eq!(refused(&["a/b"]).await.as_deref(), Some("sink a/b: a name has letters, digits, '-' and '_'"));
    assert_eq!(refused(&["a", "a"]).await.as_deref(), Some("sink a: another sink has this name"));
    assert_eq!(refused(&["a", "b"]).await, None);
}

#[tokio::test]
async fn a_sink_that_panicked_is_begun_again_where_it_was() {
    let folder = folder();
    let panics = Arc::new(AtomicU64::new(3));
    let left = panics.clone();
    let (sink, taken) = Scripted::asking(move |entry| {
        let poisoned = entry.payload.contains("k-2");
        if poisoned && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            panic!("a bug in a sink");
        }
        Outcome::Taken
    });
    let room = running(Config::new(folder.path()).with_sink("shaky", sink)).await;
    let mut recorded = Vec::new();
    for number in 0..5 {
        recorded.push(room.rate_new(&tenant("acme"), Some(&format!("k-{number}"))).await.id);
    }
    room.settled().await;
    let mut delivered: Vec<String> = Vec::new();
    for id in ids(&taken) {
        if !delivered.contains(&id) {
            delivered.push(id);
        }
    }
    assert_eq!(delivered, recorded, "all of them, in order");
    let sink = &room.ratings.metrics().sinks()[0];
    assert_eq!((sink.restarts(), sink.dead_lettered()), (3, 0));
    room.stop().await;
}

/// So that a panic in a sink is not the end of the others.
#[tokio::test]
async fn a_sink_that_panics_is_alone_in_it() {
    let folder = folder();
    let (broken, _) = Scripted::asking(|_| panic!("a bug in a sink"));
    let (willing, taken) = Scripted::willing();
    let room = running(Config::new(folder.path()).with_sink("broken", broken).with_sink("willing", willing)).await;
    let ack = room.rate_new(&tenant("acme"), None).await;
    until("delivery", || !taken.lock().expect("not poisoned").is_empty()).await;
    let again = room.rate_new(&tenant("acme"), None).await;
    until("delivery", || taken.lock().expect("not poisoned").len() == 2).await;
    assert_eq!(ids(&taken), [ack.id, again.id]);
    assert!(room.ratings.metrics().sinks()[0].restarts() > 0);
    let counts: BTreeMap<_, _> =
        room.ratings.metrics().sinks().iter().map(|sink| (sink.name().to_owned(), sink.delivered())).collect();
    assert_eq!(counts, BTreeMap::from([("broken".to_owned(), 0), ("willing".to_owned(), 2)]));
    room.stop().await;
}
