use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

/// Charges one unit wherever one is left, at `now`.
fn take(window: &mut Window, limit: u64, now: Moment) -> bool {
    let left = window.allowance(limit, MINUTE, now).remaining > 0;
    if left {
        window.charge(1, limit, MINUTE, now);
    }
    left
}

#[test]
fn a_limit_may_be_used_at_once_and_is_then_given_evenly() {
    let mut window = Window::default();
    let mut admitted = [0_u64; 4];
    // Ten times as many requests as the limit allows, beginning at an odd time.
    for request in 0..4 * 600 {
        let now = at(1000.7 + f64::from(request) * 0.1);
        admitted[request as usize / 600] += u64::from(take(&mut window, 60, now));
    }
    assert_eq!(admitted[0], 60, "the first minute sees its limit and no more");
    for minute in &admitted[1..] {
        assert_eq!(*minute, 60, "{admitted:?}");
    }
    // After the first, no second sees more than two.
    let mut second = 0;
    for tenth in 0..600 {
        let now = at(1240.7 + f64::from(tenth) * 0.1);
        second += u32::from(take(&mut window, 60, now));
        if tenth % 10 == 9 {
            assert!(second <= 2, "{second} within a second");
            second = 0;
        }
    }
}

#[test]
fn the_smallest_limits_are_exact_too() {
    for limit in 1..5 {
        let (mut window, mut admitted) = (Window::default(), 0);
        for tenth in 0..6000 {
            admitted += u64::from(take(&mut window, limit, at(f64::from(tenth) * 0.1)));
        }
        assert_eq!(admitted, limit * 10, "{limit} a minute, for ten minutes");
    }
    let mut window = Window::default();
    window.charge(1, 1, MINUTE, at(0.0));
    assert_eq!(window.wait(1, MINUTE, at(0.0)).as_millis(), 60_000);
}

#[test]
fn a_debt_is_paid_by_the_periods_that_follow_and_not_forgiven() {
    let mut window = Window::default();
    window.charge(350, 100, MINUTE, at(0.0));
    for (now, remaining) in [(0.0, 0), (61.0, 0), (121.0, 0), (179.0, 0), (210.0, 0), (239.9, 50), (300.0, 100)] {
        assert_eq!(window.allowance(100, MINUTE, at(now)).remaining, remaining, "{now}");
    }
    // Three and a half periods are paid with; then half of the third has slid out of the fourth.
    assert_eq!(window.wait(100, MINUTE, at(1.0)).as_millis(), 209_000);
    assert_eq!(window.allowance(100, MINUTE, at(1.0)).reset, at(299.0));
}

#[test]
fn what_was_reserved_and_not_used_is_there_again() {
    let mut window = Window::default();
    window.charge(1000, 1000, MINUTE, at(10.0));
    assert_eq!(window.allowance(1000, MINUTE, at(11.0)).remaining, 0);
    window.refund(900, at(10.0), 1000, MINUTE, at(12.0));
    assert_eq!(window.allowance(1000, MINUTE, at(12.0)).remaining, 900);
    // The reservation's period is over when it is given back.
    window.charge(900, 1000, MINUTE, at(20.0));
    window.charge(300, 1000, MINUTE, at(71.0));
    window.refund(850, at(20.0), 1000, MINUTE, at(72.0));
    let left = window.allowance(1000, MINUTE, at(72.0)).remaining;
    assert!((550..=560).contains(&left), "150 of the first period and 300 of this one: {left}");
}

#[test]
fn a_clock_that_steps_back_gives_nothing_and_takes_nothing() {
    let mut window = Window::default();
    window.charge(60, 60, MINUTE, at(100.0));
    assert_eq!(window.allowance(60, MINUTE, at(5.0)).remaining, 0);
    window.charge(1, 60, MINUTE, at(5.0));
    assert_eq!(window.allowance(60, MINUTE, at(160.0)).remaining, 0);
    assert_eq!(window.allowance(60, MINUTE, at(100_000_000_000.0)).remaining, 60);
}

