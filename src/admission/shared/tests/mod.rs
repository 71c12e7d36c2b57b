//! Limits over several gateways: by a simulated clock, with what the scripts do
//! written a second time in Rust, and the scripts themselves held against that.

mod scripts;
mod simulated;

use std::collections::BTreeMap;
use std::time::Duration;

use super::slice::{AHEAD, Grant, Report};
use crate::admission::window::{Moment, Window};

/// The state that gateways share of one limit.
#[derive(Debug, Default)]
struct Whole {
    window: Window,
    /// Of each gateway the number of its last report, what it said and what it was granted.
    gateways: BTreeMap<usize, (u64, i64, u64)>,
}

impl Whole {
    fn report(
        &mut self,
        gateway: usize,
        report: Report,
        limit: u64,
        period: Duration,
        gateways: u32,
        now: Moment,
    ) -> Grant {
        let known = self.gateways.get(&gateway).copied();
        let (_, _, lease) = known.unwrap_or_default();
        let (mut net, mut before) = (report.spent.saturating_sub_unsigned(lease), report.before);
        if let Some((_, said, _)) = known.filter(|(number, ..)| *number == report.number) {
            if before > 0 {
                before = before.saturating_add_signed(-said);
            } else {
                net -= said;
            }
        }
        let window = &mut self.window;
        window.charge(u64::try_from(net).unwrap_or(0), limit, period, now);
        if net < 0 {
            window.refund(net.unsigned_abs(), now, limit, period, now);
        }
        if before > 0 {
            *window = window.sliding(before, limit, period, now);
        }
        let mut granted = 0;
        if report.wanted > 0 {
            let left = window.allowance(limit, period, now + AHEAD).remaining;
            granted = left.div_ceil(gateways.into()).max(report.wanted).min(left);
            window.charge(granted, limit, period, now);
        }
        let said = report.spent.saturating_add_unsigned(report.before);
        self.gateways.insert(gateway, (report.number, said, granted));
        let told = window.allowance(limit, period, now);
        let wait = if told.remaining == 0 { window.wait(limit, period, now) } else { Duration::ZERO };
        if told.reset.is_zero() {
            self.gateways.clear();
        }
        Grant { granted, remaining: told.remaining, wait, reset: told.reset }
    }
}
