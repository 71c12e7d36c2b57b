//! Workers that are discovered: what is read, and what is wrong.

use std::time::Duration;

use super::{GOOD, good, read};
use crate::config::{Config, DiscoverConfig, DnsConfig, DnsName, PortConfig, Scheme, SourceConfig, WorkerConfig};

/// A second worker, with this in its section.
fn with(lines: &str) -> String {
    let worker = format!("[workers.gpu]\ndriver = \"vllm\"\nbases = [\"one\"]\n{lines}\n[[tenants]]");
    GOOD.replacen("[[tenants]]", &worker, 1)
}

fn gpu(config: Config) -> WorkerConfig {
    config.workers.into_iter().find(|worker| worker.name == "gpu").expect("the second worker")
}

fn discover(table: &str) -> DiscoverConfig {
    gpu(good(&with(&format!("discover = {{ {table} }}")))).discover().expect("discovered").clone()
}

/// What is wrong, without file and line.
fn problems(lines: &str) -> String {
    let refused = read(&with(lines)).expect_err(lines).to_string();
    let without = |line: &str| line.split_once(": ").map(|(_, rest)| rest.to_owned()).expect("a place");
    refused.lines().map(without).collect::<Vec<_>>().join("\n")
}

fn wrong(table: &str) -> String {
    problems(&format!("discover = {{ {table} }}"))
}

#[test]
fn names_are_read_with_their_defaults() {
    let host = discover("dns = \"workers.internal:9101\"");
    let name = DnsName::Host { name: "workers.internal".to_owned(), port: 9101 };
    let dns = DnsConfig { name, resolver: None, interval: Duration::from_secs(10) };
    assert_eq!(host, DiscoverConfig { source: SourceConfig::Dns(dns), scheme: Scheme::Http, path: String::new() });

    let service = discover("srv = \"_http._tcp.w.internal.\", resolver = \"127.0.0.1:5353\", interval = \"2s\"");
    let SourceConfig::Dns(dns) = service.source else { panic!("by DNS") };
    assert_eq!(dns.name, DnsName::Service("_http._tcp.w.internal.".to_owned()));
    assert_eq!((dns.resolver.map(|it| it.port()), dns.interval), (Some(5353), Duration::from_secs(2)));
}

#[test]
fn services_of_kubernetes_have_ports_by_name_or_number() {
    let service = |port: &str| match discover(&format!("kubernetes = {{ service = \"vllm\", port = {port} }}")).source {
        SourceConfig::Kubernetes(service) => service,
        SourceConfig::Dns(_) => panic!("by Kubernetes"),
    };
    assert_eq!(service("\"http\"").port, PortConfig::Name("http".to_owned()));
    assert_eq!(service("8000").port, PortConfig::Number(8000));
    assert_eq!(service("\"8000\"").port, PortConfig::Number(8000));
    let plain = service("8000");
    assert_eq!((plain.namespace, plain.api, plain.token, plain.ca), (None, None, None, None));
}

#[test]
fn an_instance_has_its_own_name_and_url_and_all_else_of_its_worker() {
    let worker =
        gpu(good(&with("poll_interval = \"3s\"\ndiscover = { dns = \"w:1\", scheme = \"https\", path = \"/a/\" }")));
    let instance = worker.instance("[fd00::1]:1");
    assert_eq!(instance.name, "gpu/[fd00::1]:1");
    let remote = instance.remote().expect("remote");
    assert_eq!((&*remote.url, remote.poll_interval), ("https://[fd00::1]:1/a", Duration::from_secs(3)));
    assert_eq!((instance.discover(), &instance.bases), (None, &worker.bases));

    let openai = with("discover = { dns = \"w:1\" }").replace("\"vllm\"", "\"openai\"");
    assert_eq!(gpu(good(&openai)).instance("w:1").remote().expect("remote").url, "http://w:1/v1");
}

