//! What a service's EndpointSlices say together: pure.
//!
//! A service may have many slices; an endpoint may stand in two of them while
//! it moves, and under two addresses, one of each family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use super::Endpoint;

/// Which of a pod's ports is the worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePort {
    /// As the service calls it; the slices know the number.
    Name(String),
    Number(u16),
}

/// A service's slices by name.
#[derive(Debug, Default)]
pub(super) struct Slices(BTreeMap<String, EndpointSlice>);

#[derive(Debug, Clone, Deserialize)]
pub(super) struct EndpointSlice {
    #[serde(default)]
    pub(super) metadata: Metadata,
    // Go writes an empty list as null.
    endpoints: Option<Vec<Address>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    /// All lead to the same place.
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: Conditions,
    target_ref: Option<Target>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

/// The pod behind an address.
#[derive(Debug, Clone, Deserialize)]
struct Target {
    uid: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
}

/// What all slices together say of one address.
#[derive(Default)]
struct Said {
    ready: bool,
    terminating: bool,
    pod: Option<String>,
}

// === impl Slices ===

impl Slices {
    pub(super) fn of(slices: Vec<EndpointSlice>) -> Self {
        Self(slices.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect())
    }

    pub(super) fn put(&mut self, slice: EndpointSlice) {
        self.0.insert(slice.metadata.name.clone(), slice);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Where workers serve: ready, and not on their way out. One that ends is
    /// given nothing new, and what it runs goes on.
    pub(super) fn endpoints(&self, port: &ServicePort) -> BTreeSet<Endpoint> {
        let mut said: BTreeMap<Endpoint, Said> = BTreeMap::new();
        for slice in self.0.values() {
            let Some(port) = slice.port(port) else { continue };
            for address in slice.endpoints.iter().flatten() {
                let Some(host) = address.addresses.iter().flatten().next() else { continue };
                let said = said.entry(Endpoint { host: host.clone(), port }).or_default();
                // Not said is ready, by the interface's own words.
                said.ready |= address.conditions.ready.unwrap_or(true);
                // Nothing comes back from it, so of two slices the one that says it is the newer.
                said.terminating |= address.conditions.terminating.unwrap_or(false);
                said.pod = said.pod.take().or_else(|| address.target_ref.as_ref()?.uid.clone());
            }
        }
        once_each_pod(said.into_iter().filter(|(_, said)| said.ready && !said.terminating))
    }
}

/// A pod that has an address of each family is one worker still: at the IPv4 one.
fn once_each_pod(serving: impl Iterator<Item = (Endpoint, Said)>) -> BTreeSet<Endpoint> {
    let mut endpoints = BTreeSet::new();
    let mut pods: BTreeMap<String, Endpoint> = BTreeMap::new();
    for (endpoint, said) in serving {
        let Some(pod) = said.pod else {
            endpoints.insert(endpoint);
            continue;
        };
        let chosen = pods.entry(pod).or_insert_with(|| endpoint.clone());
        if is_ipv6(chosen) && !is_ipv6(&endpoint) {
            *chosen = endpoint;
        }
    }
    endpoints.extend(pods.into_values());
    endpoints
}

fn is_ipv6(endpoint: &Endpoint) -> bool {
    endpoint.host.parse().is_ok_and(|address: IpAddr| address.is_ipv6())
}

// === impl EndpointSlice ===

impl EndpointSlice {
    fn port(&self, port: &ServicePort) -> Option<u16> {
        match port {
            ServicePort::Number(number) => Some(*number),
            ServicePort::Name(name) => {
                let mut ports = self.ports.iter().flatten();
                ports.find(|port| port.name.as_ref() == Some(name)).and_then(|port| port.port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: Value) -> EndpointSlice {
        let slice = json!({
            "metadata": { "name": name, "resourceVersion": "7" },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "metrics", "port": 9000 }, { "name": "http", "port": 8000, "protocol": "TCP" }],
        });
        serde_json::from_value(slice).expect("a slice")
    }

    fn endpoints(slices: Vec<EndpointSlice>) -> Vec<String> {
        let port = ServicePort::Name("http".to_owned());
        Slices::of(slices).endpoints(&port).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ready_endpoints_serve_and_terminating_ones_do_not() {
        let said = json!([
            { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
            { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
            { "addresses": ["10.0.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } },
            // Of a service that publishes addresses whatever they say.
            { "addresses": ["10.0.0.4"], "conditions": { "ready": true, "serving": true, "terminating": true } },
            { "addresses": ["10.0.0.5"], "conditions": { "ready": null } },
            { "addresses": ["10.0.0.6"] },
            { "addresses": null },
        ]);
        assert_eq!(endpoints(vec![slice("a", said)]), ["10.0.0.1:8000", "10.0.0.5:8000", "10.0.0.6:8000"]);
        assert!(endpoints(vec![slice("a", Value::Null)]).is_empty());
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one() {
        let at = |conditions: Value| json!([{ "addresses": ["10.0.0.1"], "conditions": conditions }]);
        let (ready, waiting) = (at(json!({ "ready": true })), at(json!({ "ready": false })));
        let ending = at(json!({ "ready": false, "terminating": true }));
        let both = |one: &Value, other: &Value| endpoints(vec![slice("a", one.clone()), slice("b", other.clone())]);
        assert_eq!(both(&ready, &ready), ["10.0.0.1:8000"]);
        assert_eq!(both(&waiting, &ready), ["10.0.0.1:8000"]);
        assert!(both(&ready, &ending).is_empty() && both(&ending, &ready).is_empty());
    }

    #[test]
    fn a_pod_with_an_address_of_each_family_is_one_worker() {
        let at =
            |address: &str, pod: &str| json!([{ "addresses": [address], "targetRef": { "kind": "Pod", "uid": pod } }]);
        let slices = |pod: &str| vec![slice("six", at("fd00::1", "one")), slice("four", at("10.0.0.1", pod))];
        assert_eq!(endpoints(slices("one")), ["10.0.0.1:8000"]);
        assert_eq!(endpoints(slices("two")), ["10.0.0.1:8000", "[fd00::1]:8000"]);
    }

    #[test]
    fn a_port_goes_by_the_slices_name_or_by_its_own_number() {
        let mut slices = Slices::of(vec![slice("a", json!([{ "addresses": ["10.0.0.1"] }]))]);
        let at =
            |slices: &Slices, port: ServicePort| slices.endpoints(&port).iter().map(|it| it.port).collect::<Vec<_>>();
        assert_eq!(at(&slices, ServicePort::Name("metrics".to_owned())), [9000]);
        assert_eq!(at(&slices, ServicePort::Name("grpc".to_owned())), [0_u16; 0]);
        assert_eq!(at(&slices, ServicePort::Number(9101)), [9101]);
        slices.remove("a");
        assert!(slices.endpoints(&ServicePort::Number(9101)).is_empty());
    }
}
