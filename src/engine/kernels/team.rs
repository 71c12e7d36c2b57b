//! The compute threads: fork a piece of work over all of them, join, go on.
//!
//! A step of a model forks some two hundred times, with a few tens of microseconds of work each. Waking a sleeping
//! thread costs more than that, so a worker that has nothing to do spins for a moment before it parks: within a step
//! nobody sleeps, and between steps nobody burns a core.
//!
//! The split is static and work never moves: which member computes an item has no influence on its result.

use std::{
    any::Any,
    cell::UnsafeCell,
    hint, io, mem,
    panic::{self, AssertUnwindSafe},
    slice,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
};

use super::Isa;

/// Turns of spinning before a worker parks: about 50 µs, more than the serial stretches within a step take.
const SPINS_BEFORE_PARK: u32 = 2_000;

/// Turns of spinning before the caller offers its core while it waits for the others. By then a worker has most
/// likely lost its core to some other process, and spinning would keep it away from this one too.
const SPINS_BEFORE_YIELD: u32 = 4_000;

/// Threads that compute together. The thread that calls is member 0; the others wait for it.
pub struct Team {
    isa: Isa,
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
}

/// What the caller and the workers both see.
struct Shared {
    /// Counts forks. A worker that sees it change has a job.
    fork: Line<AtomicU32>,
    /// The current job. Written by the caller while no worker is at work (`unfinished` is zero), read by workers
    /// after they have seen `fork` change.
    job: Line<UnsafeCell<Job>>,
    /// Workers that have not finished the current job.
    unfinished: Line<AtomicUsize>,
    /// One per worker: it is about to sleep, or sleeps, and wants to be woken.
    parked: Vec<Line<AtomicBool>>,
    /// What workers panicked with during a fork. All is kept for the caller to drop: dropping it may panic again, and
    /// a worker must live to be counted out.
    panics: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// Own cache lines (two, as they are fetched in pairs), so that spinning on one does not slow down another.
#[repr(align(128))]
struct Line<T>(T);

/// A borrowed `Fn(member)` without its type and lifetime.
#[derive(Clone, Copy)]
struct Job {
    work: *const (),
    call: unsafe fn(*const (), usize),
    /// No work: the team is being dropped.
    end: bool,
}

// SAFETY: every field but `job` is `Sync` by itself. `job` is written only by the caller of `fork`, who holds the
// `Team` exclusively and has seen `unfinished` at zero; it is read only by workers between the change of `fork` and
// their decrement of `unfinished`. The two counters order these accesses (release and acquire).
unsafe impl Sync for Shared {}

// SAFETY: as above; the pointer in `job` is only used while the closure it points at, which is `Sync`, is borrowed.
unsafe impl Send for Shared {}

impl Team {
    /// A team of `threads` members (at least one, the caller) on the best instruction set of the machine.
    pub fn new(threads: usize) -> io::Result<Self> {
        Self::with_isa(threads, Isa::detect())
    }

    /// A team that computes with the given instruction set.
    pub fn with_isa(threads: usize, isa: Isa) -> io::Result<Self> {
        let count = threads.max(1) - 1;
        let idle = Job { work: std::ptr::null(), call: call::<fn(usize)>, end: true };
        let mut team = Self {
            isa,
            shared: Arc::new(Shared {
                fork: Line(AtomicU32::new(0)),
                job: Line(UnsafeCell::new(idle)),
                unfinished: Line(AtomicUsize::new(0)),
                parked: (0..count).map(|_| Line(AtomicBool::new(false))).collect(),
                panics: Mutex::new(Vec::new()),
            }),
            workers: Vec::with_capacity(count),
        };
        for worker in 0..count {
            let shared = Arc::clone(&team.shared);
            // If this fails, dropping `team` ends the workers there are.
            let thread = thread::Builder::new()
                .name(format!("tenantry-compute-{}", worker + 1))
                .spawn(move || shared.work(worker))?;
            team.workers.push(thread);
        }
        Ok(team)
    }

    /// The instruction set this team computes with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Members, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once for each item, with its index. Every member takes one contiguous part of `items`.
    ///
    /// Returns when all are done. If `work` panics, the panic goes on here after the other members have finished;
    /// the rest of the panicking member's items is then left out.
    pub fn each<T: Send>(&mut self, items: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
        if items.len() < 2 || self.workers.is_empty() {
            for (index, item) in items.iter_mut().enumerate() {
                work(index, item);
            }
            return;
        }
        let members = self.threads();
        let length = items.len();
        let all = Items(items.as_mut_ptr());
        self.fork(&|member| {
            let (first, end) = (length * member / members, length * (member + 1) / members);
            // SAFETY: `items` is borrowed exclusively until the join. Members have different numbers, so their parts
            // `first..end` lie within it and do not overlap. Handing `&mut T` to another thread needs `T: Send`.
            let part = unsafe { slice::from_raw_parts_mut(all.at(first), end - first) };
            for (index, item) in part.iter_mut().enumerate() {
                work(first + index, item);
            }
        });
    }