#[test]
fn a_base_whose_workers_are_all_discovered_is_served() {
    let text = with("discover = { dns = \"w:1\" }").replace("bases = [\"one\", \"two\"]", "bases = [\"two\"]");
    assert_eq!(gpu(good(&text)).bases.len(), 1);
}

#[test]
fn a_worker_has_one_place_and_one_source() {
    assert_eq!(problems(""), "workers.gpu: has neither `url` nor `discover`");
    assert_eq!(
        problems("url = \"http://a\"\ndiscover = { dns = \"w:1\" }"),
        "workers.gpu: has both `url` and `discover`"
    );
    assert_eq!(wrong(""), "workers.gpu.discover: has neither `dns` nor `srv` nor `kubernetes`");
    assert_eq!(wrong("dns = \"w:1\", srv = \"w\""), "workers.gpu.discover: has both `dns` and `srv`");
    assert_eq!(problems("discover = \"w:1\""), "workers.gpu.discover: expected a table, found a text");
    let local = read(&GOOD.replacen("driver =", "discover = { dns = \"w:1\" }\ndriver =", 1)).expect_err("embedded");
    assert!(local.to_string().contains("workers.local.discover: unknown key; known here: "), "{local}");
}

#[test]
fn every_value_of_a_source_is_checked() {
    let name = |text: &str| wrong(&format!("dns = \"{text}\""));
    let no_port = "is not a name and a port, such as workers.internal:9101";
    for text in ["workers.internal", "workers.internal:0", "workers.internal:http", ""] {
        assert_eq!(name(text), format!("workers.gpu.discover.dns: `{text}` {no_port}"));
    }
    let address = "is an address, and there is nothing to look up: it goes into `url`";
    assert_eq!(name("10.0.0.1:80"), format!("workers.gpu.discover.dns: 10.0.0.1 {address}"));
    assert_eq!(name("[fd00::1]:80"), format!("workers.gpu.discover.dns: [fd00::1] {address}"));
    assert_eq!(name("http://w:80"), "workers.gpu.discover.dns: `http://w` is not a name in DNS");
    assert_eq!(wrong("srv = \"a..b\""), "workers.gpu.discover.srv: `a..b` is not a name in DNS");
    assert_eq!(
        wrong("srv = \"a\", interval = \"500ms\", resolver = \"ns:53\", scheme = \"grpc\", path = \"v1\", port = 1"),
        "\
workers.gpu.discover.interval: 500ms is out of range: from 1s to 1h
workers.gpu.discover.resolver: `ns:53` is not an IP address and a port, such as 127.0.0.1:8080
workers.gpu.discover.scheme: \"grpc\" is not known here; expected \"http\" or \"https\"
workers.gpu.discover.path: `v1` is not a path, such as /v1
workers.gpu.discover.port: unknown key; known here: dns, srv, kubernetes, interval, resolver, scheme, path"
    );
    assert_eq!(
        wrong("kubernetes = {}, interval = \"5s\""),
        "\
workers.gpu.discover.kubernetes.service: missing
workers.gpu.discover.kubernetes.port: missing
workers.gpu.discover.interval: belongs to `dns` and `srv`: a service of Kubernetes is watched"
    );
    assert_eq!(
        wrong(
            "kubernetes = { service = \"A/b\", port = 0, namespace = \"\", api = \"k8s\", token = \"abc\", ca = \"\" }"
        ),
        "\
workers.gpu.discover.kubernetes.service: `A/b` is not a name in Kubernetes
workers.gpu.discover.kubernetes.namespace: `` is not a name in Kubernetes
workers.gpu.discover.kubernetes.port: expected a port's name, or a number from 1 to 65535
workers.gpu.discover.kubernetes.api: expected the API server's address, such as https://10.96.0.1:443
workers.gpu.discover.kubernetes.token: a secret is named, not written: expected \"env:NAME\" or \"file:PATH\"
workers.gpu.discover.kubernetes.ca: expected a path"
    );
}
