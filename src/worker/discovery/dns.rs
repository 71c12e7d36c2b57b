//! Workers by DNS: the addresses of a name, or the hosts and ports of a
//! service's SRV records.
//!
//! Priorities and weights of SRV records are not read: the pool chooses by
//! what the workers have to do.

mod lookup;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::backoff::Backoff;
use super::{Endpoint, Report};
use lookup::{Lookups, NameServer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub question: Question,
    /// Asked in the place of the system's.
    pub name_server: Option<SocketAddr>,
    /// The longest that an answer is believed; records may say less.
    pub interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A and AAAA records: one worker at each address.
    Addresses { host: String, port: u16 },
    /// SRV records: one worker at each address of each target.
    Service { name: String },
    /// SRV records: one worker at each target, by the name that its
    /// certificate is held against.
    ServiceByName { name: String },
}

/// However short-lived records are, they are not asked for more often.
const FLOOR: Duration = Duration::from_secs(1);

pub(super) async fn follow(config: Config, mut report: Report) {
    let server = config.name_server.map_or(NameServer::System, NameServer::At);
    let mut backoff = Backoff::new(config.interval);
    let mut known = Known::default();
    loop {
        // Made anew for each round: the system's settings may have changed.
        let lookups = match Lookups::new(server).await {
            Ok(lookups) => lookups,
            Err(error) => {
                report.failed(error.to_string());
                tokio::time::sleep(backoff.pause()).await;
                continue;
            }
        };
        let mut round = Round { lookups, before: known, known: Known::default(), ttl: config.interval, problem: None };
        let endpoints = round.endpoints(&config.question).await;
        let pause = match &round.problem {
            None => {
                backoff.reset();
                round.ttl.max(FLOOR)
            }
            Some(_) => backoff.pause(),
        };
        report.tell(endpoints, round.problem);
        known = round.known;
        tokio::time::sleep(pause).await;
    }
}

/// The last answer to each lookup, for when the next one fails.
type Known = HashMap<(String, RecordType), Vec<RData>>;

/// One question, with the lookups that it leads to.
struct Round {
    lookups: Lookups,
    before: Known,
    known: Known,
    ttl: Duration,
    problem: Option<String>,
}

// === impl Round ===

impl Round {
    async fn endpoints(&mut self, question: &Question) -> BTreeSet<Endpoint> {
        match question {
            Question::Addresses { host, port } => {
                let hosts = vec![(host.clone(), *port)];
                self.addresses(hosts).await
            }
            Question::Service { name } => {
                let targets = self.targets(name).await;
                self.addresses(targets).await
            }
            Question::ServiceByName { name } => {
                let targets = self.targets(name).await.into_iter();
                targets.map(|(host, port)| Endpoint { host: host.trim_end_matches('.').to_owned(), port }).collect()
            }
        }
    }

    /// Hosts and ports of a service, each once.
    async fn targets(&mut self, name: &str) -> Vec<(String, u16)> {
        let answer = self.lookups.ask(name, &[RecordType::SRV]).await;
        let records = self.learn(name, answer);
        let target = |record| match record {
            // The root stands for a service that is not there, by RFC 2782.
            RData::SRV(srv) if !srv.target.is_root() => Some((srv.target.to_ascii(), srv.port)),
            _ => None,
        };
        let targets: BTreeSet<_> = records.into_iter().filter_map(target).collect();
        targets.into_iter().collect()
    }

    async fn addresses(&mut self, hosts: Vec<(String, u16)>) -> BTreeSet<Endpoint> {
        let lookups = &self.lookups;
        let asking = hosts.iter().map(|(host, _)| lookups.ask(host, &[RecordType::A, RecordType::AAAA]));
        let answers = join_all(asking).await;
        let mut endpoints = BTreeSet::new();
        for ((host, port), answer) in hosts.into_iter().zip(answers) {
            let address = |record| match record {
                RData::A(address) => Some(address.to_string()),
                RData::AAAA(address) => Some(address.to_string()),
                _ => None,
            };
            let addresses = self.learn(&host, answer).into_iter().filter_map(address);
            endpoints.extend(addresses.map(|host| Endpoint { host, port }));
        }
        endpoints
    }

    /// The records of each lookup, or what was known of it where it failed.
    fn learn(&mut self, host: &str, answers: Vec<lookup::Answer>) -> Vec<RData> {
        let mut all = Vec::new();
        for answer in answers {
            let key = (host.to_owned(), answer.kind);
            let records = match answer.outcome {
                Ok((records, ttl)) => {
                    self.ttl = ttl.map_or(self.ttl, |ttl| ttl.min(self.ttl));
                    records
                }
                Err(error) => {
                    self.problem.get_or_insert(format!("{} of {host}: {error}", answer.kind));
                    // Several targets may be of one host.
                    self.known.get(&key).or_else(|| self.before.get(&key)).cloned().unwrap_or_default()
                }
            };
            all.extend(records.iter().cloned());
            self.known.insert(key, records);
        }
        all
    }
}

// === impl Question ===

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { host, port } => write!(f, "{host}:{port}"),
            Self::Service { name } | Self::ServiceByName { name } => write!(f, "SRV {name}"),
        }
    }
}
