use std::collections::{HashMap, HashSet};
use std::sync::Condvar;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
/// What each base model takes of the budget, a part of it as weights.
const COST: u64 = 10;
const WEIGHTS: u64 = 7;
/// What keys and values may always borrow.
const SURE: u64 = 5;

/// Base models that load when and as the test says.
#[derive(Default)]
struct Script {
    loads: Mutex<Vec<String>>,
    left: Mutex<Vec<String>>,
    /// Loads of these wait until they are taken out.
    held_up: Mutex<HashSet<String>>,
    freed: Condvar,
    /// Loads of these fail.
    faults: Mutex<HashMap<String, String>>,
    broken: Arc<AtomicBool>,
    in_memory: Arc<AtomicUsize>,
}

struct Fake {
    name: String,
    broken: Arc<AtomicBool>,
    in_memory: Arc<AtomicUsize>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Source for Arc<Script> {
    type Base = Fake;

    fn load(&self, name: &BaseName) -> Result<Fake, String> {
        let name = name.to_string();
        self.loads.lock().expect("a test").push(name.clone());
        let held_up = self.held_up.lock().expect("a test");
        drop(self.freed.wait_while(held_up, |held_up| held_up.contains(&name)).expect("a test"));
        if let Some(fault) = self.faults.lock().expect("a test").get(&name) {
            return Err(fault.clone());
        }
        self.in_memory.fetch_add(1, Ordering::AcqRel);
        Ok(Fake { name, broken: self.broken.clone(), in_memory: self.in_memory.clone() })
    }

    fn broken(base: &Fake) -> bool {
        base.broken.load(Ordering::Acquire)
    }

    fn leaving(&self, name: &BaseName) {
        self.left.lock().expect("a test").push(name.to_string());
    }
}

impl Script {
    fn hold_up(&self, name: &str) {
        self.held_up.lock().expect("a test").insert(name.to_owned());
    }

    fn let_go(&self, name: &str) {
        self.held_up.lock().expect("a test").remove(name);
        self.freed.notify_all();
    }

    fn fail(&self, name: &str, why: Option<&str>) {
        let mut faults = self.faults.lock().expect("a test");
        match why {
            Some(why) => faults.insert(name.to_owned(), why.to_owned()),
            None => faults.remove(name),
        };
    }
}

struct Bench {
    script: Arc<Script>,
    bases: Arc<Bases<Arc<Script>>>,
    pot: Arc<Budget>,
}

impl Bench {
    /// Base models `a`, `b` and `c`, with room for `room` of them.
    fn new(room: u64) -> Self {
        let script = Arc::new(Script::default());
        let share = Share { cost: COST, own_kv: COST - WEIGHTS, first: false };
        let entry = |name: &&str| Entry { name: BaseName::new(*name), weights: WEIGHTS, share };
        let entries: Vec<Entry> = ["a", "b", "c"].iter().map(entry).collect();
        let pot = Arc::new(Budget::with_sure(room * COST + SURE, SURE));
        let bases = Bases::new(script.clone(), &entries, room * COST, pot.clone(), PATIENCE);
        Self { script, bases: Arc::new(bases), pot }
    }

    async fn pin(&self, name: &str) -> Result<Pin<Arc<Script>>, WorkerError> {
        let pin = self.bases.pin(&BaseName::new(name)).await?;
        assert_eq!(pin.name, name, "never another one");
        Ok(pin)
    }

    async fn call(&self, name: &str) {
        drop(self.pin(name).await.expect("it is loaded"));
    }

    /// Asks for one that has to wait, and lets it wait.
    async fn waiting(&self, name: &str) -> tokio::task::JoinHandle<Result<Pin<Arc<Script>>, WorkerError>> {
        let (bases, name) = (self.bases.clone(), BaseName::new(name));
        let asker = tokio::spawn(async move { bases.pin(&name).await });
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        assert!(!asker.is_finished(), "it waits");
        asker
    }

    fn loads(&self) -> Vec<String> {
        self.script.loads.lock().expect("a test").clone()
    }

    fn cold(&self) -> Vec<String> {
        self.bases.account().cold.iter().map(ToString::to_string).collect()
    }

    fn unable(&self) -> Option<String> {
        self.bases.account().unable
    }

    /// Waits until nothing is on its way in or out; then every figure is exact.
    async fn settled(&self) {
        let settled = async {
            while self.bases.account().weights != WEIGHTS * (3 - self.cold().len() as u64) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), settled).await.expect("it settles");
        let loaded = 3 - self.cold().len();
        assert_eq!(self.script.in_memory.load(Ordering::Acquire), loaded);
    }
}

