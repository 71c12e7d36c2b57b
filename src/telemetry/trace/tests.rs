use super::*;

const MS: Duration = Duration::from_millis(1);

fn parent(sampled: bool) -> TraceContext {
    TraceContext { trace: TraceId([1; 16]), span: SpanId([2; 8]), sampled, state: Some("a=b".into()) }
}

#[tokio::test(start_paused = true)]
async fn what_others_took_is_not_the_gateways_time() {
    let trail = Traces::default().begin(None);
    let pass = async |time: u32| tokio::time::sleep(MS * time).await;
    pass(1).await;
    trail.enter(Step::Body);
    pass(100).await;
    trail.leave();
    pass(2).await;
    trail.enter(Step::Prompt);
    pass(4).await;
    trail.enter(Step::Queue);
    pass(200).await;
    assert_eq!(trail.overhead(), MS * 7, "also while it waits");
    trail.enter(Step::Adapter);
    pass(400).await;
    trail.failed("adapter_unavailable");
    pass(8).await;
    trail.ask(&"w".into());
    pass(800).await;
    trail.answered();
    pass(5_000).await;
    trail.spent(MS * 16);
    trail.leave();
    assert_eq!(trail.overhead(), MS * (1 + 2 + 4 + 8 + 16), "of the stream's time only what it is told");
}

#[tokio::test]
async fn a_client_s_trace_goes_on_where_nothing_is_recorded() {
    let trail = Traces::default().begin(Some(parent(true)));
    assert_eq!(trail.id(), Some(TraceId([1; 16])));
    assert_eq!(trail.recorded(), None);
    assert_eq!(trail.ask(&"w".into()), Some(parent(true)), "as it came");
    assert_eq!(Traces::default().begin(None).id(), None);
}

fn open(sample: f64, follow_clients: bool) -> Traces {
    let config = Config {
        // Nobody is there: what is sent is lost, and disturbs nobody.
        endpoint: "http://127.0.0.1:9".to_owned(),
        headers: Vec::new(),
        sample,
        follow_clients,
        service_name: "tenantry".to_owned(),
        timeout: Duration::from_millis(100),
    };
    Traces::open(&config).expect("a collector that is away is no error")
}

#[tokio::test]
async fn whom_clients_record_is_theirs_to_say_unless_told_otherwise() {
    let traces = open(0.0, true);
    let trail = traces.begin(Some(parent(true)));
    assert_eq!(trail.recorded(), Some(TraceId([1; 16])));
    let asked = trail.ask(&"w".into()).expect("it is traced");
    assert!(asked.sampled && asked.trace == TraceId([1; 16]) && asked.span != SpanId([2; 8]), "{asked:?}");
    assert_eq!(asked.state.as_deref(), Some("a=b"));
    assert_eq!(traces.begin(Some(parent(false))).recorded(), None);
    assert_eq!(traces.begin(None).recorded(), None, "none of its own");

    let traces = open(1.0, false);
    let trail = traces.begin(Some(parent(false)));
    assert!(trail.recorded().is_some_and(|id| id != TraceId([1; 16])), "a trace of its own");
}

#[tokio::test]
async fn the_share_that_is_recorded_is_the_one_that_was_asked_for() {
    let traces = open(0.25, true);
    let recorded = (0..4_000).filter(|_| traces.begin(None).recorded().is_some()).count();
    // Six standard deviations.
    assert!((836..=1_164).contains(&recorded), "{recorded} of 4000");
    let by_id = TraceId([0xff; 16]);
    assert!(!traces.draws(by_id) && open(1.0, true).draws(by_id) && traces.draws(TraceId([0; 16])));
}
