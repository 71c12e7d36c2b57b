//! Whatever happens, in random order: against a plain model, and the bounds
//! that the queue promises.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push {
        tenant: usize,
        class: Priority,
        tokens: u64,
        seats: u32,
    },
    /// Of those that wait.
    Remove(usize),
    /// With what it takes, in percent of what is expected, and the free seats.
    Pop(u64, u32),
    /// Of those that run.
    Settle(usize),
    Evict(usize, usize),
}

fn steps(percent: impl Strategy<Value = u64> + 'static) -> impl Strategy<Value = Vec<Step>> {
    let tokens = prop_oneof![1..=20_u64, 1..=1000_u64];
    let class = || prop::sample::select(Priority::ALL.to_vec());
    let step = prop_oneof![
        40 => (0..TENANTS, class(), tokens, 1..=4_u32)
            .prop_map(|(tenant, class, tokens, seats)| Step::Push { tenant, class, tokens, seats }),
        4 => any::<usize>().prop_map(Step::Remove),
        36 => (percent, prop_oneof![3 => Just(u32::MAX), 1 => 1..=4_u32]).prop_map(|(of, free)| Step::Pop(of, free)),
        30 => any::<usize>().prop_map(Step::Settle),
        1 => (0..TENANTS, 0..6_usize).prop_map(|(tenant, keep)| Step::Evict(tenant, keep)),
    ];
    prop::collection::vec(step, 0..400)
}

/// By weight, as fine as the queue counts.
fn by_weight(tokens: u64, weight: u32) -> i128 {
    (i128::from(tokens.max(1)) << 32) / i128::from(weight)
}

/// The service of some that compete, by weight, and how far one came ahead of
/// another while that one waited.
#[derive(Debug, Clone)]
struct Race<const N: usize> {
    weights: [u32; N],
    served: [i128; N],
    largest: [i128; N],
    waits: [bool; N],
    /// Of `[i][j]`: the least that j was ahead of i while i has been waiting.
    least: [[i128; N]; N],
    /// By how much what runs is off, and the most that it was for one of them.
    off: [i128; N],
    most_off: i128,
}

impl<const N: usize> Race<N> {
    fn new(weights: [u32; N]) -> Self {
        let zeros = [0; N];
        let (waits, least) = ([false; N], [zeros; N]);
        Self { weights, served: zeros, largest: zeros, waits, least, off: zeros, most_off: 0 }
    }

    fn push(&mut self, flow: usize, tokens: u64) {
        self.largest[flow] = self.largest[flow].max(by_weight(tokens, self.weights[flow]));
    }

    fn waits(&mut self, flow: usize, waits: bool) {
        if waits && !self.waits[flow] {
            self.least[flow] = self.served.map(|served| served - self.served[flow]);
        }
        self.waits[flow] = waits;
    }

    fn off(&self, flow: usize, expected: u64, actual: u64) -> i128 {
        (by_weight(actual, self.weights[flow]) - by_weight(expected, self.weights[flow])).abs()
    }

    fn settle(&mut self, flow: usize, expected: u64, actual: u64) {
        self.off[flow] -= self.off(flow, expected, actual);
    }

