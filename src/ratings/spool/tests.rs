//! The spool against a model of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::Value;
use tenantry_types::TenantId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::{EventType, Rating, Thumb};

struct Room {
    spool: Spool,
    log: Log,
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
    _lock: Lock,
}

async fn open(folder: &Path, max_bytes: u64) -> Room {
    let metrics = Arc::new(Metrics::of_sinks(&["one".to_owned()]));
    let opening =
        Opening { folder, max_bytes, most_unnamed: u32::MAX, source: "/test", sinks: vec!["one".to_owned()], metrics };
    let opened = Spool::open(opening).await.expect("opens");
    let (stop, stopped) = watch::channel(false);
    let writer = tokio::spawn(opened.writer.run(stopped));
    Room { spool: opened.spool, log: Log::of(folder), stop, writer, _lock: opened.lock }
}

impl Room {
    async fn close(self) {
        self.stop.send(true).expect("it runs");
        self.writer.await.expect("it ends");
        self.log.pool.close().await;
    }

    async fn rate(&self, new: NewRating) -> Result<Recorded, SpoolError> {
        let [one] = self.spool.ratings(vec![new]).await?.try_into().expect("one answer");
        Ok(one)
    }

    async fn all(&self) -> Vec<Value> {
        let batch = Batch { events: usize::MAX >> 1, bytes: u64::MAX };
        let entries = self.log.after(0, batch).await.expect("readable");
        entries.iter().map(|entry| serde_json::from_str(&entry.payload).expect("JSON")).collect()
    }
}

/// What a client may send, of a small world so that things meet.
#[derive(Debug, Clone)]
struct Sent {
    tenant: u8,
    generation: u8,
    user: Option<u8>,
    key: Option<u8>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let maybe = || prop::option::of(0_u8..3);
    (0_u8..2, 0_u8..2, maybe(), maybe()).prop_map(|(tenant, generation, user, key)| Sent {
        tenant,
        generation,
        user,
        key,
    })
}

fn rating(sent: &Sent, number: usize) -> NewRating {
    NewRating {
        id: format!("rat_{number}"),
        tenant: TenantId::new(format!("tenant-{}", sent.tenant)),
        at: SystemTime::now(),
        rating: Rating {
            generation_id: format!("gen_{}", sent.generation),
            thumb: Some(Thumb::Down),
            end_user: sent.user.map(|user| format!("user-{user}")),
            idempotency_key: sent.key.map(|key| format!("key-{key}")),
            ..Rating::default()
        },
    }
}

/// What is to become of them: the id that is answered, and what it supersedes.
#[derive(Default)]
struct Model {
    keys: HashMap<(u8, u8), usize>,
    current: HashMap<(u8, u8, u8), usize>,
    events: Vec<(usize, Option<usize>)>,
}

impl Model {
    /// The number of the rating that is answered.
    fn rate(&mut self, sent: &Sent, number: usize) -> usize {
        let key = sent.key.map(|key| (sent.tenant, key));
        if let Some(first) = key.and_then(|key| self.keys.get(&key)) {
            return *first;
        }
        key.map(|key| self.keys.insert(key, number));
        let old = sent.user.and_then(|user| self.current.insert((sent.tenant, sent.generation, user), number));
        self.events.push((number, old));
        number
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn keys_history_and_order_are_the_models(
        groups in prop::collection::vec((prop::collection::vec(sent(), 1..12), any::<bool>()), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let mut room = open(folder.path(), 1 << 30).await;
            let (mut model, mut number) = (Model::default(), 0);
            for (group, reopen) in groups {
                // Together: they are one commit, in this order.
                let answers = join_all(group.iter().enumerate().map(|(at, sent)| room.rate(rating(sent, number + at))));
                for (at, answer) in answers.await.into_iter().enumerate() {
                    let expected = model.rate(&group[at], number + at);
                    let duplicate = expected != number + at;
                    assert_eq!(answer, Ok(Recorded { id: format!("rat_{expected}"), duplicate }));
                }
                number += group.len();
                if reopen {
                    room.close().await;
                    room = open(folder.path(), 1 << 30).await;
                }
            }
            let events = room.all().await;
            let told = events.iter().map(|event| (&event["data"]["rating_id"], event["data"].get("supersedes")));
            let told: Vec<_> = told.map(|(id, old)| (id.clone(), old.cloned())).collect();
            let id = |number: usize| Value::from(format!("rat_{number}"));
            let expected: Vec<_> = model.events.iter().map(|(new, old)| (id(*new), old.map(id))).collect();
            assert_eq!(told, expected);
            let held: Vec<(String,)> = sqlx::query_as("SELECT id FROM ratings WHERE superseded = 0 ORDER BY seq")
                .fetch_all(&room.log.pool).await.expect("readable");
            let old: Vec<usize> = model.events.iter().filter_map(|(_, old)| *old).collect();
            let holding = model.events.iter().filter(|(new, _)| !old.contains(new));
            let holding: Vec<_> = holding.map(|(new, _)| (format!("rat_{new}"),)).collect();
            assert_eq!(held, holding);
            room.close().await;
        });
    }
}