#[test]
fn an_idle_window_is_as_a_new_one() {
    let mut window = Window::default();
    window.charge(3, 60, MINUTE, at(0.0));
    assert_ne!(window.allowance(60, MINUTE, at(100.0)), Window::default().allowance(60, MINUTE, at(0.0)));
    assert_eq!(window.allowance(60, MINUTE, at(120.0)), Window::default().allowance(60, MINUTE, at(0.0)));
}

proptest! {
    /// Requests cost what they cost; what is used stays exact over any length.
    #[test]
    fn no_stretch_sees_more_than_its_limit_and_the_requests_in_flight(
        limit in 1_u64..500,
        steps in prop::collection::vec((0_u64..20_000, 0_u64..300, 0_u64..300, 0_usize..6), 1..300),
    ) {
        let (mut window, mut now) = (Window::default(), Duration::ZERO);
        // Requests that run: when they were admitted, what was reserved, what they use.
        let mut running: Vec<(Moment, u64, u64)> = Vec::new();
        let (mut used, mut largest) = (0_u64, 0_u64);
        let mut begin = None;
        for (millis, reserved, uses, ends) in steps {
            now += Duration::from_millis(millis);
            if window.allowance(limit, MINUTE, now).remaining > 0 {
                begin.get_or_insert(now);
                window.charge(reserved, limit, MINUTE, now);
                running.push((now, reserved, uses));
            }
            if running.len() > ends {
                let (charged, reserved, uses) = running.remove(0);
                used += uses;
                match uses.checked_sub(reserved) {
                    Some(more) => window.charge(more, limit, MINUTE, now),
                    None => window.refund(reserved - uses, charged, limit, MINUTE, now),
                }
            }
            let in_flight: u64 = running.iter().map(|(_, reserved, uses)| (*reserved).max(*uses)).sum();
            largest = largest.max(in_flight + 600);
            let periods = begin.map_or(0, |begin| (now - begin).as_secs() / 60 + 1);
            prop_assert!(used <= limit * periods + 6 * 300 + largest, "{used} in {periods} periods of {limit}");
        }
    }

    /// Where more is asked for than is allowed, all that is allowed is given.
    #[test]
    fn a_tenant_that_asks_for_more_is_given_its_limit_to_within_one_percent(
        limit in 300_u64..3000,
        costs in prop::collection::vec(1_u64..40, 50),
    ) {
        let (mut window, mut used, mut next) = (Window::default(), 0_u64, 0);
        let minutes = 30;
        for millis in (0..minutes * 60_000_u64).step_by(50) {
            let now = Duration::from_millis(millis);
            for _ in 0..8 {
                if window.allowance(limit, MINUTE, now).remaining == 0 {
                    break;
                }
                // The estimate is wrong by a factor of two, either way.
                let cost = costs[next % costs.len()];
                let reserved = if next % 2 == 0 { cost * 2 } else { cost.div_ceil(2) };
                window.charge(reserved, limit, MINUTE, now);
                match cost.checked_sub(reserved) {
                    Some(more) => window.charge(more, limit, MINUTE, now),
                    None => window.refund(reserved - cost, now, limit, MINUTE, now),
                }
                (used, next) = (used + cost, next + 1);
            }
        }
        let exact = limit * minutes;
        prop_assert!(used.abs_diff(exact) * 100 <= exact, "{used}, not {exact}");
    }

    /// Waiting for as long as is said is enough, and not much more than needed.
    #[test]
    fn a_wait_is_as_long_as_it_has_to_be(
        limit in 1_u64..1000,
        charges in prop::collection::vec((0_u64..90_000, 0_u64..2500), 1..20),
    ) {
        let (mut window, mut now) = (Window::default(), Duration::ZERO);
        for (millis, units) in charges {
            now += Duration::from_millis(millis);
            window.charge(units, limit, MINUTE, now);
            let wait = window.wait(limit, MINUTE, now);
            prop_assert!(window.allowance(limit, MINUTE, now + wait).remaining > 0, "{window:?} {now:?} {wait:?}");
            if wait > Duration::from_millis(1) {
                let early = now + wait - Duration::from_millis(1);
                prop_assert_eq!(window.allowance(limit, MINUTE, early).remaining, 0, "{:?} {:?}", window, wait);
            }
        }
    }
}
