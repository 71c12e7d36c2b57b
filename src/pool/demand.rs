//! How much each adapter is wanted, and on how many workers it should
//! therefore be. Pure: time is passed in.
//!
//! Demand is tokens a second, asked for lately. An adapter gets one copy while
//! it is in use, and one more for each two fifths of a worker's speed that is asked
//! of it. Copies grow at once and shrink late, so that demand around a
//! threshold does not load and unload.
//!
//! What an adapter is worth is how often it is asked for, over a longer time:
//! each time that it is there saves a load. Where not all fit, those that are
//! worth most are kept.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapters::Artifact;
use crate::types::{AdapterKey, BaseName};

/// After this without a request half of what was asked before is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// The same for what an adapter is worth.
const WORTH_HALF_LIFE: Duration = Duration::from_secs(600);
/// Of a worker's speed, what one copy of an adapter is meant to serve.
const SHARE: f64 = 0.4;
/// Of what the copies but one could serve, the demand below which one goes.
const SHRINK: f64 = 0.6;
/// For so long the demand has to be that low.
const PATIENCE: Duration = Duration::from_secs(30);
/// An adapter that nobody asked for in this time is kept where there is room,
/// and nowhere brought back.
const FORGOTTEN: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Demand {
    by_key: HashMap<AdapterKey, Asked>,
    ticked: Option<Instant>,
}

#[derive(Debug)]
struct Asked {
    base: BaseName,
    /// Tokens since the last tick.
    fresh: f64,
    /// Tokens a second.
    rate: f64,
    /// Requests since the last tick.
    requests: f64,
    /// Requests a second, over a longer time.
    worth: f64,
    last: Instant,
    copies: usize,
    low_since: Option<Instant>,
}

/// An adapter, and on how many workers it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub artifact: Artifact,
    pub copies: usize,
    /// Requests a second, over a longer time.
    pub worth: f64,
}

// === impl Demand ===

impl Demand {
    /// A request asks for so many tokens. A publish asks for none, and for a copy.
    pub(super) fn asked(&mut self, artifact: &Artifact, tokens: u32, now: Instant) {
        let asked = self.by_key.entry(artifact.key.clone()).or_insert_with(|| Asked {
            base: artifact.base.clone(),
            fresh: 0.0,
            rate: 0.0,
            requests: 0.0,
            worth: 0.0,
            last: now,
            copies: 1,
            low_since: None,
        });
        asked.fresh += f64::from(tokens);
        asked.requests += 1.0;
        asked.last = now;
    }

    pub(super) fn forget(&mut self, key: &AdapterKey) {
        self.by_key.remove(key);
    }

    /// What is wanted now, most wanted first. `speed` is what one worker of a
    /// base model does, in tokens a second, and `most` how many there are.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        speed: impl Fn(&BaseName) -> f64,
        most: impl Fn(&BaseName) -> usize,
    ) -> Vec<Wanted> {
        let passed = self.ticked.replace(now).map_or(Duration::ZERO, |before| now - before).as_secs_f64();
        self.by_key.retain(|_, asked| now < asked.last + FORGOTTEN);
        let mut wanted = Vec::new();
        for (key, asked) in &mut self.by_key {
            if passed > 0.0 {
                let average = |before: f64, new: f64, half_life: Duration| {
                    let kept = 0.5_f64.powf(passed / half_life.as_secs_f64());
                    before * kept + new / passed * (1.0 - kept)
                };
                asked.rate = average(asked.rate, asked.fresh, HALF_LIFE);
                asked.worth = average(asked.worth, asked.requests, WORTH_HALF_LIFE);
                (asked.fresh, asked.requests) = (0.0, 0.0);
            }
            asked.settle(now, speed(&asked.base) * SHARE, most(&asked.base));
            let artifact = Artifact { key: key.clone(), base: asked.base.clone() };
            wanted.push(Wanted { artifact, copies: asked.copies, worth: asked.worth });
        }
        wanted.sort_by(|one, other| {
            other.worth.total_cmp(&one.worth).then_with(|| one.artifact.key.cmp(&other.artifact.key))
        });
        wanted
    }
}

// === impl Asked ===

impl Asked {
    fn settle(&mut self, now: Instant, per_copy: f64, most: usize) {
        let needed = ((self.rate / per_copy).ceil() as usize).clamp(1, most.max(1));
        let low = self.copies > 1 && self.rate < (self.copies - 1) as f64 * per_copy * SHRINK;
        if needed > self.copies {
            (self.copies, self.low_since) = (needed, None);
        } else if !low {
            self.low_since = None;
        } else if now >= *self.low_since.get_or_insert(now) + PATIENCE {
            // One at a time, each after its own wait.
            (self.copies, self.low_since) = (self.copies - 1, Some(now));
        }
        self.copies = self.copies.min(most.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TenantId;

    const SPEED: f64 = 1_000.0;

    struct Clock {
        demand: Demand,
        now: Instant,
    }

    fn artifact() -> Artifact {
        let key = AdapterKey { tenant: TenantId::new("t"), name: "a".into(), revision: 1, digest: "d".into() };
        Artifact { key, base: BaseName::new("base") }
    }

    impl Clock {
        fn new() -> Self {
            let mut clock = Self { demand: Demand::default(), now: Instant::now() };
            clock.tick();
            clock
        }

        fn tick(&mut self) -> Option<usize> {
            let wanted = self.demand.tick(self.now, |_| SPEED, |_| 8);
            wanted.first().map(|wanted| wanted.copies)
        }

        /// So many seconds with so many tokens a second; the copies then, and the most on the way.
        fn run(&mut self, seconds: u32, tokens: u32) -> (usize, usize) {
            let mut most = 0;
            for _ in 0..seconds {
                if tokens > 0 {
                    self.demand.asked(&artifact(), tokens, self.now);
                }
                self.now += Duration::from_secs(1);
                most = most.max(self.tick().unwrap_or(0));
            }
            (self.tick().unwrap_or(0), most)
        }
    }

    #[test]
    fn an_adapter_in_demand_spreads_and_shrinks_back() {
        let mut clock = Clock::new();
        assert_eq!(clock.run(120, 100), (1, 1));
        assert_eq!(clock.run(120, 1_900).0, 5);
        assert_eq!(clock.run(120, 9_000).0, 8, "never more than there are workers");
        assert_eq!(clock.run(500, 100).0, 1);
        assert_eq!(clock.run(700, 0).0, 0, "forgotten");
    }

    #[test]
    fn demand_around_a_threshold_changes_nothing() {
        let mut clock = Clock::new();
        clock.run(120, 1_100);
        let before = clock.tick();
        for _ in 0..20 {
            assert_eq!(Some(clock.run(10, 950).0), before);
            assert_eq!(Some(clock.run(10, 1_100).0), before);
        }
    }

    #[test]
    fn a_publish_asks_for_one_copy() {
        let mut clock = Clock::new();
        clock.demand.asked(&artifact(), 0, clock.now);
        assert_eq!(clock.tick(), Some(1));
        clock.demand.forget(&artifact().key);
        assert_eq!(clock.tick(), None);
    }
}