fn event(number: usize, bytes: usize) -> NewEvent {
    NewEvent {
        id: format!("gen_{number}"),
        tenant: TenantId::new("acme"),
        kind: EventType::Completed,
        subject: format!("gen_{number}"),
        at: SystemTime::now(),
        payload: format!("{:?}", "x".repeat(bytes)),
        generation: None,
    }
}

#[tokio::test]
async fn what_every_sink_has_gives_way_and_what_waits_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let max = 100 * 1024;
    let room = open(folder.path(), max).await;
    let rate = |number: usize| {
        let one = Sent { tenant: 0, generation: 0, user: None, key: None };
        room.rate(rating(&one, number))
    };
    let mut number = 0;
    while rate(number).await.is_ok() {
        number += 1;
    }
    // A rating is about one KiB with its row.
    assert!((50..200).contains(&number), "{number}");
    assert!(matches!(rate(0).await, Err(SpoolError::Full { .. })));
    let first = room.all().await;
    // The sink has half of them: as many more fit.
    assert!(room.spool.moved("one", number as i64 / 2).await);
    for more in 0..number / 2 - 1 {
        assert_eq!(rate(number + more).await.map(|it| it.duplicate), Ok(false), "{more}");
    }
    let then = room.all().await;
    assert!(first[number / 2..].iter().all(|event| then.contains(event)), "what waits is kept");
    let bytes: u64 = then.iter().map(|event| event.to_string().len() as u64 + 512).sum();
    assert!(bytes <= max, "{bytes}");
    room.close().await;
}

#[tokio::test]
async fn generations_leave_room_for_ratings() {
    let folder = tempfile::tempdir().expect("a folder");
    let room = open(folder.path(), 100 * 1024).await;
    for number in 0..200 {
        room.spool.event(event(number, 1024));
    }
    // It comes behind them.
    let one = Sent { tenant: 0, generation: 0, user: None, key: None };
    for number in 0..8 {
        assert_eq!(room.rate(rating(&one, number)).await.map(|it| it.duplicate), Ok(false));
    }
    let generations = room.all().await.len() - 8;
    assert!((40..64).contains(&generations), "{generations}");
    room.close().await;
}

#[tokio::test]
async fn one_process_writes_a_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let room = open(folder.path(), 1 << 20).await;
    let metrics = Arc::new(Metrics::default());
    let opening = || Opening {
        folder: folder.path(),
        max_bytes: 1,
        most_unnamed: 0,
        source: "",
        sinks: Vec::new(),
        metrics: metrics.clone(),
    };
    assert!(matches!(Spool::open(opening()).await, Err(OpenError::Held(_))));
    room.close().await;
    assert!(Spool::open(opening()).await.is_ok());
}

#[tokio::test]
async fn places_are_never_given_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Sent { tenant: 0, generation: 0, user: None, key: None };
    for round in 0..3 {
        let room = open(folder.path(), 1 << 20).await;
        room.rate(rating(&one, round)).await.expect("recorded");
        assert_eq!(room.log.last().await.expect("readable"), round as i64 + 1);
        room.spool.moved("one", round as i64 + 1).await;
        room.spool.expire(SystemTime::now() + Duration::from_secs(1)).await;
        room.spool.close().await;
        assert_eq!(room.log.last().await.expect("readable"), 0, "all is expired");
        room.close().await;
    }
}
