//! Followed name servers: a small one that runs here, asked over real sockets.

use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tenantry::worker::discovery::{DnsConfig, Question, Source};

use super::Followed;
use crate::support::dns::{Failing, NameServer};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const HOST: &str = "workers.internal";
const SERVICE: &str = "_grpc._tcp.workers.internal";

fn follow(server: &NameServer, question: Question, interval: Duration) -> Followed {
    Followed::start(Source::Dns(DnsConfig { question, name_server: Some(server.address), interval }))
}

fn addresses(server: &NameServer, interval: Duration) -> Followed {
    follow(server, Question::Addresses { host: HOST.to_owned(), port: 9101 }, interval)
}

#[tokio::test]
async fn addresses_of_both_families_are_followed_as_they_change() {
    let server = NameServer::start().await;
    server.addresses(HOST, 1, &["10.0.0.1", "10.0.0.2", "fd00::1"]);
    let mut followed = addresses(&server, HOUR);
    followed.are(&["10.0.0.1:9101", "10.0.0.2:9101", "[fd00::1]:9101"]).await;
    server.addresses(HOST, 1, &["10.0.0.2", "10.0.0.3"]);
    followed.are(&["10.0.0.2:9101", "10.0.0.3:9101"]).await;
    // The name is gone, and so is everybody; then it is there again.
    server.addresses(HOST, 1, &[]);
    followed.are(&[]).await;
    // That nobody is there holds for no time of its own.
    drop(followed);
    server.addresses(HOST, 1, &["10.0.0.4"]);
    addresses(&server, SECOND).are(&["10.0.0.4:9101"]).await;
}

#[tokio::test]
async fn a_name_without_addresses_has_no_workers() {
    let server = NameServer::start().await;
    server.addresses(HOST, 1, &["10.0.0.1"]);
    // It exists, with records of another kind.
    server.service(HOST, 1, &[("elsewhere.internal", 1)]);
    let mut followed = addresses(&server, SECOND);
    followed.are(&["10.0.0.1:9101"]).await;
    server.addresses(HOST, 1, &[]);
    followed.are(&[]).await;
    server.addresses(HOST, 1, &["10.0.0.1"]);
    followed.are(&["10.0.0.1:9101"]).await;
}

#[tokio::test]
async fn records_are_asked_for_when_they_or_the_interval_run_out_and_not_before() {
    let server = NameServer::start().await;
    server.addresses(HOST, 3600, &["10.0.0.1"]);
    server.addresses("brief.internal", 0, &["10.0.0.1"]);
    let mut long = addresses(&server, HOUR);
    long.are(&["10.0.0.1:9101"]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.asked(HOST, RecordType::A), 1, "the records hold for an hour");

    let question = Question::Addresses { host: "brief.internal".to_owned(), port: 1 };
    let _brief = follow(&server, question, HOUR);
    let mut often = addresses(&server, SECOND);
    often.are(&["10.0.0.1:9101"]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let times = server.asked(HOST, RecordType::A) - 1;
    assert!((2..=4).contains(&times), "every second at the interval's word, not {times} times");
    let times = server.asked("brief.internal", RecordType::A);
    assert!((2..=4).contains(&times), "records of no time hold for a second, not {times} times");
}

#[tokio::test]
async fn a_lookup_that_fails_changes_nothing() {
    for how in [Failing::Code(ResponseCode::ServFail), Failing::Code(ResponseCode::Refused), Failing::Silence] {
        let server = NameServer::start().await;
        server.addresses(HOST, 1, &["10.0.0.1", "10.0.0.2"]);
        let mut followed = addresses(&server, SECOND);
        followed.are(&["10.0.0.1:9101", "10.0.0.2:9101"]).await;
        server.fail(HOST, RecordType::A, how);
        server.addresses(HOST, 1, &["10.0.0.3"]);
        let problem = followed.problem().await;
        assert!(problem.starts_with("A of workers.internal: "), "{problem}");
        assert_eq!(followed.now().len(), 2, "{how:?}: both are still known");
        server.recover();
        followed.are(&["10.0.0.3:9101"]).await;
    }
}

#[tokio::test]
async fn a_family_that_cannot_be_asked_for_leaves_the_other_alone() {
    let server = NameServer::start().await;
    server.addresses(HOST, 1, &["10.0.0.1", "fd00::1"]);
    let mut followed = addresses(&server, SECOND);
    followed.are(&["10.0.0.1:9101", "[fd00::1]:9101"]).await;
    server.fail(HOST, RecordType::AAAA, Failing::Code(ResponseCode::ServFail));
    server.addresses(HOST, 1, &["10.0.0.2"]);
    followed.problem().await;
    assert_eq!(followed.now().into_iter().collect::<Vec<_>>(), ["10.0.0.2:9101", "[fd00::1]:9101"]);
}

#[tokio::test]
async fn a_service_has_a_worker_at_each_address_of_its_targets() {
    let server = NameServer::start().await;
    server.service(SERVICE, 1, &[("one.internal", 9101), ("two.internal", 9102), ("nowhere.internal", 9103)]);
    server.addresses("one.internal", 3600, &["10.0.0.1"]);
    server.addresses("two.internal", 3600, &["10.0.0.2", "10.0.0.3"]);
    let mut followed = follow(&server, Question::Service { name: SERVICE.to_owned() }, HOUR);
    followed.are(&["10.0.0.1:9101", "10.0.0.2:9102", "10.0.0.3:9102"]).await;
    server.service(SERVICE, 1, &[("two.internal", 9109)]);
    followed.are(&["10.0.0.2:9109", "10.0.0.3:9109"]).await;
    // By RFC 2782, the service is decidedly not there.
    server.service(SERVICE, 1, &[(".", 0)]);
    followed.are(&[]).await;
}

#[tokio::test]
async fn a_service_may_be_followed_by_the_names_of_its_targets() {
    let server = NameServer::start().await;
    server.service(SERVICE, 1, &[("one.internal", 443), ("two.internal", 443)]);
    let mut followed = follow(&server, Question::ServiceByName { name: SERVICE.to_owned() }, SECOND);
    followed.are(&["one.internal:443", "two.internal:443"]).await;
    server.fail(SERVICE, RecordType::SRV, Failing::Code(ResponseCode::ServFail));
    followed.problem().await;
    assert_eq!(followed.now().len(), 2);
    assert_eq!(server.asked("one.internal", RecordType::A), 0, "whoever connects looks the name up");
}
