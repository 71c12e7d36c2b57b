//! What is recorded, and what not, as the caller sees it.

use futures_util::future::join_all;
use tenantry_ratings::{Config, RateError, Rating, SpoolError, Status};

use crate::support::{Scripted, completed, folder, ids, policy, running, tenant, thumb};

#[tokio::test]
async fn the_same_key_twice_is_one_rating_whatever_it_says() {
    let folder = folder();
    let (sink, taken) = Scripted::willing();
    let room = running(Config::new(folder.path()).with_sink("one", sink)).await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let id = room.ratings.issue(&acme);
    let first = room.rate(&acme, thumb(id, Some("k"))).await.expect("recorded");
    assert!(first.id.starts_with("rat_") && first.status == Status::Recorded);
    let other = Rating { score: Some(1), ..thumb(room.ratings.issue(&acme), Some("k")) };
    let again = room.rate(&acme, other).await.expect("known");
    assert_eq!((again.id.as_str(), again.status), (first.id.as_str(), Status::Duplicate));
    // A key is a tenant's own.
    let theirs = room.rate_new(&globex, Some("k")).await;
    assert_eq!(theirs.status, Status::Recorded);
    room.settled().await;
    assert_eq!(ids(&taken), [first.id, theirs.id]);
    assert_eq!((room.ratings.metrics().accepted(), room.ratings.metrics().duplicates()), (2, 1));
    room.stop().await;
}

#[tokio::test]
async fn many_that_come_together_with_one_key_are_one() {
    let folder = folder();
    let room = running(Config::new(folder.path())).await;
    let acme = tenant("acme");
    let id = room.ratings.issue(&acme);
    let acks = join_all((0..64).map(|_| room.rate(&acme, thumb(id, Some("k"))))).await;
    let acks: Vec<_> = acks.into_iter().map(|ack| ack.expect("an answer")).collect();
    assert_eq!(acks.iter().filter(|ack| ack.status == Status::Recorded).count(), 1);
    assert!(acks.iter().all(|ack| ack.id == acks[0].id));
    room.stop().await;
}

#[tokio::test]
async fn a_later_rating_of_the_same_user_supersedes_and_no_name_is_stored() {
    let folder = folder();
    let (sink, taken) = Scripted::willing();
    let room = running(Config::new(folder.path()).with_sink("one", sink)).await;
    let acme = tenant("acme");
    let id = room.ratings.issue(&acme);
    let by = |user: &str| Rating { end_user: Some(user.to_owned()), ..thumb(id, None) };
    let first = room.rate(&acme, by("ada.lovelace")).await.expect("recorded");
    let other = room.rate(&acme, by("bob")).await.expect("recorded");
    let second = room.rate(&acme, by("ada.lovelace")).await.expect("recorded");
    let third = room.rate(&acme, by("ada.lovelace")).await.expect("recorded");
    let nobody = [room.rate(&acme, thumb(id, None)).await, room.rate(&acme, thumb(id, None)).await];
    room.settled().await;
    let told: Vec<(String, Option<String>)> = taken
        .lock()
        .expect("not poisoned")
        .iter()
        .map(|entry| {
            let event: serde_json::Value = serde_json::from_str(&entry.payload).expect("JSON");
            (entry.id.clone(), event["data"]["supersedes"].as_str().map(str::to_owned))
        })
        .collect();
    let [one, two] = nobody.map(|ack| ack.expect("recorded").id);
    let expected = [
        (first.id.clone(), None),
        (other.id, None),
        (second.id.clone(), Some(first.id)),
        (third.id, Some(second.id)),
        (one, None),
        (two, None),
    ];
    assert_eq!(told, expected, "the history is in the log");
    room.stop().await;
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("readable").path()).expect("readable");
        assert!(!bytes.windows(8).any(|it| it == b"lovelace"), "a name is on the disk");
    }
}

#[tokio::test]
async fn of_an_array_all_are_recorded_in_their_order_or_none() {
    let folder = folder();
    let open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = open.clone();
    let (sink, taken) = Scripted::asking(move |_| match gate.load(std::sync::atomic::Ordering::Relaxed) {
        true => tenantry_ratings::Outcome::Taken,
        false => tenantry_ratings::Outcome::Later { why: "closed".to_owned(), after: None },
    });
    let config = Config { max_bytes: 64 * 1024, ..Config::new(folder.path()) };
    let room = running(config.with_sink("one", sink)).await;
    let acme = tenant("acme");
    let several = |first: usize, count: usize| -> Vec<Rating> {
        let key = |number: usize| format!("k-{number}");
        (first..first + count).map(|it| thumb(room.ratings.issue(&acme), Some(&key(it)))).collect()
    };
    let rate = |ratings| {
        let (room, acme) = (&room, &acme);
        async move { room.ratings.rate_all(acme, &policy(), ratings, std::time::SystemTime::now()).await }
    };
    let (mut recorded, mut number) = (Vec::new(), 0);
    let refused = loop {
        match rate(several(number, 10)).await {
            Ok(acks) => recorded.extend(acks.into_iter().map(|ack| ack.id)),
            Err(unrated) => break unrated,
        }
        number += 10;
    };
    assert!(matches!(refused.why, RateError::Spool(SpoolError::Full { .. })), "{refused}");
    // There is room for one, whose key the refused ten have not used up.
    let one = rate(several(number, 1)).await.expect("one more fits");
    assert_eq!(one[0].status, Status::Recorded);
    recorded.extend(one.into_iter().map(|ack| ack.id));
    let again = rate(several(number - 10, 10)).await.expect("all of them are known");
    assert!(again.iter().all(|ack| ack.status == Status::Duplicate));
    let metrics = room.ratings.metrics();
    assert_eq!((metrics.accepted(), metrics.refused(tenantry_ratings::Reason::Full)), (recorded.len() as u64, 10));
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    room.settled().await;
    assert_eq!(ids(&taken), recorded);
    room.stop().await;
}

