//! A full disk: refusals, nothing lost, and recovery without anybody's help.

use std::process::{Command, Stdio};

use crate::process::{Answered, Appender};
use crate::support::{events_in, folder};

/// Mounts a small disk at the first argument, for this process alone, and
/// becomes the command behind it.
const SMALL_DISK: &str = "mount -t tmpfs -o size=40m tmpfs \"$0\" && exec \"$@\"";
/// Becomes the command, in which a write beyond a file's limit is an error.
const LIMITED: &str = "trap '' XFSZ && exec \"$@\"";

/// The command with which a process has mounts of its own, where one works.
fn own_mounts() -> Option<&'static [&'static str]> {
    let ways: [&'static [&'static str]; 2] =
        [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    ways.into_iter().find(|way| {
        let folder = folder();
        let mut trial = Command::new(way[0]);
        trial.args(&way[1..]).args(["bash", "-c", SMALL_DISK]).arg(folder.path()).arg("true").stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let (disk, copy) = (folder(), folder());
    let mut answered = Answered::of(&["acme", "globex", "initech"]);
    let (spool, events) = (disk.path().join("spool"), disk.path().join("events"));
    let filler = disk.path().join("filler");
    let at = disk.path().to_str().expect("UTF-8");
    let mounts = own_mounts();
    let through: Vec<&str> = match mounts {
        Some(way) => way.iter().copied().chain(["bash", "-c", SMALL_DISK, at]).collect(),
        // Without the right to mount, the limit is each file's.
        None => vec!["bash", "-c", LIMITED, "bash"],
    };
    let mut appender = Appender::start(&through, &spool, &events, &answered);
    for _ in 0..3 {
        let mut more = 200;
        appender.until(&mut answered, |line| {
            more -= usize::from(line.starts_with("ack"));
            more == 0
        });
        match mounts {
            Some(_) => appender.tell(&format!("fill {}", filler.display())),
            None => limit(appender.id(), "65536:"),
        }
        let mut refused = 0;
        appender.until(&mut answered, |line| {
            refused += usize::from(line.starts_with("refused"));
            refused == 20
        });
        match mounts {
            Some(_) => {
                appender.tell(&format!("free {}", filler.display()));
                appender.until(&mut answered, |line| line == "freed");
            }
            None => limit(appender.id(), "unlimited:"),
        }
    }
    let mut more = 200;
    appender.until(&mut answered, |line| {
        more -= usize::from(line.starts_with("ack"));
        more == 0
    });
    appender.finish(&mut answered, copy.path());
    answered.check(&events_in(copy.path()));
}

fn limit(process: u32, bytes: &str) {
    let status = Command::new("prlimit").arg("--pid").arg(process.to_string()).arg(format!("--fsize={bytes}")).status();
    assert!(status.expect("prlimit runs").success());
}