    /// Serves one, and checks the bound at the top of `queue.rs`.
    fn serve(&mut self, flow: usize, expected: u64, actual: u64) -> Result<(), TestCaseError> {
        prop_assert!(self.waits[flow]);
        self.served[flow] += by_weight(actual, self.weights[flow]);
        self.off[flow] += self.off(flow, expected, actual);
        self.most_off = self.most_off.max(self.off[flow]);
        for one in (0..N).filter(|one| self.waits[*one]) {
            for other in (0..N).filter(|other| *other != one) {
                let ahead = self.served[other] - self.served[one];
                let least = &mut self.least[one][other];
                *least = ahead.min(*least);
                let bound = self.largest[one] + self.largest[other] + 4 * self.most_off;
                prop_assert!(ahead - *least <= bound, "{other} before {one}: {} of {bound}", ahead - *least);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Waiting {
    value: usize,
    ticket: Ticket<usize>,
    tenant: usize,
    class: Priority,
    tokens: u64,
    seats: u32,
    /// When all that is served exceeds this, it has starved.
    until: f64,
}

/// The queue, and all that should hold of it.
struct World {
    queue: FairQueue<usize, usize>,
    bounds: Bounds,
    /// The largest request there will be, where expectations are right.
    largest: Option<u64>,
    waiting: Vec<Waiting>,
    running: Vec<(Account<usize>, u64)>,
    classes: Race<2>,
    tenants: [Race<TENANTS>; 2],
    values: usize,
    served: f64,
}

impl World {
    fn new(bounds: Bounds, largest: Option<u64>) -> Self {
        let tenants = [Race::new(WEIGHTS), Race::new(WEIGHTS)];
        let (waiting, running) = (Vec::new(), Vec::new());
        let classes = Race::new([8, 1]);
        Self { queue: FairQueue::new(), bounds, largest, waiting, running, classes, tenants, values: 0, served: 0.0 }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push { tenant, class, tokens, seats } => self.push(Ask { seats, ..ask(tenant, class, tokens) })?,
            Step::Remove(index) if !self.waiting.is_empty() => {
                let gone = self.waiting.remove(index % self.waiting.len());
                prop_assert_eq!(self.queue.remove(gone.ticket.clone()), Some(gone.value));
                prop_assert_eq!(self.queue.remove(gone.ticket), None);
            }
            Step::Pop(percent, free) => self.pop(percent, free)?,
            Step::Settle(index) if !self.running.is_empty() => self.settle(index % self.running.len()),
            Step::Evict(tenant, keep) => {
                let gone = self.queue.evict(&tenant, keep);
                let newest = self.waiting.iter().filter(|it| it.tenant == tenant).skip(keep).map(|it| it.value);
                prop_assert_eq!(&gone, &newest.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>());
                self.waiting.retain(|it| !gone.contains(&it.value));
            }
            Step::Remove(_) | Step::Settle(_) => {}
        }
        self.check()
    }

    fn push(&mut self, ask: Ask<usize>) -> Result<(), TestCaseError> {
        let value = self.values;
        self.values += 1;
        let (full, of_tenant) = (self.waiting.len() >= self.bounds.of_all, self.queue.len_of(&ask.tenant));
        let victim = if full { self.victim(&ask) } else { None };
        let until = self.served + self.longest_wait(&ask);
        match self.queue.push(ask.clone(), self.bounds, value) {
            Err((reason, returned)) => {
                prop_assert_eq!(returned, value);
                let expected = if of_tenant >= self.bounds.of_tenant { Full::OfTenant } else { Full::OfAll };
                prop_assert_eq!(reason, expected);
                prop_assert!(reason == Full::OfTenant || (full && victim.is_none()));
            }
            Ok(Pushed { ticket, displaced }) => {
                prop_assert!(of_tenant < self.bounds.of_tenant);
                prop_assert_eq!(displaced, victim);
                prop_assert!(!full || displaced.is_some());
                self.waiting.retain(|it| Some(it.value) != displaced);
                let Ask { tenant, class, tokens, seats, .. } = ask;
                self.classes.push(class as usize, tokens);
                self.tenants[class as usize].push(tenant, tokens);
                self.waiting.push(Waiting { value, ticket, tenant, class, tokens, seats, until });
            }
        }
        Ok(())
    }

    /// The newest of the tenant of which most tokens of batch wait; or else of
    /// the one of its class that has more by weight than the asker will.
    fn victim(&self, ask: &Ask<usize>) -> Option<usize> {
        let of = |class, tenant| self.waiting.iter().filter(move |it| it.class == class && it.tenant == tenant);
        let tokens = |class, tenant| of(class, tenant).map(|it| it.tokens).sum::<u64>();
        let batch = (0..TENANTS).max_by_key(|tenant| tokens(Priority::Batch, *tenant))?;
        if ask.class == Priority::Interactive
            && let Some(shed) = of(Priority::Batch, batch).next_back()
        {
            return Some(shed.value);
        }
        let by_weight = |tokens: u64, tenant: usize| tokens / u64::from(WEIGHTS[tenant]);
        let waits = |tenant: &usize| of(ask.class, *tenant).next().is_some();
        let heaviest =
            (0..TENANTS).filter(waits).max_by_key(|tenant| by_weight(tokens(ask.class, *tenant), *tenant))?;
        let newest = of(ask.class, heaviest).next_back()?;
        let left = by_weight(tokens(ask.class, heaviest) - newest.tokens, heaviest);
        let own = (tokens(ask.class, ask.tenant) + ask.tokens) / u64::from(ask.weight);
        (heaviest != ask.tenant && left > own).then_some(newest.value)
    }

    /// What may be served before a request that comes now has been.
    fn longest_wait(&self, ask: &Ask<usize>) -> f64 {
        let Some(largest) = self.largest.map(|largest| largest as f64) else { return f64::INFINITY };
        let own = self.waiting.iter().filter(|it| it.tenant == ask.tenant && it.class == ask.class);
        let own = own.map(|it| it.tokens).sum::<u64>() as f64;
        let of = |tokens: f64, weight: f64, other: f64| other * (tokens / weight + largest / weight + largest / other);
        let weight = f64::from(ask.weight);
        let others = (0..TENANTS).filter(|tenant| *tenant != ask.tenant).map(|tenant| f64::from(WEIGHTS[tenant]));
        let of_class = own + others.map(|other| of(own, weight, other)).sum::<f64>();
        let (class, other) = if ask.class == Priority::Interactive { (8.0, 1.0) } else { (1.0, 8.0) };
        of_class + of(of_class, class, other) + 1.0
    }

    fn pop(&mut self, percent: u64, free: u32) -> Result<(), TestCaseError> {
        let flows = self.queue.flows();
        let Some(Served { value, account }) = self.queue.serve(free) else {
            prop_assert!(self.waiting.is_empty() || free < 4, "there is work and room for it");
            prop_assert_eq!((self.queue.len(), self.queue.flows()), (self.waiting.len(), flows));
            return Ok(());
        };
        let same = |it: &Waiting| it.tenant == *account.tenant() && it.class == account.class();
        let first = self.waiting.iter().position(same).expect("it waits");
        let Waiting { tenant, class, tokens, seats, until, .. } = self.waiting[first].clone();
        prop_assert_eq!((self.waiting.remove(first).value, account.tokens()), (value, tokens));
        prop_assert!(seats <= free);
        prop_assert!(self.served <= until, "it has starved: {} of {until}", self.served);
        let actual = tokens * percent / 100;
        self.served += actual as f64;
        self.classes.serve(class as usize, tokens, actual)?;
        self.tenants[class as usize].serve(tenant, tokens, actual)?;
        self.running.push((account, actual));
        Ok(())
    }

    fn settle(&mut self, index: usize) {
        let (account, actual) = self.running.swap_remove(index);
        let (tenant, class, tokens) = (*account.tenant(), account.class() as usize, account.tokens());
        self.classes.settle(class, tokens, actual);
        self.tenants[class].settle(tenant, tokens, actual);
        self.queue.settle(account, actual);
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for class in Priority::ALL {
            let waiting = || self.waiting.iter().filter(|it| it.class == class);
            for tenant in 0..TENANTS {
                self.tenants[class as usize].waits(tenant, waiting().any(|it| it.tenant == tenant));
            }
            self.classes.waits(class as usize, waiting().next().is_some());
            prop_assert!(self.queue.lane(class).level.is_sound());
        }
        prop_assert!(self.queue.classes.is_sound());
        prop_assert_eq!(self.queue.len(), self.waiting.len());
        prop_assert_eq!(self.queue.is_empty(), self.waiting.is_empty());
        prop_assert_eq!(self.queue.tokens(), self.waiting.iter().map(|it| it.tokens).sum::<u64>());
        prop_assert!(self.queue.len() <= self.bounds.of_all);
        for tenant in 0..TENANTS {
            let waiting = self.waiting.iter().filter(|it| it.tenant == tenant).count();
            prop_assert_eq!(self.queue.len_of(&tenant), waiting);
            prop_assert!(waiting <= self.bounds.of_tenant);
        }
        Ok(())
    }

    /// Serves and settles the rest; then passes all who are ahead.
    fn finish(mut self) -> Result<(), TestCaseError> {
        while !self.waiting.is_empty() {
            self.step(Step::Pop(100, u32::MAX))?;
        }
        while !self.running.is_empty() {
            self.step(Step::Settle(0))?;
        }
        if self.largest.is_some() {
            prop_assert!(self.queue.flows() <= 2 * (TENANTS - 1), "the last one of a class is not ahead");
        }
        for class in Priority::ALL {
            push(&mut self.queue, ask(TENANTS, class, 1 << 40), 0);
        }
        drain(&mut self.queue);
        prop_assert_eq!((self.queue.flows(), self.queue.len(), self.queue.tokens()), (0, 0, 0));
        Ok(())
    }
}

fn run(mut world: World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    for step in steps {
        world.step(step)?;
    }
    world.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// All of `World`: fair between tenants and classes, whether they stay or
    /// come and go; working while there is work; no starvation; first come,
    /// first served; nothing lost; nobody remembered for nothing.
    #[test]
    fn with_right_expectations_service_is_fair_and_nothing_starves(steps in steps(Just(100))) {
        run(World::new(FREE, Some(1000)), steps)?;
    }

    #[test]
    fn with_wrong_expectations_service_is_fair_but_for_what_they_are_off(steps in steps(0..300_u64)) {
        run(World::new(FREE, None), steps)?;
    }

    #[test]
    fn requests_that_take_much_less_than_expected_earn_nothing(
        steps in steps(prop_oneof![Just(0_u64), Just(1), Just(100)]),
    ) {
        run(World::new(FREE, None), steps)?;
    }

    #[test]
    fn bounds_are_kept_and_what_is_displaced_is_accounted_for(steps in steps(50..150_u64)) {
        run(World::new(TIGHT, None), steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// However each tenant's expectations are off, in the long run what is
    /// really served is by the weights.
    #[test]
    fn in_the_long_run_what_is_served_is_by_weight_however_wrong_the_expectations(
        percents in prop::array::uniform4(10..400_u64), at_once in 1..8_usize,
    ) {
        let mut queue = FairQueue::new();
        let mut served = [0_u64; TENANTS];
        let mut running = std::collections::VecDeque::new();
        for tenant in 0..TENANTS {
            push(&mut queue, interactive(tenant, 100), tenant);
            push(&mut queue, interactive(tenant, 100), tenant);
        }
        for _ in 0..5000 {
            let Served { value: tenant, account } = queue.serve(1).expect("all wait always");
            push(&mut queue, interactive(tenant, 100), tenant);
            running.push_back((account, percents[tenant]));
            served[tenant] += percents[tenant];
            if running.len() > at_once {
                let (account, actual) = running.pop_front().expect("some run");
                queue.settle(account, actual);
            }
        }
        let by_weight = |tenant: usize| served[tenant] as f64 / f64::from(WEIGHTS[tenant]);
        for tenant in 1..TENANTS {
            // As much as a few requests.
            prop_assert!((by_weight(tenant) - by_weight(0)).abs() <= 8.0 * 400.0, "{served:?} of {percents:?}");
        }
    }

    /// With equal counters the estimate is right but for the largest requests.
    #[test]
    fn what_is_ahead_is_about_what_is_served_before(
        backlogs in prop::collection::vec((0..TENANTS, 0..2_usize, 1..=100_u64), 0..200), tenant in 0..TENANTS,
    ) {
        let mut queue = FairQueue::new();
        for (tenant, class, tokens) in backlogs {
            push(&mut queue, ask(tenant, Priority::ALL[class], tokens), 0);
        }
        let ask = interactive(tenant, 50);
        let estimate = queue.ahead(&ask) as f64;
        push(&mut queue, ask, 1);
        let mut before = 0;
        loop {
            let Served { value, account } = queue.serve(1).expect("it waits");
            if value == 1 {
                break;
            }
            before += account.tokens();
        }
        let slack: f64 = WEIGHTS.iter().map(|it| 100.0 + 100.0 * f64::from(*it) / f64::from(WEIGHTS[tenant])).sum();
        prop_assert!((before as f64 - estimate).abs() <= 9.0 / 8.0 * slack + 100.0, "{before} and {estimate}");
    }
}
