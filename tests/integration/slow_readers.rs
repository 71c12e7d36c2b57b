//! A client that does not read holds up nobody but itself, and not for longer
//! than a request may take.

use std::time::Duration;

use serde_json::json;

use crate::support::{Server, quickstart_like};

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_give_way_and_end_at_their_deadline() {
    let config = quickstart_like("").replacen("[server]", "[server]\nrequest_timeout = \"8s\"", 1).replacen(
        "context = 2048",
        "context = 2048\nmax_batch_rows = 2",
        1,
    );
    Server::with_config(&config, |server| async move {
        // No window: the server may send the head and not a byte of the body.
        let silent = crate::support::http_client()
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(0)
            .build()
            .expect("a client");
        let body =
            json!({ "model": "assistant", "prompt": "Once", "max_tokens": 1800, "ignore_eos": true, "stream": true });
        let mut held = Vec::new();
        for _ in 0..4 {
            let request = silent.post(server.url("/v1/completions")).bearer_auth("sk-demo-acme").json(&body);
            held.push(request.send().await.expect("a head"));
        }
        // Two have places; they give them up as nobody reads.
        let all = async {
            while server.held().leases < 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(6), all).await.expect("all are at the worker");
        server.ask("globex", "assistant", "What is snow?").await;

        let ended = async {
            while server.held().leases > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("they end though nobody reads them");
        let (_, metrics) = server.ops("/metrics").await;
        assert!(metrics.contains("outcome=\"deadline\"} 4"), "{metrics}");
        drop(held);
    })
    .await;
}
