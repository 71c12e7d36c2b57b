//! Limits over several gateways: by a simulated clock, with what the scripts do
//! written a second time in Rust, and the scripts themselves held against that.

mod scripts;
mod simulated;

use std::time::Duration;

use super::slice::{AHEAD, Grant, Report};
use crate::admission::window::{Moment, Window};

/// The state that gateways share of one limit.
#[derive(Debug, Default)]
struct Whole(Window);

impl Whole {
    fn report(&mut self, report: Report, limit: u64, period: Duration, gateways: u32, now: Moment) -> Grant {
        if report.net > 0 {
            self.0.charge(report.net.unsigned_abs(), limit, period, now);
        } else {
            self.0.charge(0, limit, period, now);
            self.0.refund(report.net.unsigned_abs(), now, limit, period, now);
        }
        if report.before > 0 {
            self.0 = self.0.sliding(report.before, limit, period, now);
        }
        let mut granted = 0;
        if report.wanted > 0 {
            let left = self.0.allowance(limit, period, now + AHEAD).remaining;
            granted = left.div_ceil(gateways.into()).max(report.wanted).min(left);
            self.0.charge(granted, limit, period, now);
        }
        let told = self.0.allowance(limit, period, now);
        let wait = if told.remaining == 0 { self.0.wait(limit, period, now) } else { Duration::ZERO };
        Grant { granted, remaining: told.remaining, wait, reset: told.reset }
    }
}
