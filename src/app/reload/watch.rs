//! Whether a file has changed, found by looking: an editor may write it or put
//! another in its place, and Kubernetes turns the links that lead to it, so
//! nothing but the file at the end of its path is to be relied on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a file is known by without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// Says once of every change that it is over.
pub(super) struct Watch {
    file: PathBuf,
    /// As it was last told; `None`: it was not there.
    told: Option<Sight>,
    /// As it was at the last look.
    seen: Option<Sight>,
}

// === impl Watch ===

impl Watch {
    /// Of a file that was read at that time: what was written since is a change.
    pub(super) fn of(file: &Path, read: SystemTime) -> Self {
        let sight = Sight::of(file);
        let changed = fs::metadata(file).and_then(|it| it.modified()).is_ok_and(|modified| modified > read);
        Self { file: file.to_owned(), told: sight.filter(|_| !changed), seen: sight }
    }

    /// Looks at the file. True where it is not as it was told, and as it was
    /// at the look before: whoever changes it is done.
    pub(super) fn look(&mut self) -> bool {
        let now = Sight::of(&self.file);
        let settled = std::mem::replace(&mut self.seen, now) == now;
        let changed = settled && now != self.told;
        if changed {
            self.told = now;
        }
        changed
    }
}

// === impl Sight ===

impl Sight {
    fn of(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_told_once_and_when_it_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "one").expect("written");
        let mut watch = Watch::of(&at("file"), SystemTime::now());
        assert!(!watch.look() && !watch.look(), "nothing has changed");

        fs::write(at("file"), "longer").expect("written");
        assert!(!watch.look(), "it may be changing still");
        assert!(watch.look());
        assert!(!watch.look(), "it was told");

        fs::write(at("other"), "longer").expect("written");
        fs::rename(at("other"), at("file")).expect("moved");
        assert!(!watch.look() && watch.look() && !watch.look(), "another file in its place");

        fs::remove_file(at("file")).expect("removed");
        assert!(!watch.look());
        fs::write(at("file"), "there again").expect("written");
        assert!(!watch.look() && watch.look(), "gone for a moment");
    }

    #[test]
    fn a_link_that_turns_is_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("file"), version).expect("written");
        }
        symlink("v1", at("data")).expect("linked");
        symlink("data/file", at("file")).expect("linked");
        let mut watch = Watch::of(&at("file"), SystemTime::now());
        symlink("v2", at("turning")).expect("linked");
        fs::rename(at("turning"), at("data")).expect("turned");
        assert!(!watch.look() && watch.look() && !watch.look());
    }
}