#[tokio::test]
async fn ratings_without_an_end_user_are_bounded_for_each_generation() {
    let folder = folder();
    let room = running(Config { most_unnamed: 3, ..Config::new(folder.path()) }).await;
    let acme = tenant("acme");
    let (id, other) = (room.ratings.issue(&acme), room.ratings.issue(&acme));
    let policy = policy();
    let all = |ratings| room.ratings.rate_all(&acme, &policy, ratings, std::time::SystemTime::now());
    all(vec![thumb(id, Some("a")), thumb(id, None)]).await.expect("two of three");
    let refused = all(vec![thumb(other, None), thumb(id, None), thumb(id, None)]).await.expect_err("one too many");
    assert_eq!((refused.at, refused.why), (2, RateError::Spool(SpoolError::Unnamed { at: 2, most: 3 })));
    all(vec![thumb(id, None)]).await.expect("the third");
    assert!(all(vec![thumb(id, None)]).await.is_err());
    // Known ones, other generations and named users are not what is bounded.
    let again = all(vec![thumb(id, Some("a"))]).await.expect("known");
    assert_eq!(again[0].status, Status::Duplicate);
    all(vec![thumb(other, None); 3]).await.expect("another generation's");
    all(vec![Rating { end_user: Some("ann".to_owned()), ..thumb(id, None) }]).await.expect("somebody's");
    room.stop().await;
}

#[tokio::test]
async fn a_full_spool_refuses_ratings_drops_generations_and_recovers() {
    let folder = folder();
    let open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = open.clone();
    let (sink, taken) = Scripted::asking(move |_| match gate.load(std::sync::atomic::Ordering::Relaxed) {
        true => tenantry_ratings::Outcome::Taken,
        false => tenantry_ratings::Outcome::Later { why: "closed".to_owned(), after: None },
    });
    let config = Config { max_bytes: 64 * 1024, ..Config::new(folder.path()) };
    let room = running(config.with_sink("one", sink)).await;
    let acme = tenant("acme");
    let mut recorded = Vec::new();
    let refused = loop {
        match room.rate(&acme, thumb(room.ratings.issue(&acme), None)).await {
            Ok(ack) => recorded.push(ack.id),
            Err(error) => break error,
        }
    };
    let RateError::Spool(SpoolError::Full { retry_after }) = refused else { panic!("{refused}") };
    assert!(!retry_after.is_zero());
    let metrics = room.ratings.metrics().clone();
    room.ratings.completed(&completed(room.ratings.issue(&acme), &acme, 1), &policy());
    crate::support::until("the drop", || metrics.events_dropped() == 1).await;
    assert!(metrics.spool_bytes() <= 64 * 1024 && metrics.spool_events() == recorded.len() as u64);
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    room.settled().await;
    assert_eq!(ids(&taken), recorded);
    // What every sink has gives way to generations, too, however full it was.
    for number in 1..=100 {
        room.ratings.completed(&completed(room.ratings.issue(&acme), &acme, 1), &policy());
        crate::support::until("the event", || metrics.events_noted() + metrics.events_dropped() == number + 1).await;
        room.settled().await;
    }
    assert_eq!((metrics.events_noted(), metrics.events_dropped()), (100, 1));
    room.rate_new(&acme, None).await;
    room.stop().await;
}

#[tokio::test]
async fn what_comes_after_the_end_is_refused_and_what_was_answered_is_delivered() {
    let folder = folder();
    let (sink, taken) = Scripted::willing();
    let room = running(Config::new(folder.path()).with_sink("one", sink)).await;
    let acme = tenant("acme");
    let mut recorded = Vec::new();
    for _ in 0..50 {
        recorded.push(room.rate_new(&acme, None).await.id);
    }
    let ratings = room.ratings.clone();
    room.stop().await;
    assert_eq!(ids(&taken), recorded);
    let late = ratings.rate(&acme, &policy(), thumb(ratings.issue(&acme), None), std::time::SystemTime::now()).await;
    assert_eq!(late, Err(RateError::Spool(SpoolError::Closed)));
}