    /// Calls `work` with each member's number on that member, and returns when all have returned.
    fn fork<F: Fn(usize) + Sync>(&mut self, work: &F) {
        let job = Job { work: std::ptr::from_ref(work).cast(), call: call::<F>, end: false };
        self.publish(job);
        // The others must have let go of `work` before it goes out of scope, whatever happens on this thread.
        let own = panic::catch_unwind(AssertUnwindSafe(|| work(0)));
        self.join();
        let theirs = self.shared.take_panics();
        match own {
            Err(panic) => panic::resume_unwind(panic),
            Ok(()) => {
                if let Some(panic) = theirs.into_iter().next() {
                    panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Gives all workers a job.
    fn publish(&mut self, job: Job) {
        let shared = &*self.shared;
        // SAFETY: no worker reads the job now: the previous `join` has seen `unfinished` at zero, and workers look
        // at the job only after the change of `fork` below. No other caller: `self` is exclusive.
        unsafe { *shared.job.0.get() = job };
        // As many as were started: fewer than planned if `with_isa` failed half-way.
        shared.unfinished.0.store(self.workers.len(), Ordering::Relaxed);
        // Sequentially consistent against the worker's pair (sets `parked`, then reads `fork`): one of the two sees
        // the other's store, so a worker never sleeps through a job.
        shared.fork.0.fetch_add(1, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&shared.parked) {
            if parked.0.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    /// Waits until the workers have finished the job.
    fn join(&self) {
        let mut spins = 0;
        while self.shared.unfinished.0.load(Ordering::Acquire) != 0 {
            if spins < SPINS_BEFORE_YIELD {
                spins += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.publish(Job { work: std::ptr::null(), call: call::<fn(usize)>, end: true });
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its work, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Team").field("isa", &self.isa).field("threads", &self.threads()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// The life of one worker.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_fork(worker, seen);
            // SAFETY: `fork` has changed and this worker has not yet counted itself out of `unfinished`, so the
            // caller has written the job before and writes none now.
            let job = unsafe { *self.job.0.get() };
            if job.end {
                return;
            }
            // SAFETY: `call` was made for the type `work` points at, and `fork` keeps that borrowed until this
            // worker has counted itself out.
            let work = AssertUnwindSafe(|| unsafe { (job.call)(job.work, worker + 1) });
            if let Err(panic) = panic::catch_unwind(work) {
                self.keep_panic(panic);
            }
            self.unfinished.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until the fork counter is no longer at `seen`, and says where it is.
    fn next_fork(&self, worker: usize, seen: u32) -> u32 {
        loop {
            for _ in 0..SPINS_BEFORE_PARK {
                let fork = self.fork.0.load(Ordering::Acquire);
                if fork != seen {
                    return fork;
                }
                hint::spin_loop();
            }
            let parked = &self.parked[worker].0;
            parked.store(true, Ordering::SeqCst);
            if self.fork.0.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            parked.store(false, Ordering::Relaxed);
        }
    }

    fn keep_panic(&self, panic: Box<dyn Any + Send>) {
        let mut kept = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(panic);
    }

    fn take_panics(&self) -> Vec<Box<dyn Any + Send>> {
        let mut kept = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *kept)
    }
}

/// Where the items of a fork begin. A method hands out addresses so that closures capture the whole wrapper.
struct Items<T>(*mut T);

impl<T> Items<T> {
    /// # Safety
    /// `index` is not beyond the end of the items.
    unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: within the same allocation, by the contract of this method.
        unsafe { self.0.add(index) }
    }
}

// SAFETY: this is only an address. Whoever makes references from it on another thread must see to it that they do not
// overlap; `Team::each` does, and asks for `T: Send`.
unsafe impl<T: Send> Sync for Items<T> {}

/// # Safety
/// `work` points at a live `F`.
unsafe fn call<F: Fn(usize)>(work: *const (), member: usize) {
    // SAFETY: by the contract of this function.
    let work = unsafe { &*work.cast::<F>() };
    work(member);
}
