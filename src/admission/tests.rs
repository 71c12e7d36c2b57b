use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::types::{Key, Share, Tenant};

fn caller(id: &str, limits: Limits) -> Caller {
    with(id, limits, Limits::default(), BTreeMap::new())
}

fn with(id: &str, limits: Limits, key: Limits, model_limits: BTreeMap<Arc<str>, Limits>) -> Caller {
    let models = BTreeMap::new();
    let tenant = Tenant { id: TenantId::new(id), limits, model_limits, share: Share::default(), models };
    let key = Key { name: "k".into(), limits: key, priority: None };
    Caller { tenant: Arc::new(tenant), key: Arc::new(key) }
}

fn model() -> Arc<str> {
    "m".into()
}

const SMALL: Estimate = Estimate { input: 10, output: 20 };

fn concurrent(most: u64) -> Limits {
    Limits { concurrent_generations: Some(most), ..Limits::default() }
}

fn refused(result: Result<Permit, Refusal>) -> (Limit, Scope) {
    match result.map(drop) {
        Err(Refusal::Limit { limit, scope, .. }) => (limit, scope),
        other => panic!("{other:?}"),
    }
}

async fn pass(seconds: f64) {
    tokio::time::advance(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test]
async fn a_tenant_runs_as_many_generations_as_it_may_and_no_more() {
    let admission = Admission::default();
    let acme = caller("acme", concurrent(2));
    let admit = |caller: &Caller| admission.admit(caller, &model(), SMALL);
    let held = (admit(&acme).expect("first"), admit(&acme).expect("second"));
    assert_eq!(refused(admit(&acme)), (Limit::Concurrency, Scope::Tenant));
    assert!(admission.check(&acme).is_err(), "and that is known before its request is read");
    admit(&caller("globex", concurrent(1))).expect("another tenant has its own places");
    drop(held);
    assert_eq!(admission.permits_held(), 0);
    admit(&acme).expect("the places are free again");
}

#[tokio::test]
async fn a_lower_limit_holds_for_permits_given_under_a_higher_one() {
    let admission = Admission::default();
    let admit = |most| admission.admit(&caller("acme", concurrent(most)), &model(), SMALL);
    let held: Vec<_> = (0..4).map(|_| admit(4).expect("within the limit")).collect();
    assert_eq!(refused(admit(2)), (Limit::Concurrency, Scope::Tenant));
    drop(held);
    admit(2).expect("all of them were given back");
}

#[test]
fn permits_and_tokens_are_exact_under_contention() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let admission = Admission::default();
    let limits = Limits { requests_per_minute: Some(7_000), output_tokens_per_minute: Some(1 << 40), ..concurrent(3) };
    let acme = caller("acme", limits);
    let admitted = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..5_000 {
                    if let Ok(mut permit) = admission.admit(&acme, &model(), SMALL) {
                        assert!(admission.permits_held() <= 3);
                        permit.used(10, round % 40);
                        admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admission.permits_held(), 0);
    assert!(admitted.into_inner() <= 7_000);
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_the_second_and_by_the_minute() {
    let admission = Admission::default();
    let limits = Limits { requests_per_second: Some(5), requests_per_minute: Some(60), ..Limits::default() };
    let acme = caller("acme", limits);
    let (mut admitted, mut by) = (0, BTreeMap::new());
    // Twenty requests a second, for two minutes.
    for _ in 0..2_400 {
        match admission.admit(&acme, &model(), SMALL) {
            Ok(_) => admitted += 1,
            refusal => *by.entry(refused(refusal).0).or_insert(0) += 1,
        }
        pass(0.05).await;
    }
    assert!((119..=121).contains(&admitted), "{admitted}");
    assert!(by[&Limit::RequestsPerSecond] > 100 && by[&Limit::RequestsPerMinute] > 1000, "{by:?}");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_charged_as_they_were_used_and_the_rest_comes_back() {
    let admission = Admission::default();
    let limits =
        Limits { input_tokens_per_minute: Some(1_000), output_tokens_per_minute: Some(1_000), ..Limits::default() };
    let acme = caller("acme", limits.clone());
    let left = || BTreeMap::from_iter(admission.left(&acme.tenant.id, &Scope::Tenant, &limits));
    let mut permit = admission.admit(&acme, &model(), Estimate { input: 100, output: 900 }).expect("all is left");
    assert_eq!((left()[&Limit::InputTokensPerMinute], left()[&Limit::OutputTokensPerMinute]), (900, 100));
    permit.used(120, 0);
    permit.used(120, 50);
    assert_eq!(left()[&Limit::InputTokensPerMinute], 880, "what it used beyond is charged as it runs");
    drop(permit);
    assert_eq!((left()[&Limit::InputTokensPerMinute], left()[&Limit::OutputTokensPerMinute]), (880, 950));

    // A client that leaves before anything came owes nothing but its request.
    drop(admission.admit(&acme, &model(), Estimate { input: 500, output: 500 }).expect("enough is left"));
    assert_eq!((left()[&Limit::InputTokensPerMinute], left()[&Limit::OutputTokensPerMinute]), (880, 950));

    // One that goes on past all limits leaves a debt.
    let mut permit = admission.admit(&acme, &model(), Estimate { input: 0, output: 10 }).expect("something is left");
    (0..300).for_each(|ten| permit.used(0, ten * 10));
    drop(permit);
    assert_eq!(refused(admission.admit(&acme, &model(), SMALL)), (Limit::OutputTokensPerMinute, Scope::Tenant));
    pass(100.0).await;
    assert_eq!(refused(admission.admit(&acme, &model(), SMALL)), (Limit::OutputTokensPerMinute, Scope::Tenant));
    pass(130.0).await;
    admission.admit(&acme, &model(), SMALL).expect("3 040 tokens are paid after four minutes");
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_against_all_that_apply_to_it_or_against_none() {
    let admission = Admission::default();
    let per_minute = |most| Limits { requests_per_minute: Some(most), ..Limits::default() };
    let models = BTreeMap::from([(model(), per_minute(2))]);
    let acme = with("acme", per_minute(10), per_minute(4), models);
    let admit = |model: &str| admission.admit(&acme, &model.into(), SMALL);
    for _ in 0..2 {
        admit("m").expect("within all three");
    }
    for _ in 0..5 {
        assert_eq!(refused(admit("m")), (Limit::RequestsPerMinute, Scope::Model(model())));
    }
    for _ in 0..2 {
        admit("other").expect("the refused ones did not count");
    }
    assert_eq!(refused(admit("other")), (Limit::RequestsPerMinute, Scope::Key("k".into())));
    assert!(admission.check(&acme).is_err(), "the key's limit is known before the request is read");
    let left = admission.left(&acme.tenant.id, &Scope::Tenant, &acme.tenant.limits);
    assert_eq!(left, [(Limit::RequestsPerMinute, 6)]);
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_shared_with_what_others_used_of_it() {
    let admission = Admission::default();
    let acme = caller("acme", Limits { tokens_per_day: Some(1_000), ..Limits::default() });
    let (start, _) = Period::Day.around(SystemTime::now());
    let mut permit = admission.admit(&acme, &model(), SMALL).expect("nothing was used");
    permit.used(100, 100);
    drop(permit);
    admission.learn(&acme.tenant.id, Scope::Tenant, Period::Day, start, 799);
    admission.admit(&acme, &model(), SMALL).expect("one token is left");
    admission.learn(&acme.tenant.id, Scope::Tenant, Period::Day, start, 800);
    assert_eq!(refused(admission.admit(&acme, &model(), SMALL)), (Limit::TokensPerDay, Scope::Tenant));
    // However many come at one time, what is reserved counts.
    let other = caller("other", Limits { tokens_per_month: Some(100), ..Limits::default() });
    let held: Vec<_> = (0..10).filter_map(|_| admission.admit(&other, &model(), SMALL).ok()).collect();
    assert_eq!(held.len(), 4, "30 tokens each");
}

#[tokio::test(start_paused = true)]
async fn what_clients_are_told_is_the_tightest_limit() {
    let admission = Admission::default();
    let limits = Limits { requests_per_minute: Some(10), input_tokens_per_minute: Some(1_000), ..Limits::default() };
    let models = BTreeMap::from([(model(), Limits { requests_per_minute: Some(2), ..Limits::default() })]);
    let acme = with("acme", limits, Limits::default(), models);
    let _permit = admission.admit(&acme, &model(), SMALL).expect("within the limits");
    let told = admission.standing(&acme, Some("m"));
    let requests = told.requests.expect("a limit");
    assert_eq!((requests.limit, requests.remaining, requests.reset), (2, 1, Duration::from_secs(120)));
    assert_eq!(told.tokens.map(|tokens| (tokens.limit, tokens.remaining)), Some((1_000, 990)));
    assert_eq!(admission.standing(&acme, None).requests.map(|it| (it.limit, it.remaining)), Some((10, 9)));
    assert_eq!(admission.standing(&caller("free", Limits::default()), None), Standing::default());
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Admit { input: u64, output: u64 },
    Use { which: usize, input: u64, output: u64 },
    End(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever happens, an account that nothing runs on has counted what was used, and no more.
    #[test]
    fn nothing_is_lost_and_nothing_is_charged_twice(
        steps in prop::collection::vec(prop_oneof![
            (0_u64..5_000).prop_map(Step::Pass),
            (0_u64..50, 0_u64..100).prop_map(|(input, output)| Step::Admit { input, output }),
            (0_usize..4, 0_u64..80, 0_u64..300).prop_map(|(which, input, output)| Step::Use { which, input, output }),
            (0_usize..4).prop_map(Step::End),
        ], 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let admission = Admission::default();
            let limits = Limits { tokens_per_month: Some(1 << 40), ..concurrent(4) };
            let acme = caller("acme", limits.clone());
            let (mut running, mut total): (Vec<(Permit, u64, u64)>, u64) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Pass(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
                    Step::Admit { input, output } => {
                        if let Ok(permit) = admission.admit(&acme, &model(), Estimate { input, output }) {
                            running.push((permit, 0, 0));
                        }
                    }
                    Step::Use { which, input, output } => if let Some((permit, used_in, used_out)) = running.get_mut(which) {
                        permit.used(input, output);
                        (*used_in, *used_out) = (input, output);
                    },
                    Step::End(which) => if which < running.len() {
                        let (_, input, output) = running.remove(which);
                        total += input + output;
                    },
                }
                assert_eq!(admission.permits_held() as usize, running.len());
            }
            total += running.iter().map(|(_, input, output)| input + output).sum::<u64>();
            drop(running);
            let left = BTreeMap::from_iter(admission.left(&acme.tenant.id, &Scope::Tenant, &limits));
            assert_eq!((1 << 40) - left[&Limit::TokensPerMonth], total);
            assert_eq!(left[&Limit::Concurrency], 4);
        });
    }
}

#[tokio::test]
async fn a_prompt_that_a_worker_has_read_is_charged_and_one_that_none_has_is_not() {
    let limits =
        Limits { input_tokens_per_minute: Some(100), output_tokens_per_minute: Some(100), ..Limits::default() };
    let (admission, acme) = (Admission::default(), caller("acme", limits.clone()));
    let left = || -> BTreeMap<_, _> { admission.left(&acme.tenant.id, &Scope::Tenant, &limits).into_iter().collect() };
    drop(admission.admit(&acme, &model(), SMALL).expect("within its limits"));
    assert_eq!((left()[&Limit::InputTokensPerMinute], left()[&Limit::OutputTokensPerMinute]), (100, 100));

    let permit = admission.admit(&acme, &model(), SMALL).expect("within its limits");
    permit.read().store(true, Ordering::Relaxed);
    drop(permit);
    assert_eq!((left()[&Limit::InputTokensPerMinute], left()[&Limit::OutputTokensPerMinute]), (90, 100));
}
