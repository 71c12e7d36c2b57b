//! A small real name server on a free port of this machine, over UDP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _answering: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Zone {
    records: BTreeMap<(String, RecordType), Vec<Record>>,
    failing: BTreeMap<(String, RecordType), Failing>,
    asked: Vec<(String, RecordType)>,
}

/// What a question gets in the place of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failing {
    Code(ResponseCode),
    Silence,
}

// === impl NameServer ===

impl NameServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let (address, zone) = (socket.local_addr().expect("bound"), Arc::<Mutex<Zone>>::default());
        let answering = tokio::spawn(answer(socket, zone.clone()));
        Self { address, zone, _answering: AbortOnDropHandle::new(answering) }
    }

    /// All A and AAAA records of a name; none: the name does not exist.
    pub(crate) fn addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for address in addresses {
            match address.parse().expect("an address") {
                std::net::IpAddr::V4(address) => four.push(RData::A(A(address))),
                std::net::IpAddr::V6(address) => six.push(RData::AAAA(AAAA(address))),
            }
        }
        self.set(name, RecordType::A, ttl, four);
        self.set(name, RecordType::AAAA, ttl, six);
    }

    /// All SRV records of a service.
    pub(crate) fn service(&self, name: &str, ttl: u32, targets: &[(&str, u16)]) {
        let target = |(host, port): &(&str, u16)| RData::SRV(SRV::new(0, 1, *port, parsed(host)));
        self.set(name, RecordType::SRV, ttl, targets.iter().map(target).collect());
    }

    pub(crate) fn fail(&self, name: &str, kind: RecordType, how: Failing) {
        self.zone().failing.insert((name.to_owned(), kind), how);
    }

    pub(crate) fn recover(&self) {
        self.zone().failing.clear();
    }

    /// How often it was asked for these records.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.zone().asked.iter().filter(|(asked, of)| asked == name && *of == kind).count()
    }

    fn set(&self, name: &str, kind: RecordType, ttl: u32, data: Vec<RData>) {
        let record = |data| Record::from_rdata(parsed(name), ttl, data);
        self.zone().records.insert((name.to_owned(), kind), data.into_iter().map(record).collect());
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no test panicked with it")
    }
}

fn parsed(name: &str) -> Name {
    let mut name = Name::from_str_relaxed(name).expect("a name");
    name.set_fqdn(true);
    name
}

async fn answer(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let question = Message::from_vec(&buffer[..length]).expect("a question");
        let reply = zone.lock().expect("no test panicked with it").reply(&question);
        if let Some(reply) = reply {
            socket.send_to(&reply.to_vec().expect("encoded"), from).await.expect("sent");
        }
    }
}

// === impl Zone ===

impl Zone {
    fn reply(&mut self, question: &Message) -> Option<Message> {
        let query = question.queries.first().expect("one question").clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_lowercase();
        let key = (name, query.query_type());
        self.asked.push(key.clone());
        let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
        reply.metadata.recursion_desired = question.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(query);
        match self.failing.get(&key) {
            Some(Failing::Silence) => return None,
            Some(Failing::Code(code)) => reply.metadata.response_code = *code,
            None => {
                let of_name = self.records.iter().filter(|((name, _), records)| *name == key.0 && !records.is_empty());
                if of_name.count() == 0 {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                reply.add_answers(self.records.get(&key).into_iter().flatten().cloned());
            }
        }
        Some(reply)
    }
}
