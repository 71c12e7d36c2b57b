//! The second stage's pool: texts of all streams and prompts, judged in batches by
//! threads of its own.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// Texts of one request that wait or are judged at one time: nobody has the pool alone.
const AT_ONCE: usize = 4;

/// What judges texts; blocking.
pub trait Classifier: Send + Sync + 'static {
    /// How likely each text is toxic, 0 to 1, in their order.
    ///
    /// # Errors
    ///
    /// What went wrong, for the log.
    fn score(&self, texts: &[&str]) -> Result<Vec<f32>, String>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    pub threads: NonZeroUsize,
    /// Texts that are judged together.
    pub batch: NonZeroUsize,
    /// Texts that may wait.
    pub queue: NonZeroUsize,
    /// The longest that one waits for its score.
    pub wait: Duration,
}

/// It has had no time, or could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered;

#[derive(Clone)]
pub struct Stage2 {
    queue: mpsc::Sender<Job>,
    wait: Duration,
}

struct Job {
    text: String,
    reply: oneshot::Sender<f32>,
}

// === impl PoolConfig ===

impl Default for PoolConfig {
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).expect("not zero");
        Self { threads: number(1), batch: number(16), queue: number(256), wait: Duration::from_millis(500) }
    }
}

// === impl Stage2 ===

impl Stage2 {
    /// Its threads end when the last clone is dropped.
    ///
    /// # Panics
    ///
    /// Where the system has no thread left.
    pub fn start(classifier: Arc<dyn Classifier>, config: PoolConfig) -> Self {
        let (queue, jobs) = mpsc::channel(config.queue.get());
        let jobs = Arc::new(std::sync::Mutex::new(jobs));
        for number in 0..config.threads.get() {
            let (classifier, jobs) = (classifier.clone(), jobs.clone());
            let work = move || work(&*classifier, &jobs, config.batch.get());
            let spawned = thread::Builder::new().name(format!("guard-{number}")).spawn(work);
            spawned.expect("a thread for the guard's second stage");
        }
        Self { queue, wait: config.wait }
    }

    /// The scores of texts, in their order.
    pub(super) async fn score(&self, texts: Vec<String>) -> Result<Vec<f32>, Unanswered> {
        let asking = async {
            let mut scores = Vec::with_capacity(texts.len());
            let mut replies = VecDeque::with_capacity(AT_ONCE);
            for text in texts {
                if replies.len() == AT_ONCE {
                    scores.push(answer(&mut replies).await?);
                }
                let (reply, answer) = oneshot::channel();
                self.queue.send(Job { text, reply }).await.map_err(|_| Unanswered)?;
                replies.push_back(answer);
            }
            while !replies.is_empty() {
                scores.push(answer(&mut replies).await?);
            }
            Ok(scores)
        };
        tokio::time::timeout(self.wait, asking).await.unwrap_or(Err(Unanswered))
    }
}

impl fmt::Debug for Stage2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage2").field("wait", &self.wait).finish_non_exhaustive()
    }
}

async fn answer(replies: &mut VecDeque<oneshot::Receiver<f32>>) -> Result<f32, Unanswered> {
    match replies.pop_front() {
        Some(reply) => reply.await.map_err(|_| Unanswered),
        None => Err(Unanswered),
    }
}

fn work(classifier: &dyn Classifier, jobs: &std::sync::Mutex<mpsc::Receiver<Job>>, most: usize) {
    loop {
        let mut batch = Vec::with_capacity(most);
        {
            let mut jobs = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match jobs.blocking_recv() {
                Some(job) => batch.push(job),
                None => return,
            }
            while batch.len() < most
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
        }
        // Who does not wait any more is not worked for.
        batch.retain(|job| !job.reply.is_closed());
        if batch.is_empty() {
            continue;
        }
        let texts: Vec<&str> = batch.iter().map(|job| job.text.as_str()).collect();
        // One that panics fails these texts, and not all that come later.
        let scored = panic::catch_unwind(AssertUnwindSafe(|| classifier.score(&texts)));
        match scored.unwrap_or_else(|_| Err("it panicked".to_owned())) {
            Ok(scores) => {
                for (job, score) in batch.into_iter().zip(scores) {
                    // It may have left meanwhile.
                    let _ = job.reply.send(score);
                }
            }
            // Their askers learn that nobody answers.
            Err(reason) => error!(reason, "the guard's second stage failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Says a text's length, when it may.
    struct Lengths {
        gate: Mutex<std::sync::mpsc::Receiver<()>>,
        batches: Mutex<Vec<usize>>,
    }

    impl Classifier for Lengths {
        fn score(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
            self.batches.lock().expect("sound").push(texts.len());
            self.gate.lock().expect("sound").recv().map_err(|error| error.to_string())?;
            Ok(texts.iter().map(|text| text.len() as f32).collect())
        }
    }

    fn lengths(queue: usize, wait: Duration) -> (Stage2, std::sync::mpsc::Sender<()>, Arc<Lengths>) {
        let (open, gate) = std::sync::mpsc::channel();
        let lengths = Arc::new(Lengths { gate: Mutex::new(gate), batches: Mutex::default() });
        let number = |number| NonZeroUsize::new(number).expect("not zero");
        let config = PoolConfig { threads: number(1), batch: number(2), queue: number(queue), wait };
        (Stage2::start(lengths.clone(), config), open, lengths)
    }

    #[tokio::test]
    async fn texts_are_judged_together_and_answered_each_its_own() {
        let (stage2, open, lengths) = lengths(8, Duration::from_secs(60));
        for _ in 0..9 {
            open.send(()).expect("open");
        }
        let ask = |text: &str| stage2.score(vec![text.to_owned(), format!("{text}{text}")]);
        let (one, other) = tokio::join!(ask("a"), ask("abc"));
        assert_eq!((one, other), (Ok(vec![1.0, 2.0]), Ok(vec![3.0, 6.0])));
        let batches = lengths.batches.lock().expect("sound").clone();
        assert!(batches.iter().all(|size| *size <= 2) && batches.iter().sum::<usize>() == 4, "{batches:?}");
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_and_not_worked_for() {
        let (stage2, open, lengths) = lengths(1, Duration::from_millis(20));
        assert_eq!(stage2.score(vec!["a".to_owned(); 5]).await, Err(Unanswered));
        assert_eq!(stage2.score(vec!["b".to_owned()]).await, Err(Unanswered));
        // The first batch is let go; of the others, whose askers are gone, none is begun.
        open.send(()).expect("open");
        for _ in 0..9 {
            open.send(()).expect("open");
        }
        let patient = Stage2 { wait: Duration::from_secs(60), ..stage2 };
        assert_eq!(patient.score(vec!["abcd".to_owned()]).await, Ok(vec![4.0]));
        assert_eq!(lengths.batches.lock().expect("sound").len(), 2);
    }

    #[tokio::test]
    async fn one_that_fails_is_no_answer() {
        let (stage2, open, _) = lengths(1, Duration::from_secs(60));
        drop(open);
        assert_eq!(stage2.score(vec!["a".to_owned()]).await, Err(Unanswered));
    }
}
