//! Gateways by a simulated clock.

use std::time::SystemTime;

use super::*;
use crate::admission::account::{Account, Answer, Due, WINDOWS};
use crate::admission::ledger::{Charged, Mode, Now, Tokens};
use crate::types::{Limit, Limits};

const STEP: Duration = Duration::from_millis(5);
/// Ticks of the loop, and an answer one step later.
const TICK: u32 = 5;

struct Simulation {
    limits: Limits,
    gateways: Vec<Gateway>,
    wholes: [Whole; WINDOWS.len()],
    epoch: u64,
    step: u32,
    /// Whether Redis is there.
    there: bool,
    /// Whether some of its answers are lost.
    loses_answers: bool,
}

#[derive(Default)]
struct Gateway {
    account: Account,
    answers: Vec<Answer>,
    running: Vec<(u32, Tokens, Charged)>,
    admitted: u64,
    refused: u64,
    /// Whether all has been told since Redis was away.
    settled: bool,
    /// Tokens that were really used.
    used: u64,
    /// Requests that have come, in parts of one.
    coming: f64,
}

impl Simulation {
    fn new(limits: Limits, gateways: usize) -> Self {
        let gateways = (0..gateways).map(|_| Gateway { settled: true, ..Gateway::default() }).collect();
        Self { limits, gateways, wholes: Default::default(), epoch: 1, step: 0, there: true, loses_answers: false }
    }

    fn now(&self, gateway: usize) -> Now {
        let gateways = self.gateways.len() as u32;
        let shared = self.gateways[gateway].settled;
        let mode = if shared { Mode::Shared { gateways } } else { Mode::Apart { gateways } };
        Now { moment: STEP * self.step, time: SystemTime::UNIX_EPOCH, mode }
    }

    /// Runs so long with so many requests a second at each gateway; how many
    /// were admitted.
    fn run(&mut self, seconds: u32, rates: &[f64]) -> u64 {
        let before = self.admitted();
        for _ in 0..seconds * 200 {
            for (gateway, rate) in rates.iter().enumerate() {
                self.gateways[gateway].coming += rate / 200.0;
                while self.gateways[gateway].coming >= 1.0 {
                    self.gateways[gateway].coming -= 1.0;
                    self.ask(gateway, Tokens { input: 10, output: 100 }, 20);
                }
            }
            self.advance();
        }
        self.admitted() - before
    }

    fn admitted(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.admitted).sum()
    }

    /// A request that is expected to use `reserved`, and takes `output` tokens
    /// and as many steps.
    fn ask(&mut self, gateway: usize, reserved: Tokens, output: u64) -> bool {
        let now = self.now(gateway);
        let Gateway { account, running, admitted, refused, used, .. } = &mut self.gateways[gateway];
        let refusal = account.refusals(&self.limits, now).next();
        if let Some((limit, ..)) = refusal {
            *refused += 1;
            account.refused(&self.limits, limit, now);
            return false;
        }
        let charged = account.begin(&self.limits, reserved, now);
        let left = Tokens { input: 0, output: reserved.output - output };
        running.push((self.step + output as u32, left, charged));
        *admitted += 1;
        *used += output;
        true
    }

    fn advance(&mut self) {
        self.step += 1;
        let count = self.gateways.len() as u32;
        for place in 0..self.gateways.len() {
            let (now, lost) = (self.now(place), self.loses_answers && self.step.is_multiple_of(7));
            let gateway = &mut self.gateways[place];
            let ended = gateway.running.extract_if(.., |(end, ..)| *end <= self.step);
            for (_, left, charged) in ended {
                gateway.account.end(&self.limits, left, charged, now);
            }
            if lost && !gateway.answers.is_empty() {
                gateway.answers.clear();
                gateway.account.unanswered();
            }
            for answer in gateway.answers.drain(..) {
                gateway.account.answered(answer, self.epoch, now);
                gateway.settled = true;
            }
            // Each at steps of its own.
            if !self.there || !(self.step + place as u32 * 2).is_multiple_of(TICK) {
                continue;
            }
            gateway.account.due(self.epoch, false, now, |due| {
                if let Due::Window { index, limit, report } = due {
                    let grant = self.wholes[index].report(place, report, limit, WINDOWS[index].1, count, now.moment);
                    gateway.answers.push(Answer::Window { index, grant });
                }
            });
            gateway.account.tidy(now);
        }
    }

    /// Redis goes.
    fn down(&mut self) {
        self.there = false;
        for gateway in &mut self.gateways {
            gateway.answers.clear();
            gateway.account.unanswered();
            gateway.settled = false;
        }
    }

    /// It is back, and knows nothing.
    fn up(&mut self) {
        (self.there, self.epoch, self.wholes) = (true, self.epoch + 1, Default::default());
    }
}

