//! A gateway's part of the generations that a tenant may run at one time at
//! several gateways. Pure: time is passed in.

use std::time::Duration;

use super::slice::QUICK;
use crate::admission::window::Moment;

/// Places of a gateway that has not reported for so long are free again: its
/// generations ended with it.
pub(super) const DEAD: Duration = Duration::from_secs(10);
/// Reports while places are held.
const SLOW: Duration = Duration::from_secs(1);
const WANTED: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default)]
pub(in crate::admission) struct Places {
    /// Of the limit, this gateway's.
    granted: u64,
    /// Nobody's.
    free: u64,
    told: Option<Moment>,
    under_way: bool,
    wanted: Moment,
}

// === impl Places ===

impl Places {
    /// How many generations may run here.
    pub(in crate::admission) fn room(&self, limit: u64, gateways: u32, now: Moment) -> u64 {
        let gateways = u64::from(gateways.max(1));
        match self.told {
            Some(told) if now < told + DEAD => self.granted + self.free.div_ceil(gateways),
            _ => (limit / gateways).max(1),
        }
    }

    /// What is there for this gateway and for nobody yet, as far as it was told.
    pub(in crate::admission) fn there(&self, limit: u64, now: Moment) -> u64 {
        match self.told {
            Some(told) if now < told + DEAD => self.granted + self.free,
            _ => limit,
        }
    }

    pub(in crate::admission) fn refused(&mut self, now: Moment) {
        self.wanted = now + WANTED;
    }

    /// When it is to be reported next, with so many generations running.
    pub(in crate::admission) fn due(&self, running: u64, now: Moment) -> Option<Moment> {
        let wanted = now < self.wanted;
        if self.under_way || (running == 0 && self.granted == 0 && !wanted) {
            return None;
        }
        let Some(told) = self.told else { return Some(now) };
        let tight = wanted || running >= self.granted || self.free == 0;
        Some(told + if tight { QUICK } else { SLOW })
    }

    /// Begins a report; whether it wants more places than run.
    pub(in crate::admission) fn report(&mut self, running: u64, now: Moment) -> bool {
        self.under_way = true;
        running > 0 || now < self.wanted
    }

    pub(in crate::admission) fn granted(&mut self, granted: u64, free: u64, now: Moment) {
        (self.granted, self.free, self.told, self.under_way) = (granted, free, Some(now), false);
    }

    pub(in crate::admission) fn unanswered(&mut self) {
        self.under_way = false;
    }

    pub(in crate::admission) fn is_spent(&self, running: u64, now: Moment) -> bool {
        running == 0 && self.granted == 0 && !self.under_way && now >= self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gateway_has_its_share_until_it_is_granted_more_and_again_when_it_was_silent() {
        let mut places = Places::default();
        assert_eq!((places.room(10, 3, SECOND), places.room(2, 3, SECOND)), (3, 1));
        assert_eq!(places.due(0, SECOND), None, "nothing to say");
        assert_eq!(places.due(1, SECOND), Some(SECOND));
        assert!(places.report(1, SECOND), "it wants more than it runs");
        assert_eq!(places.due(1, SECOND), None, "one report at a time");
        places.granted(4, 6, SECOND);
        assert_eq!(places.room(10, 3, SECOND), 4 + 2);
        assert_eq!(places.due(1, SECOND), Some(SECOND * 2), "there is enough");
        assert_eq!(places.due(4, SECOND), Some(SECOND + QUICK), "it has all it was granted");
        assert_eq!((places.room(10, 3, SECOND + DEAD), places.there(10, SECOND)), (3, 10));
        places.granted(0, 1, SECOND);
        assert_eq!(places.room(10, 3, SECOND), 1, "nobody is refused what is free");
    }

    #[test]
    fn who_was_refused_asks_again_soon_and_who_runs_nothing_gives_back() {
        let mut places = Places::default();
        places.refused(SECOND);
        assert!(places.report(0, SECOND));
        places.unanswered();
        assert_eq!(places.due(0, SECOND), Some(SECOND), "nobody has answered");
        assert!(places.report(0, SECOND));
        places.granted(1, 0, SECOND);
        let later = SECOND * 4;
        assert!(places.due(0, later).is_some_and(|at| at <= later));
        assert!(!places.report(0, later), "nobody wants it any more");
        places.granted(0, 1, later);
        assert_eq!(places.due(0, later), None);
        assert!(places.is_spent(0, later));
    }
}
