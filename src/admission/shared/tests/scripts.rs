//! The scripts on a real server.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;
use redis::aio::MultiplexedConnection;

use super::super::store::{PLACES, PRESENCE, WINDOW};
use super::*;

struct Server {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let folder = tempfile::tempdir().expect("a folder");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let data = std::env::var_os("TENANTRY_TEST_DATA").unwrap_or_else(|| root.join(".tenantry").into());
        let process = Command::new("bash")
            .arg(root.join("scripts/start-redis.sh"))
            .arg(folder.path())
            .arg(port.to_string())
            .env("DATA_DIR", data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the script runs");
        Self { process, port, _folder: folder }
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a URL");
        for _ in 0..300 {
            if let Ok(link) = client.get_multiplexed_async_connection().await {
                return link;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server comes up; `make test` installs it");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The script by a clock that it is told, in microseconds.
fn told_the_time(script: &str, argument: usize) -> String {
    let clock = format!("{{ARGV[{argument}], ARGV[{}]}}", argument + 1);
    assert!(script.contains("redis.call('TIME')"));
    script.replace("redis.call('TIME')", &clock)
}

/// Seconds and the microseconds beyond; the clock of a server is far from 0.
fn clock(now: Moment) -> (u64, u32) {
    (1_800_000_000 + now.as_secs(), now.subsec_micros())
}

fn steps() -> impl Strategy<Value = Vec<(u64, Report, usize)>> {
    let passed = prop_oneof![3 => 0..2_000_000_u64, 1 => 0..200_000_000_u64];
    let spent = prop_oneof![3 => -20..60_i64, 1 => -2_000..2_000_i64];
    let wanted = prop_oneof![Just(0), 1..50_u64];
    let before = prop_oneof![4 => Just(0), 1 => 1..300_u64];
    // Few numbers, so that some come twice.
    let report = (0..3_u64, spent, wanted, before).prop_map(|(number, spent, wanted, before)| {
        let spent = if before > 0 { 0 } else { spent };
        Report { number, spent, wanted, before }
    });
    prop::collection::vec((passed, report, 0..3_usize), 1..40)
}

#[test]
fn the_window_is_the_same_in_redis() {
    let (server, runtime) = (Server::start(), runtime());
    let mut link = runtime.block_on(server.connect());
    let script = redis::Script::new(&told_the_time(WINDOW, 11));
    runtime.block_on(redis::cmd("SET").arg("state").arg(7).exec_async(&mut link)).expect("set");
    let run = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps(), limit in 1..500_u64, second: bool, gateways in 1..5_u32)| {
        let period = Duration::from_secs(if second { 1 } else { 60 });
        run.set(run.get() + 1);
        let mut link = link.clone();
        let (mut whole, mut now) = (Whole::default(), Duration::ZERO);
        for (passed, report, gateway) in steps {
            now += Duration::from_micros(passed);
            let expected = whole.report(gateway, report, limit, period, gateways, now);
            let (seconds, micros) = clock(now);
            let mut call = script.key(format!("window-{}", run.get()));
            call.key("state").arg(7).arg(limit).arg(period.as_micros() as u64).arg(report.spent);
            call.arg(gateways).arg(report.wanted).arg(AHEAD.as_micros() as u64).arg(report.before).arg(format!("g{gateway}")).arg(report.number).arg(seconds).arg(micros);
            let told: Vec<u64> = runtime.block_on(call.invoke_async(&mut link)).expect("an answer");
            prop_assert_eq!(&told[..3], &[1, expected.granted, expected.remaining]);
            let near = |told: u64, expected: Duration| told.abs_diff(expected.as_micros() as u64) <= 2;
            prop_assert!(near(told[3], expected.wait), "{told:?} {expected:?}");
            prop_assert!(near(told[4], expected.reset), "{told:?} {expected:?}");
        }
    });
    let mut call = script.key("window");
    call.key("state").arg(8);
    for _ in 0..11 {
        call.arg(1);
    }
    let other: Vec<u64> = runtime.block_on(call.invoke_async(&mut link)).expect("an answer");
    assert_eq!(other, [0], "counted in a state that is gone");
}

/// As it does where Redis fails over to a machine with another clock.
#[test]
fn a_clock_that_steps_back_keeps_no_limit_used_up() {
    let (server, runtime) = (Server::start(), runtime());
    runtime.block_on(async {
        let mut link = server.connect().await;
        let mut other = link.clone();
        let script = redis::Script::new(&told_the_time(WINDOW, 11));
        redis::cmd("SET").arg("state").arg(7).exec_async(&mut link).await.expect("set");
        let mut ask = async |spent: i64, number: u64, seconds: u64| -> Vec<u64> {
            let mut call = script.key("window");
            call.key("state").arg(7).arg(10).arg(60_000_000).arg(spent).arg(1).arg(0).arg(0).arg(0);
            call.arg("one").arg(number).arg(1_800_000_000 + seconds).arg(0).invoke_async(&mut link).await.expect("told")
        };
        assert_eq!(ask(10, 1, 7_200).await[2], 0);
        // An hour and a half back.
        let told = ask(0, 2, 1_800).await;
        assert_eq!((told[2], told[3] <= 60_100_000, told[4] <= 120_000_000), (0, true, true), "{told:?}");
        assert_eq!(ask(0, 3, 1_800 + 90).await[2], 5);
        assert_eq!(ask(0, 4, 1_800 + 121).await[2], 10);
        // What somebody else keeps there is in nobody's way.
        redis::cmd("SET").arg("window").arg("text").exec_async(&mut other).await.expect("set");
        assert_eq!(ask(3, 5, 2_000).await[2], 7);
    });
}

#[test]
fn places_are_parted_and_those_of_a_silent_gateway_are_free_again() {
    let (server, runtime) = (Server::start(), runtime());
    runtime.block_on(async {
        let mut link = server.connect().await;
        let script = redis::Script::new(&told_the_time(PLACES, 8));
        redis::cmd("SET").arg("state").arg(7).exec_async(&mut link).await.expect("set");
        let mut ask = async |gateway: &str, running: u64, wants: bool, seconds: u64| -> Vec<u64> {
            let mut call = script.key("places");
            call.key("state").arg(7).arg(10).arg(gateway).arg(running).arg(2).arg(u8::from(wants));
            call.arg(10_000_000).arg(1_800_000_000 + seconds).arg(0).invoke_async(&mut link).await.expect("an answer")
        };
        assert_eq!(ask("one", 2, true, 0).await, [1, 6, 4], "what runs, and half of what is free");
        assert_eq!(ask("other", 0, true, 0).await, [1, 2, 2]);
        assert_eq!(ask("one", 6, true, 1).await, [1, 7, 1]);
        assert_eq!(ask("one", 1, false, 2).await, [1, 1, 7], "it gives back what it does not want");
        assert_eq!(ask("other", 9, true, 3).await, [1, 9, 0]);
        assert_eq!(ask("one", 1, true, 4).await, [1, 1, 0], "nothing is free, and nobody is stopped");
        assert_eq!(ask("one", 1, true, 14).await, [1, 6, 4], "the other one is silent");
        assert_eq!(ask("one", 0, false, 15).await, [1, 0, 10]);
    });
}

#[test]
fn gateways_come_and_go() {
    let (server, runtime) = (Server::start(), runtime());
    runtime.block_on(async {
        let mut link = server.connect().await;
        let script = redis::Script::new(&told_the_time(PRESENCE, 4));
        let mut appear = async |gateway: &str, silent: u64, seconds: u64| -> (u64, u64) {
            let mut call = script.key("gateways");
            call.key("state").arg(gateway).arg(40 + seconds).arg(silent).arg(1_800_000_000 + seconds).arg(0);
            call.invoke_async(&mut link).await.expect("an answer")
        };
        assert_eq!(appear("one", 5_000_000, 0).await, (40, 1));
        assert_eq!(appear("other", 5_000_000, 1).await, (40, 2), "the state keeps its name");
        assert_eq!(appear("one", 5_000_000, 5).await, (40, 2));
        assert_eq!(appear("one", 5_000_000, 7).await, (40, 1), "the other one is silent");
        assert_eq!(appear("other", 5_000_000, 8).await, (40, 2));
        assert_eq!(appear("one", 0, 9).await, (40, 1), "it leaves");
    });
}