fn of(limit: Limit, most: u64) -> Limits {
    let mut limits = Limits::default();
    match limit {
        Limit::RequestsPerSecond => limits.requests_per_second = Some(most),
        Limit::RequestsPerMinute => limits.requests_per_minute = Some(most),
        _ => limits.output_tokens_per_minute = Some(most),
    }
    limits
}

/// Within 2 %, and the units that the gateways hold.
fn near(admitted: u64, expected: u64, held: u64) {
    let off = expected / 50 + held;
    assert!(admitted.abs_diff(expected) <= off, "{admitted} of {expected}, {off} off at most");
}

#[test]
fn under_three_times_the_load_a_minute_has_what_the_limit_allows() {
    for (limit, most, a_minute) in [
        (Limit::RequestsPerMinute, 60, 60),
        (Limit::RequestsPerMinute, 600, 600),
        (Limit::RequestsPerMinute, 6_000, 6_000),
        (Limit::RequestsPerSecond, 7, 420),
        (Limit::RequestsPerSecond, 20, 1_200),
        (Limit::RequestsPerSecond, 100, 6_000),
    ] {
        for parts in [[1.0, 1.0, 1.0], [2.6, 0.3, 0.1], [3.0, 0.0, 0.0]] {
            let rate = a_minute as f64 / 60.0;
            let rates: Vec<f64> = parts.iter().map(|part| part * rate).collect();
            let mut simulation = Simulation::new(of(limit, most), 3);
            let second = if limit == Limit::RequestsPerSecond { most } else { 0 };
            for minute in 0..4 {
                // The first second, and what is left of the one before, may be used at once.
                near(simulation.run(60, &rates), a_minute, 3 + if minute == 0 { second } else { 0 });
            }
        }
    }
}

#[test]
fn below_the_limit_nothing_is_refused_wherever_it_comes() {
    for parts in [[1.0, 1.0, 1.0], [2.6, 0.3, 0.1], [0.0, 3.0, 0.0]] {
        let rates: Vec<f64> = parts.iter().map(|part| part * 0.9 * 600.0 / 60.0 / 3.0).collect();
        let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
        simulation.run(300, &rates);
        let refused: u64 = simulation.gateways.iter().map(|gateway| gateway.refused).sum();
        assert_eq!(refused, 0, "{parts:?}");
    }
}

#[test]
fn what_one_gateway_used_up_is_used_up_at_all() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
    // Ever narrower slices, and nothing of it refused before the end.
    let first = simulation.run(10, &[60.0, 0.0, 0.0]);
    near(first, 600, 0);
    let second = simulation.run(10, &[0.0, 100.0, 100.0]);
    assert!(second <= 12, "{second}: what the others may spend unasked, no more");
    // And is paid back.
    near(simulation.run(160, &[10.0, 10.0, 10.0]), 1_200 - second, 3);
}

#[test]
fn a_burst_at_gateways_that_have_not_heard_of_the_tenant_is_within_the_limit() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
    for gateway in 0..3 {
        for _ in 0..1_000 {
            simulation.ask(gateway, Tokens::default(), 0);
        }
    }
    assert_eq!(simulation.admitted(), 600);
    // What comes until all have told of it.
    let more = simulation.run(59, &[100.0; 3]);
    assert!(more <= 20, "{more}");
    near(simulation.run(121, &[100.0; 3]), 1_200 - more, 0);
}

#[test]
fn tokens_that_were_not_used_come_back_wherever_they_were_reserved() {
    // 20 of the 100 that are expected are used.
    let mut simulation = Simulation::new(of(Limit::OutputTokensPerMinute, 30_000), 3);
    let mut used = |minutes: u32| {
        let before: u64 = simulation.gateways.iter().map(|gateway| gateway.used).sum();
        simulation.run(60 * minutes, &[30.0, 30.0, 15.0]);
        simulation.gateways.iter().map(|gateway| gateway.used).sum::<u64>() - before
    };
    near(used(1), 30_000, 0);
    near(used(20), 600_000, 0);
}