#[tokio::test(start_paused = true)]
async fn the_one_used_longest_ago_leaves() {
    let bench = Bench::new(2);
    for name in ["a", "b", "a", "c"] {
        bench.call(name).await;
    }
    bench.settled().await;
    assert_eq!((bench.loads(), bench.cold()), (vec!["a".into(), "b".into(), "c".into()], vec!["b".to_owned()]));
    assert_eq!(*bench.script.left.lock().expect("a test"), ["b"]);
    assert_eq!(bench.bases.account(), Account { cold: vec![BaseName::new("b")], weights: 2 * WEIGHTS, unable: None });
    assert_eq!(bench.pot.left(), SURE);
}

#[tokio::test(start_paused = true)]
async fn one_in_use_stays_though_it_was_used_longest_ago() {
    let bench = Bench::new(2);
    let running = bench.pin("a").await.expect("it is loaded");
    bench.call("b").await;
    bench.call("c").await;
    assert_eq!(*bench.script.left.lock().expect("a test"), ["b"]);
    drop(running);
    bench.call("a").await;
    assert_eq!(bench.loads(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_generation_has_just_ended_was_used_just_now() {
    let bench = Bench::new(2);
    let running = bench.pin("a").await.expect("it is loaded");
    bench.call("b").await;
    drop(running);
    bench.call("c").await;
    assert_eq!(*bench.script.left.lock().expect("a test"), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_have_it_loaded_once() {
    let bench = Bench::new(1);
    bench.script.hold_up("a");
    let first = bench.waiting("a").await;
    let others = join_all((0..20).map(|_| bench.pin("a")));
    bench.script.let_go("a");
    let pins = others.await;
    assert!(pins.iter().all(Result::is_ok) && first.await.expect("no panic").is_ok());
    assert_eq!(bench.loads(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_load_goes_on_when_its_asker_goes() {
    let bench = Bench::new(1);
    bench.script.hold_up("a");
    let asker = bench.waiting("a").await;
    asker.abort();
    assert!(asker.await.is_err_and(|error| error.is_cancelled()));
    bench.script.let_go("a");
    bench.call("a").await;
    assert_eq!(bench.loads(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_gives_way_for_an_asker_who_went_before_there_was_memory() {
    let bench = Bench::new(1);
    let running = bench.pin("a").await.expect("it is loaded");
    let asker = bench.waiting("b").await;
    assert_eq!(bench.cold(), ["a", "b", "c"], "a call for `a` would have it loaded again");
    asker.abort();
    assert!(asker.await.is_err());
    assert_eq!(bench.cold(), ["b", "c"]);
    drop(running);
    bench.call("a").await;
    assert_eq!(bench.loads(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_all_in_use_waits_and_is_then_told_that_it_is_busy() {
    let bench = Bench::new(1);
    let running = bench.pin("a").await.expect("it is loaded");
    let asked = Instant::now();
    assert_eq!(bench.pin("b").await.err(), Some(WorkerError::Busy));
    assert_eq!(asked.elapsed(), PATIENCE);
    bench.call("a").await;
    drop(running);
    bench.call("b").await;
    assert_eq!(bench.loads(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn new_calls_do_not_keep_one_for_ever_that_has_to_give_way() {
    let bench = Bench::new(1);
    let running = bench.pin("a").await.expect("it is loaded");
    let claim = bench.waiting("b").await;
    let late = bench.waiting("a").await;
    drop(running);
    let pin = claim.await.expect("no panic").expect("it was next");
    assert_eq!(bench.loads(), ["a", "b"]);
    drop(pin);
    drop(late.await.expect("no panic").expect("it is loaded again"));
    bench.settled().await;
    assert_eq!(bench.loads(), ["a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_to_leave_stays_where_another_becomes_free_first() {
    let bench = Bench::new(2);
    let (running, other) = (bench.pin("a").await.expect("loaded"), bench.pin("b").await.expect("loaded"));
    let claim = bench.waiting("c").await;
    let late = bench.waiting("a").await;
    drop(other);
    let late = late.await.expect("no panic").expect("it never left");
    let claim = claim.await.expect("no panic").expect("there was memory");
    assert_eq!(bench.loads(), ["a", "b", "c"]);
    assert_eq!(*bench.script.left.lock().expect("a test"), ["b"]);
    drop((running, late, claim));
    bench.settled().await;
}

#[tokio::test(start_paused = true)]
async fn three_that_want_one_place_all_get_it() {
    let bench = Bench::new(1);
    let calls = (0..60).map(|call| {
        let (bases, name) = (bench.bases.clone(), BaseName::new(["a", "b", "c"][call % 3]));
        tokio::spawn(async move {
            let pin = bases.pin(&name).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(pin);
            Ok::<_, WorkerError>(())
        })
    });
    for outcome in join_all(calls.collect::<Vec<_>>()).await {
        assert_eq!(outcome.expect("no panic"), Ok(()));
    }
    assert_eq!(bench.loads().len(), 3, "all who wait for one are served while it is there");
    bench.settled().await;
    assert_eq!(bench.pot.left(), SURE);
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_is_remembered_and_reaches_only_its_own_askers() {
    let bench = Bench::new(2);
    bench.script.fail("a", Some("the file is gone"));
    let failed = WorkerError::Unavailable("a cannot be loaded: the file is gone".to_owned());
    for (back_off, loads) in [(1, 1), (2, 2), (4, 3), (8, 4), (16, 5), (30, 6), (30, 7)] {
        assert_eq!(bench.pin("a").await.err(), Some(failed.clone()));
        assert_eq!(bench.pin("a").now_or_never().expect("at once").err(), Some(failed.clone()));
        assert_eq!(bench.loads().len(), loads);
        tokio::time::advance(Duration::from_secs(back_off)).await;
    }
    assert_eq!(bench.unable(), None, "the others can be served");
    bench.call("b").await;
    bench.script.fail("a", None);
    bench.call("a").await;
    assert_eq!(bench.loads().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn after_a_good_load_the_back_off_begins_anew() {
    let bench = Bench::new(1);
    bench.script.fail("a", Some("once"));
    assert!(bench.pin("a").await.is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.script.fail("a", None);
    bench.call("a").await;
    bench.call("b").await;
    bench.script.fail("a", Some("twice"));
    assert!(bench.pin("a").await.is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.script.fail("a", None);
    bench.call("a").await;
    assert_eq!(bench.loads(), ["a", "a", "b", "a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_unable_only_while_none_can_be_loaded() {
    let bench = Bench::new(3);
    for name in ["a", "b", "c"] {
        assert_eq!(bench.unable(), None);
        bench.script.fail(name, Some("no disk"));
        assert!(bench.pin(name).await.is_err());
    }
    assert!(bench.unable().is_some_and(|why| why.contains("cannot be loaded: no disk")));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(bench.unable(), None, "it may be tried again");
    assert_eq!(bench.pot.left(), 3 * COST + SURE);
}

#[tokio::test(start_paused = true)]
async fn one_that_something_was_loaded_for_is_kept_for_a_moment() {
    let bench = Bench::new(1);
    let pin = bench.pin("a").await.expect("it is loaded");
    pin.keep_for_a_moment();
    drop(pin);
    let claim = bench.waiting("b").await;
    bench.call("a").await;
    let asked = Instant::now();
    drop(claim.await.expect("no panic").expect("it is loaded"));
    assert!(asked.elapsed() >= Duration::from_millis(990), "{:?}", asked.elapsed());
    assert_eq!(bench.loads(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_kept_for_ever() {
    let bench = Bench::new(1);
    bench.call("a").await;
    let bases = bench.bases.clone();
    let again = tokio::spawn(async move {
        loop {
            let pin = bases.pin(&BaseName::new("a")).await.expect("it is loaded");
            pin.keep_for_a_moment();
            drop(pin);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let asked = Instant::now();
    bench.call("b").await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    again.abort();
}

#[tokio::test(start_paused = true)]
async fn a_load_waits_until_caches_have_given_its_memory_back() {
    let bench = Bench::new(2);
    bench.call("a").await;
    // What is left of the budget is there to borrow.
    assert!(bench.pot.take(COST + SURE));
    let claim = bench.waiting("b").await;
    assert_eq!(bench.loads(), ["a"]);
    bench.pot.give_back(COST - 1);
    assert!(!bench.pot.take(1), "nobody borrows what a load waits for");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.loads(), ["a"]);
    bench.pot.give_back(1);
    drop(claim.await.expect("no panic").expect("it is loaded"));
    assert_eq!((bench.pot.left(), bench.pot.overdrawn()), (0, false));
    bench.pot.give_back(SURE);
    assert_eq!(bench.pot.left(), SURE);
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_for_an_asker_who_goes_is_given_back() {
    let bench = Bench::new(1);
    assert!(bench.pot.take(COST + SURE));
    let asked = Instant::now();
    assert_eq!(bench.pin("a").await.err(), Some(WorkerError::Busy));
    assert_eq!(asked.elapsed(), PATIENCE);
    assert!(!bench.pot.overdrawn());
    bench.pot.give_back(COST + SURE);
    assert_eq!((bench.pot.left(), bench.loads().len()), (COST + SURE, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broken_one_is_loaded_anew() {
    let bench = Bench::new(1);
    let running = bench.pin("a").await.expect("it is loaded");
    bench.script.broken.store(true, Ordering::Release);
    let next = bench.waiting("a").await;
    assert_eq!(bench.loads(), ["a"], "not while a call still has it");
    bench.script.hold_up("a");
    drop(running);
    while bench.loads().len() < 2 {
        tokio::task::yield_now().await;
    }
    bench.script.broken.store(false, Ordering::Release);
    bench.script.let_go("a");
    drop(next.await.expect("no panic").expect("it is loaded again"));
    bench.settled().await;
    assert_eq!(bench.pot.left(), SURE);
}

#[tokio::test]
async fn one_that_nobody_serves_is_refused() {
    let bench = Bench::new(1);
    let error = bench.pin("d").await.err();
    assert_eq!(error, Some(WorkerError::Unavailable("d is not served here".to_owned())));
}
