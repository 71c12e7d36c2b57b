//! What admission costs with very many tenants: memory of a tenant that is idle,
//! time of a request that is admitted, used and settled, and of one that is
//! refused. Prints one table; the first argument is the number of tenants.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tenantry::admission::{Admission, Estimate};
use tenantry::types::{Caller, Key, Limits, Share, Tenant, TenantId};

const ROUNDS: usize = 2_000_000;
const PAGE: u64 = 4096;

fn caller(number: usize, requests_per_minute: u64) -> Caller {
    let limits = Limits {
        requests_per_second: Some(requests_per_minute),
        requests_per_minute: Some(requests_per_minute),
        input_tokens_per_minute: Some(1 << 40),
        output_tokens_per_minute: Some(1 << 40),
        tokens_per_day: Some(1 << 40),
        tokens_per_month: Some(1 << 40),
        concurrent_generations: Some(64),
        ..Limits::default()
    };
    let tenant = Tenant {
        id: TenantId::new(format!("tenant-{number}")),
        limits: limits.clone(),
        model_limits: BTreeMap::new(),
        share: Share::default(),
        models: BTreeMap::new(),
    };
    Caller { tenant: Arc::new(tenant), key: Arc::new(Key { name: "main".into(), limits, priority: None }) }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * PAGE
}

/// Of the first so many callers, each in turn in an order without pattern.
fn turns(callers: &[Caller]) -> impl Iterator<Item = &Caller> {
    (0..ROUNDS).scan(1_u64, |state, _| {
        // A linear congruential generator (Knuth, MMIX).
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(&callers[(*state >> 33) as usize % callers.len()])
    })
}

fn nanoseconds(callers: &[Caller], mut each: impl FnMut(&Caller)) -> f64 {
    let begun = Instant::now();
    turns(callers).for_each(&mut each);
    begun.elapsed().as_nanos() as f64 / ROUNDS as f64
}

fn main() {
    let tenants = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(100_000);
    // Its clock is tokio's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let admission = Admission::default();
    let model: Arc<str> = "assistant".into();
    let estimate = Estimate { input: 40, output: 64 };

    let before = resident();
    let callers: Vec<Caller> = (0..tenants).map(|number| caller(number, 1 << 40)).collect();
    let configured = resident();
    for caller in &callers {
        drop(admission.admit(caller, &model, estimate).expect("within its limits"));
    }
    let seen = resident();
    let admit = nanoseconds(&callers, |caller| {
        let mut permit = admission.admit(caller, &model, estimate).expect("within its limits");
        permit.used(40, 30);
    });
    let check = nanoseconds(&callers, |caller| admission.check(caller).expect("within its limits"));
    let standing = nanoseconds(&callers, |caller| {
        black_box(admission.standing(caller, Some(&model)));
    });

    let poor: Vec<Caller> = (0..tenants).map(|number| caller(number, 1)).collect();
    let fresh = Admission::default();
    for caller in &poor {
        drop(fresh.admit(caller, &model, estimate));
    }
    let refuse = nanoseconds(&poor, |caller| drop(black_box(fresh.check(caller))));

    let each = |from: u64, to: u64| to.saturating_sub(from) / tenants as u64;
    println!("| {tenants} tenants, seven limits each, of tenant and key | |\n|---|---|");
    println!("| a tenant's configuration | {} bytes |", each(before, configured));
    println!("| its accounts, once it has sent a request | {} bytes |", each(configured, seen));
    println!("| a request is checked, admitted, metered and settled | {admit:.0} ns |");
    println!("| a request is checked before it is read | {check:.0} ns |");
    println!("| how it stands, for an answer's headers | {standing:.0} ns |");
    println!("| a request is refused | {refuse:.0} ns |");
}