#[test]
fn without_redis_each_has_its_share_and_then_the_limit_holds_again() {
    for (limit, most, a_minute) in [
        (Limit::RequestsPerMinute, 600, 600),
        (Limit::RequestsPerSecond, 20, 1_200),
        (Limit::RequestsPerMinute, 100, 100),
    ] {
        let rate = a_minute as f64 / 60.0;
        let mut simulation = Simulation::new(of(limit, most), 3);
        let second = if limit == Limit::RequestsPerSecond { most } else { 0 };
        simulation.run(90, &[rate; 3]);
        simulation.down();
        near(simulation.run(60, &[rate; 3]), a_minute, second);
        // All at one gateway: it has its third.
        near(simulation.run(60, &[3.0 * rate, 0.0, 0.0]), a_minute / 3, second / 3 + 1);
        simulation.run(60, &[rate; 3]);
        simulation.up();
        near(simulation.run(60, &[rate; 3]), a_minute, 3 + second / 2);
        near(simulation.run(60, &[rate; 3]), a_minute, 3);
    }
}

#[test]
fn a_short_outage_gives_nobody_a_limit_more() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
    simulation.run(30, &[10.0; 3]);
    simulation.down();
    // Each at the rate of its share.
    assert!(simulation.run(2, &[10.0; 3]) <= 24);
    simulation.up();
    near(simulation.run(60, &[10.0; 3]), 600, 6);
}

#[test]
fn a_gateway_that_was_cut_off_pays_for_what_it_used() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
    simulation.run(90, &[10.0; 3]);
    simulation.down();
    simulation.run(90, &[10.0; 3]);
    // Redis has kept what it had.
    simulation.there = true;
    near(simulation.run(60, &[10.0; 3]), 600, 6);
    near(simulation.run(60, &[10.0; 3]), 600, 3);
}

#[test]
fn who_is_far_from_its_limit_is_refused_nothing_when_redis_comes_back() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
    for _ in 0..3 {
        simulation.run(60, &[0.3; 3]);
        simulation.down();
        simulation.run(1_200, &[0.3; 3]);
        simulation.up();
    }
    simulation.run(60, &[0.3; 3]);
    let refused: u64 = simulation.gateways.iter().map(|gateway| gateway.refused).sum();
    assert_eq!(refused, 0);
}

#[test]
fn answers_that_are_lost_change_nothing() {
    let mut simulation = Simulation::new(of(Limit::OutputTokensPerMinute, 30_000), 3);
    simulation.loses_answers = true;
    let mut used = |minutes: u32| {
        let before: u64 = simulation.gateways.iter().map(|gateway| gateway.used).sum();
        simulation.run(60 * minutes, &[30.0; 3]);
        simulation.gateways.iter().map(|gateway| gateway.used).sum::<u64>() - before
    };
    near(used(1), 30_000, 0);
    near(used(10), 300_000, 0);
}

#[test]
fn a_limit_that_is_changed_is_not_changed_back_by_what_runs() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 6_000), 3);
    simulation.run(5, &[20.0; 3]);
    let old = std::mem::replace(&mut simulation.limits, of(Limit::RequestsPerMinute, 60));
    // Until what was used under the old one is paid.
    simulation.run(400, &[20.0; 3]);
    let mut admitted = simulation.admitted();
    for _ in 0..60 {
        // A request from before ends, and knows the old limits.
        let now = simulation.now(0);
        let account = &mut simulation.gateways[0].account;
        account.charge_more(&old, Tokens { input: 0, output: 64 }, now);
        simulation.run(1, &[20.0; 3]);
    }
    admitted = simulation.admitted() - admitted;
    near(admitted, 60, 3);
}

#[test]
fn parts_are_forgotten_when_nothing_is_used_any_more() {
    let mut simulation = Simulation::new(of(Limit::RequestsPerMinute, 600), 3);
    simulation.run(5, &[10.0; 3]);
    assert!(simulation.gateways.iter().all(|gateway| gateway.account.has_parts()));
    simulation.run(130, &[0.0; 3]);
    assert!(simulation.gateways.iter().all(|gateway| !gateway.account.has_parts()));
    // What was granted is with the others again.
    let now = simulation.now(0).moment;
    assert_eq!(simulation.wholes[1].window.allowance(600, Duration::from_secs(60), now).remaining, 600);
}
