//! Killed at random moments while many rate, again and again on the same data.

use std::time::Duration;

use crate::ratings::outside::{Disk, Gateway, Writers, events_in};
use crate::support::process::{Process, free_port, worker_config};

/// How often; 200 with `TENANTRY_CRASHES=200`.
const CRASHES: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_when_the_server_is_killed() {
    let crashes = std::env::var("TENANTRY_CRASHES").map_or(CRASHES, |count| count.parse().expect("a number"));
    // The model is in a process that lives on, so that the gateway's start is short.
    let worker = free_port();
    let _worker = Process::start("worker", &worker_config(worker, ""));
    let model =
        format!("[workers.one]\ndriver = \"grpc\"\nurl = \"http://127.0.0.1:{worker}\"\nbases = [\"smollm2\"]\n");
    let mut gateway = Gateway::start(&model, &Disk::Usual);
    gateway.ready().await;
    let mut writers = Writers::start(&gateway);
    let mut answering = 0;
    for crash in 0..crashes {
        let before = writers.answered();
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random numbers");
        let random = u64::from(u16::from_ne_bytes(random));
        if crash % 4 != 3 {
            // Under load; the others come at any moment of its start.
            let answered = async {
                while writers.answered() == before {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(120), answered).await.expect("it answers again");
        }
        tokio::time::sleep(Duration::from_micros(random * 8)).await;
        gateway.process.restart();
        answering += usize::from(writers.answered() > before);
    }
    gateway.ready().await;
    writers.stop().await;
    gateway.delivered().await;
    assert!(answering >= crashes / 2 && writers.answered() > crashes, "{answering} of {crashes} under load");
    writers.check(&events_in(&gateway.folder.path().join("events")));
    #[expect(clippy::print_stderr, reason = "what 200 of them came to is wanted beside that they passed")]
    {
        eprintln!("{crashes} crashes, {answering} of them under load; {} ratings were answered", writers.answered());
    }
}
