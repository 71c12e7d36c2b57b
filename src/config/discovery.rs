//! `discover = { … }` of a worker: where its instances are looked up, in the
//! place of a `url`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use super::SecretRef;
use super::section::{Findings, Section, choice, duration_in, expected, text};
use super::tree::{Node, Value};
use super::validate::{Folder, address};

/// A worker of which there are as many as are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverConfig {
    pub source: SourceConfig,
    pub scheme: Scheme,
    /// What follows host and port in an instance's URL.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceConfig {
    Dns(DnsConfig),
    Kubernetes(KubernetesConfig),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    pub name: DnsName,
    /// Asked in the place of the system's name servers.
    pub resolver: Option<SocketAddr>,
    pub interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsName {
    /// Of A and AAAA records; all instances listen on one port.
    Host { name: String, port: u16 },
    /// Of SRV records.
    Service(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesConfig {
    pub service: String,
    /// `None` for the gateway's own.
    pub namespace: Option<String>,
    pub port: PortConfig,
    /// `None` for that of the cluster around the gateway.
    pub api: Option<String>,
    pub token: Option<SecretRef>,
    pub ca: Option<PathBuf>,
}

/// Which of a pod's ports is the worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortConfig {
    Name(String),
    Number(u16),
}

/// An API server, and what it is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesApi {
    pub api: String,
    pub namespace: String,
    pub token: Option<SecretRef>,
    pub ca: Option<PathBuf>,
}

/// Where a pod has its credentials.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Keys of which exactly one is given.
const SOURCES: [&str; 3] = ["dns", "srv", "kubernetes"];

/// `None` where no source could be read, which is a problem noted. `path` is
/// what the driver's URLs end with where nothing else is said.
pub(super) fn discover(
    mut section: Section<'_>,
    path: &str,
    folder: &Folder<'_>,
    findings: &Findings<'_>,
) -> Option<DiscoverConfig> {
    let given: Vec<&str> = SOURCES.into_iter().filter(|key| section.has(key)).collect();
    match given[..] {
        [_] => {}
        [] if section.is_table() => findings.add(&section.path, "has neither `dns` nor `srv` nor `kubernetes`"),
        [] => {}
        _ => findings.add(&section.path, format!("has both `{}`", given.join("` and `"))),
    }
    let host = section.optional("dns", host_and_port).map(|(name, port)| DnsName::Host { name, port });
    let service = section.optional("srv", |node| text(node).and_then(dns_name)).map(DnsName::Service);
    let kubernetes = section.has("kubernetes");
    let table = section.section("kubernetes");
    let kubernetes = kubernetes.then(|| read_kubernetes(table, folder)).flatten();

    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    let interval = section.optional("interval", duration_in(range)).unwrap_or(Duration::from_secs(10));
    let resolver = section.optional("resolver", address);
    for key in ["interval", "resolver"] {
        if given == ["kubernetes"] && section.has(key) {
            findings.add(&section.child(key), "belongs to `dns` and `srv`: a service of Kubernetes is watched");
        }
    }
    let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
    let scheme = section.optional("scheme", choice(&schemes)).unwrap_or(Scheme::Http);
    let path = section.optional("path", url_path).unwrap_or_else(|| path.to_owned());
    section.finish();

    let dns = host.or(service).map(|name| SourceConfig::Dns(DnsConfig { name, resolver, interval }));
    let source = dns.or(kubernetes.map(SourceConfig::Kubernetes))?;
    Some(DiscoverConfig { source, scheme, path })
}

fn read_kubernetes(mut section: Section<'_>, folder: &Folder<'_>) -> Option<KubernetesConfig> {
    let service = section.required("service", |node| text(node).and_then(label));
    let namespace = section.optional("namespace", |node| text(node).and_then(label));
    let port = section.required("port", port);
    let api = section.optional("api", |node| text(node).and_then(api));
    let token = section.optional("token", super::secret::reference(folder));
    let ca = section.optional("ca", |node| folder.path(node));
    section.finish();
    Some(KubernetesConfig { service: service?, namespace, port: port?, api, token, ca })
}

fn host_and_port(node: &Node) -> Result<(String, u16), String> {
    let text = text(node)?;
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    match port.parse() {
        Ok(port) if port > 0 => Ok((dns_name(host.to_owned())?, port)),
        _ => Err(format!("`{text}` is not a name and a port, such as workers.internal:9101")),
    }
}

fn dns_name(name: String) -> Result<String, String> {
    if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(format!("{name} is an address, and there is nothing to look up: it goes into `url`"));
    }
    // An underscore is not for hosts, but for services.
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let mut labels = name.strip_suffix('.').unwrap_or(&name).split('.');
    let good = labels.all(|label| (1..=63).contains(&label.len()) && label.bytes().all(plain));
    if good && name.len() <= 253 { Ok(name) } else { Err(format!("`{name}` is not a name in DNS")) }
}

