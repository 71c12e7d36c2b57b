//! The crash victim (`examples/appender.rs`), and what is known of its answers.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// What was answered: for each tenant the ratings' ids in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Answered(pub(crate) BTreeMap<String, Vec<String>>);

pub(crate) struct Appender {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

pub(crate) fn appender() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(Path::parent).expect("the target's folder");
    let path = folder.join("examples/appender");
    assert!(path.exists(), "{} is missing: `cargo test` builds it, `cargo test --test` does not", path.display());
    path
}

// === impl Answered ===

impl Answered {
    pub(crate) fn of(tenants: &[&str]) -> Self {
        Self(tenants.iter().map(|tenant| ((*tenant).to_owned(), Vec::new())).collect())
    }

    /// Notes a line of the victim's. `false` where it is no answer.
    pub(crate) fn note(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let ["ack", tenant, number, id, _] = words[..] else { return false };
        let ids = self.0.get_mut(tenant).expect("one of the tenants");
        assert_eq!(number.parse(), Ok(ids.len()), "answers come in order");
        ids.push(id.to_owned());
        true
    }

    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Every answered rating is among the events; to who drops what it has
    /// seen none comes twice, and each tenant's are in order without a gap.
    pub(crate) fn check(&self, events: &[Value]) {
        let mut seen: HashMap<&str, Vec<&str>> = HashMap::new();
        for event in events.iter().filter(|event| event["type"] == "generation.rated") {
            let (tenant, id) = (event["tenant"].as_str().expect("a tenant"), event["id"].as_str().expect("an id"));
            let ids = seen.entry(tenant).or_default();
            if ids.contains(&id) {
                continue;
            }
            let key = event["data"]["idempotency_key"].as_str().expect("a key");
            assert_eq!(key, format!("{tenant}-{}", ids.len()), "in order, none left out, no key under two ids");
            ids.push(id);
        }
        for (tenant, answered) in &self.0 {
            let delivered = seen.get(tenant.as_str()).map_or(&[][..], Vec::as_slice);
            assert!(delivered.len() >= answered.len(), "{tenant}: {} of {}", delivered.len(), answered.len());
            assert_eq!(&delivered[..answered.len()], answered, "{tenant}");
        }
    }
}

// === impl Appender ===

impl Appender {
    /// Goes on with each tenant's first key that was not answered. `through` is
    /// a command that becomes the one behind it.
    pub(crate) fn start(through: &[&str], spool: &Path, events: &Path, answered: &Answered) -> Self {
        let appender = appender();
        let mut words = through.iter().map(std::ffi::OsStr::new).chain([appender.as_os_str()]);
        let mut command = Command::new(words.next().expect("a command"));
        command.args(words).arg(spool).arg(events);
        for (tenant, ids) in &answered.0 {
            command.arg(format!("{tenant}={}", ids.len()));
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the appender starts");
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = process.stdin.take().expect("piped");
        Self { process, input, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it listens");
    }

    /// Reads lines until one is wanted; it hangs no longer than a minute a line.
    pub(crate) fn until(&self, answered: &mut Answered, mut wanted: impl FnMut(&str) -> bool) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("the appender goes on");
            answered.note(&line);
            if wanted(&line) {
                return;
            }
        }
    }

    /// As a crash would end it. All that it said is noted.
    pub(crate) fn kill(mut self, answered: &mut Answered) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        for line in self.lines {
            answered.note(&line);
        }
    }

    pub(crate) fn finish(mut self, answered: &mut Answered, copy_to: &Path) {
        self.tell(&format!("finish {}", copy_to.display()));
        self.until(answered, |line| line == "finished");
        assert!(self.process.wait().expect("it ends").success());
    }
}
