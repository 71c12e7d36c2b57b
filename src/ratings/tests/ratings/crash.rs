//! Killed at random moments, again and again, in one spool.

use std::time::Duration;

use crate::process::{Answered, Appender};
use crate::support::{events_in, folder};

/// How often; 200 with `TENANTRY_CRASHES=200`.
const CRASHES: usize = 30;

#[test]
fn nothing_that_was_answered_is_lost_by_crashes() {
    let crashes = std::env::var("TENANTRY_CRASHES").map_or(CRASHES, |count| count.parse().expect("a number"));
    let (spool, events, copy) = (folder(), folder(), folder());
    let mut answered = Answered::of(&["acme", "globex", "initech", "hooli", "umbrella", "stark"]);
    let mut without = 0;
    for _ in 0..crashes {
        let before = answered.count();
        let appender = Appender::start(&[], spool.path(), events.path(), &answered);
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random numbers");
        // From its start, so that some die while they open what the last one left.
        std::thread::sleep(Duration::from_micros(u64::from(u16::from_ne_bytes(random)) * 4));
        appender.kill(&mut answered);
        without += usize::from(answered.count() == before);
    }
    assert!(without < crashes, "none came to answer anything");
    let last = Appender::start(&[], spool.path(), events.path(), &answered);
    last.finish(&mut answered, copy.path());
    answered.check(&events_in(events.path()));
}