/// A name of Kubernetes' own, which is put into paths.
fn label(name: String) -> Result<String, String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let good = (1..=63).contains(&name.len()) && name.bytes().all(plain);
    if good { Ok(name) } else { Err(format!("`{name}` is not a name in Kubernetes")) }
}

fn port(node: &Node) -> Result<PortConfig, String> {
    let number = match node.value.plain() {
        Value::Integer(number) => u16::try_from(*number).ok(),
        Value::Text(text) if text.bytes().any(|c| c.is_ascii_lowercase()) => {
            return label(text.clone()).map(PortConfig::Name);
        }
        Value::Text(text) => text.parse().ok(),
        other => return Err(expected("a port's name or number", other)),
    };
    let number = number.filter(|number| *number > 0);
    number.map(PortConfig::Number).ok_or_else(|| "expected a port's name, or a number from 1 to 65535".to_owned())
}

fn api(text: String) -> Result<String, String> {
    super::workers::url(text).map_err(|_| "expected the API server's address, such as https://10.96.0.1:443".to_owned())
}

fn url_path(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let plain = text.bytes().all(|c| c.is_ascii_graphic() && !b"?#".contains(&c));
    if plain && (text.is_empty() || text.starts_with('/')) {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("`{text}` is not a path, such as /v1"))
}

// === impl DiscoverConfig ===

impl DiscoverConfig {
    /// The URL of the instance at `address`, which is a host and a port.
    pub fn url(&self, address: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{address}{}", self.path)
    }
}

// === impl KubernetesConfig ===

impl KubernetesConfig {
    /// With what the environment and a pod's files say, where the file does not.
    pub fn locate(&self) -> Result<KubernetesApi, String> {
        self.locate_within(|name| env::var(name).ok(), Path::new(ACCOUNT))
    }

    fn locate_within(
        &self,
        variable: impl Fn(&str) -> Option<String>,
        account: &Path,
    ) -> Result<KubernetesApi, String> {
        let mut found = KubernetesApi {
            api: String::new(),
            namespace: String::new(),
            token: self.token.clone(),
            ca: self.ca.clone(),
        };
        match &self.api {
            // Credentials of the cluster around us are none of another one's business.
            Some(api) => found.api.clone_from(api),
            None => {
                let read = |name| variable(name).filter(|value| !value.is_empty());
                let (host, port) = (read("KUBERNETES_SERVICE_HOST"), read("KUBERNETES_SERVICE_PORT"));
                let (Some(host), Some(port)) = (host, port) else {
                    let unset = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set";
                    return Err(format!("{unset}: outside of a cluster, `api` is needed"));
                };
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                found.api = api(format!("https://{host}:{port}"))?;
                found.token.get_or_insert_with(|| SecretRef::File(account.join("token")));
                found.ca.get_or_insert_with(|| account.join("ca.crt"));
            }
        }
        found.namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => {
                let file = account.join("namespace");
                let read = fs::read_to_string(&file).map_err(|error| error.to_string());
                let read = read.and_then(|text| label(text.trim().to_owned()));
                read.map_err(|error| format!("there is no `namespace`, and {}: {error}", file.display()))?
            }
        };
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> KubernetesConfig {
        let port = PortConfig::Name("http".to_owned());
        KubernetesConfig { service: "vllm".to_owned(), namespace: None, port, api: None, token: None, ca: None }
    }

    fn in_cluster(name: &str) -> Option<String> {
        match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn in_a_cluster_the_service_account_says_the_rest() {
        let account = tempfile::tempdir().expect("a folder");
        fs::write(account.path().join("namespace"), "models\n").expect("written");
        let found = service().locate_within(in_cluster, account.path()).expect("located");
        assert_eq!((&*found.api, &*found.namespace), ("https://[fd00::1]:443", "models"));
        assert_eq!(found.token, Some(SecretRef::File(account.path().join("token"))));
        assert_eq!(found.ca, Some(account.path().join("ca.crt")));
    }

    #[test]
    fn another_clusters_api_gets_none_of_this_ones_credentials() {
        let account = tempfile::tempdir().expect("a folder");
        let api = Some("https://k8s.example:6443".to_owned());
        let elsewhere = KubernetesConfig { api: api.clone(), namespace: Some("models".to_owned()), ..service() };
        let found = elsewhere.locate_within(in_cluster, account.path()).expect("located");
        assert_eq!((Some(found.api), found.token, found.ca), (api.clone(), None, None));
        let nameless = KubernetesConfig { api, ..service() };
        let error = nameless.locate_within(in_cluster, account.path()).expect_err("no namespace");
        assert!(error.starts_with("there is no `namespace`, and "), "{error}");
    }

    #[test]
    fn outside_of_a_cluster_the_api_has_to_be_named() {
        let error = service().locate_within(|_| None, Path::new("/nowhere")).expect_err("not in a cluster");
        assert!(error.ends_with("outside of a cluster, `api` is needed"), "{error}");
    }
}
