//! Single lookups, told apart in three: records, none, and no answer.
//!
//! The resolver would go through the system's search list by itself, but what
//! it tells is the last name's answer alone: where the right name gets no
//! answer and the next one does not exist, everybody would seem gone. So the
//! list is gone through here, and a name without an answer ends it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver, system_conf};

/// The longest that a name server of our own choice may take, each time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Who is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum NameServer {
    System,
    At(SocketAddr),
}

pub(super) struct Lookups {
    resolver: TokioResolver,
    search: Search,
}

/// What one lookup led to.
pub(super) struct Answer {
    pub(super) kind: RecordType,
    /// Records, and for how long they hold; none where there are none.
    pub(super) outcome: Result<(Vec<RData>, Option<Duration>), NetError>,
}

/// How a name that is not fully qualified may be meant.
#[derive(Debug, Default)]
struct Search {
    domains: Vec<Name>,
    /// A name with as many dots is tried as it is before all else.
    ndots: usize,
}

// === impl Lookups ===

impl Lookups {
    pub(super) async fn new(server: NameServer) -> Result<Self, NetError> {
        // The system's settings are files.
        let made = tokio::task::spawn_blocking(move || Self::read(server)).await;
        made.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn read(server: NameServer) -> Result<Self, NetError> {
        let (config, mut options, search) = match server {
            NameServer::System => {
                let (config, options) = system_conf::read_system_conf()?;
                let domains = config.domain().into_iter().chain(config.search()).cloned().collect();
                let search = Search { domains, ndots: options.ndots };
                (config, options, search)
            }
            NameServer::At(address) => {
                let mut options = ResolverOpts::default();
                options.timeout = TIMEOUT;
                options.use_hosts_file = ResolveHosts::Never;
                (at(address), options, Search::default())
            }
        };
        // How long an answer holds is the follower's business.
        options.cache_size = 0;
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        Ok(Self { resolver: builder.with_options(options).build()?, search })
    }

    /// One answer for each kind of record, all of the same name: the first
    /// that has any of them, or that could not be asked for one.
    pub(super) async fn ask(&self, host: &str, kinds: &[RecordType]) -> Vec<Answer> {
        let mut answers = Vec::new();
        let names = match Name::from_str_relaxed(host) {
            Ok(name) => self.search.names(&name),
            Err(error) => {
                let failed = |kind| Answer { kind, outcome: Err(NetError::from(error.clone())) };
                return kinds.iter().copied().map(failed).collect();
            }
        };
        for name in names {
            answers = join_all(kinds.iter().map(|kind| self.lookup(name.clone(), *kind))).await;
            let nothing = |answer: &Answer| answer.outcome.as_ref().is_ok_and(|(records, _)| records.is_empty());
            if !answers.iter().all(nothing) {
                break;
            }
        }
        answers
    }

    async fn lookup(&self, name: Name, kind: RecordType) -> Answer {
        let outcome = match self.resolver.lookup(name, kind).await {
            Ok(lookup) => {
                let records = lookup.answers().iter();
                let ttl = records.clone().map(|record| Duration::from_secs(record.ttl.into())).min();
                // Aliases are among the answers, and are gone through already.
                let records: Vec<RData> =
                    records.filter(|record| record.record_type() == kind).map(|record| record.data.clone()).collect();
                match lookup.message().metadata.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => Ok((records, ttl)),
                    other => Err(NetError::Msg(other.to_string())),
                }
            }
            Err(error) if error.is_no_records_found() => Ok((Vec::new(), None)),
            Err(error) => Err(error),
        };
        Answer { kind, outcome }
    }
}

/// One name server and no other, by UDP and where that is cut short by TCP.
fn at(address: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    ResolverConfig::from_name_servers(vec![NameServerConfig::new(address.ip(), true, connections.to_vec())])
}

// === impl Search ===

impl Search {
    /// The names to be asked for, in order, all fully qualified.
    fn names(&self, name: &Name) -> Vec<Name> {
        let mut plain = name.clone();
        plain.set_fqdn(true);
        if name.is_fqdn() {
            return vec![plain];
        }
        // A name that becomes too long is none.
        let within = |domain: &Name| {
            let mut within = name.clone().append_domain(domain).ok()?;
            within.set_fqdn(true);
            Some(within)
        };
        let mut names: Vec<Name> = self.domains.iter().filter_map(within).collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, plain);
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, ndots: usize) -> Vec<String> {
        let domain = |text| Name::from_str_relaxed(text).expect("a name");
        let search = Search { domains: vec![domain("models.svc"), domain("svc")], ndots };
        search.names(&domain(name)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_is_looked_for_in_the_search_list_before_or_after_as_it_is() {
        assert_eq!(names("vllm", 1), ["vllm.models.svc.", "vllm.svc.", "vllm."]);
        assert_eq!(names("vllm.models", 1), ["vllm.models.", "vllm.models.models.svc.", "vllm.models.svc."]);
        assert_eq!(names("vllm.models", 5).last().expect("names"), "vllm.models.");
        assert_eq!(names("vllm.models.", 5), ["vllm.models."]);
    }
}
