//! An uploaded archive, read with suspicion: `.tar` or `.tar.gz`.
//!
//! Nothing is unpacked where the archive wants it. The adapter's two files are
//! written under their own names into a folder of ours; what else is in the
//! archive is passed over, and what could reach out of a folder is refused.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path};

use flate2::read::GzDecoder;

use super::error::PublishError;
use super::{CONFIG_FILE, WEIGHTS_FILE};

/// Entries that are looked at.
const ENTRIES: usize = 1_000;
/// The longest name, and the longest extended header.
const EXTENDED: u64 = 64 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Takes the adapter's files out of `archive` into `folder`; `most` bytes of
/// them all may be unpacked.
pub(super) fn unpack(archive: &Path, folder: &Path, most: u64) -> Result<(), PublishError> {
    let mut file = File::open(archive).map_err(broken)?;
    let mut magic = [0; 2];
    let read = file.read(&mut magic).map_err(broken)?;
    let packed = magic[..read] == GZIP;
    file.rewind().map_err(broken)?;
    {
        let file = BufReader::new(&mut file);
        if packed { look_through(GzDecoder::new(file), most) } else { look_through(file, most) }?;
    }
    file.rewind().map_err(broken)?;
    let file = BufReader::new(file);
    if packed { from_tar(GzDecoder::new(file), folder, most) } else { from_tar(file, folder, most) }
}

/// Looks at the headers alone. Long names and extended headers are entries of
/// their own, which the reader takes into memory whole: they have to be short.
fn look_through(source: impl Read, most: u64) -> Result<(), PublishError> {
    // One byte more tells a source that is too long from one that is just long enough.
    let mut archive = tar::Archive::new(source.take(most.saturating_add(1)));
    let mut unpacked = 0_u64;
    for (index, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        // A header may claim any size.
        unpacked = unpacked.saturating_add(entry.size());
        if unpacked > most {
            return Err(unsafe_(format!("it unpacks to more than {most} bytes")));
        }
        // A file has up to three such before it.
        if index >= 4 * ENTRIES {
            return Err(unsafe_(format!("it has more than {ENTRIES} entries")));
        }
        let kind = entry.header().entry_type();
        let extends = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extends && entry.size() > EXTENDED {
            return Err(unsafe_(format!("it has a name or an extended header of more than {EXTENDED} bytes")));
        }
        // Both say where entries lie, so that whoever reads them sees other entries than who does not.
        let moves = match kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            true => has_size(&mut entry)?,
            false => kind.is_gnu_sparse(),
        };
        if moves {
            return Err(unsafe_("it has files with holes, or sizes beside those of its headers".to_owned()));
        }
    }
    Ok(())
}

fn has_size(entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, PublishError> {
    let mut records = Vec::new();
    entry.read_to_end(&mut records).map_err(broken)?;
    Ok(records.windows(6).any(|text| text == b" size=") || records.windows(12).any(|text| text == b" GNU.sparse."))
}

fn from_tar(source: impl Read, folder: &Path, most: u64) -> Result<(), PublishError> {
    let mut archive = tar::Archive::new(source.take(most.saturating_add(1)));
    // Where the first of the files was found; the others have to lie beside it.
    let mut place = None;
    for (index, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if index >= ENTRIES {
            return Err(unsafe_(format!("it has more than {ENTRIES} entries")));
        }
        let path = entry.path().map_err(broken)?.into_owned();
        let shown = path.display().to_string().chars().take(200).collect::<String>();
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(unsafe_(format!("`{shown}` leads out of its folder")));
        }
        let kind = entry.header().entry_type();
        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            _ => return Err(unsafe_(format!("`{shown}` is neither a file nor a folder"))),
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ![CONFIG_FILE, WEIGHTS_FILE, "adapter_model.bin"].contains(&name) {
            continue;
        }
        let beside = path.parent().unwrap_or(Path::new("")).to_owned();
        if *place.get_or_insert_with(|| beside.clone()) != beside {
            return Err(unsafe_(format!("`{shown}` is not beside the adapter's other file")));
        }
        let target = folder.join(name);
        if target.exists() {
            return Err(unsafe_(format!("`{shown}` is in it twice")));
        }
        let mut file = File::create_new(&target).map_err(broken)?;
        io::copy(&mut entry, &mut file).map_err(broken)?;
    }
    Ok(())
}

/// The reader's own words repeat what is in the archive.
fn broken(error: io::Error) -> PublishError {
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off",
        _ => "it is neither a whole .tar nor a whole .tar.gz",
    };
    PublishError::BrokenArchive(why.to_owned())
}

fn unsafe_(what: String) -> PublishError {
    PublishError::UnsafeArchive(what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An archive with these entries, whose names nothing has looked at.
    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.as_gnu_mut().expect("GNU").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *data).expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }

    fn unpacked(bytes: &[u8], most: u64) -> Result<Vec<String>, PublishError> {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, out) = (folder.path().join("archive"), folder.path().join("out"));
        std::fs::write(&file, bytes).expect("written");
        std::fs::create_dir(&out).expect("made");
        unpack(&file, &out, most)?;
        let entries = std::fs::read_dir(out).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        Ok(names)
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn the_two_files_are_found_at_the_root_or_in_a_folder_plain_or_packed() {
        for place in ["", "./", "support/", "a/b/"] {
            let (config, weights) = (format!("{place}{CONFIG_FILE}"), format!("{place}{WEIGHTS_FILE}"));
            let plain = archive(&[(&config, FILE, b"{}"), ("README.md", FILE, b"x"), (&weights, FILE, b"w")]);
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&plain).expect("in memory");
            for bytes in [plain, packed.finish().expect("in memory")] {
                assert_eq!(unpacked(&bytes, 1 << 20).expect("read"), [CONFIG_FILE, WEIGHTS_FILE], "{place}");
            }
        }
    }

    #[test]
    fn what_could_reach_out_of_its_folder_is_refused_by_name() {
        let says = |entries: &[(&str, tar::EntryType, &[u8])]| match unpacked(&archive(entries), 1 << 20) {
            Err(PublishError::UnsafeArchive(why)) => why,
            other => panic!("{other:?}"),
        };
        for name in ["../adapter_config.json", "/etc/adapter_config.json", "a/../../adapter_config.json"] {
            assert_eq!(says(&[(name, FILE, b"{}")]), format!("`{name}` leads out of its folder"));
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Fifo] {
            assert_eq!(says(&[(CONFIG_FILE, kind, b"")]), format!("`{CONFIG_FILE}` is neither a file nor a folder"));
        }
        let twice = [(CONFIG_FILE, FILE, &b"{}"[..]), (CONFIG_FILE, FILE, b"{}")];
        assert_eq!(says(&twice), format!("`{CONFIG_FILE}` is in it twice"));
        let apart = [("a/adapter_config.json", FILE, &b"{}"[..]), ("b/adapter_model.safetensors", FILE, b"w")];
        assert_eq!(says(&apart), "`b/adapter_model.safetensors` is not beside the adapter's other file");
    }

    #[test]
    fn a_size_that_no_file_has_is_not_believed() {
        let says = |size: u64| {
            let mut bytes = archive(&[("first", FILE, &[1; 600])]);
            bytes.truncate(512 + 1024);
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.as_gnu_mut().expect("GNU").name[..4].copy_from_slice(b"more");
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&[0; 1024]);
            unpacked(&bytes, 1 << 20).expect_err("it is refused")
        };
        let large = PublishError::UnsafeArchive("it unpacks to more than 1048576 bytes".to_owned());
        assert_eq!(says(u64::MAX / 2), large);
        // The archive's reader finds by itself that no file ends there.
        assert!(matches!(says(u64::MAX - 100), PublishError::BrokenArchive(_)));
    }

    #[test]
    fn what_the_reader_would_take_into_memory_is_short() {
        let says = |entries: &[(&str, tar::EntryType, &[u8])]| match unpacked(&archive(entries), 8 << 20) {
            Err(PublishError::UnsafeArchive(why)) => why,
            other => panic!("{other:?}"),
        };
        let long = vec![b'n'; (EXTENDED + 1) as usize];
        for kind in [
            tar::EntryType::GNULongName,
            tar::EntryType::GNULongLink,
            tar::EntryType::XHeader,
            tar::EntryType::XGlobalHeader,
        ] {
            let refused = says(&[("long", kind, &long), (CONFIG_FILE, FILE, b"{}")]);
            assert_eq!(refused, "it has a name or an extended header of more than 65536 bytes");
        }
        let holes = "it has files with holes, or sizes beside those of its headers";
        assert_eq!(says(&[("x", tar::EntryType::XHeader, b"12 size=999\n"), (CONFIG_FILE, FILE, b"{}")]), holes);
        assert_eq!(says(&[(CONFIG_FILE, tar::EntryType::GNUSparse, b"{}")]), holes);
        let name = tar::EntryType::GNULongName;
        let named = archive(&[("long", name, b"a/adapter_config.json\0"), ("short", FILE, b"{}")]);
        assert_eq!(unpacked(&named, 1 << 20).expect("a long name is one"), [CONFIG_FILE]);
    }

    #[test]
    fn a_small_archive_does_not_become_large_files() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&archive(&[("padding", FILE, &vec![0; 4 << 20])])).expect("in memory");
        let packed = packed.finish().expect("in memory");
        assert!(packed.len() < 16 << 10);
        let refused = unpacked(&packed, 1 << 20);
        assert_eq!(refused, Err(PublishError::UnsafeArchive("it unpacks to more than 1048576 bytes".to_owned())));
        assert!(matches!(unpacked(b"\x1f\x8bno gzip", 1 << 20), Err(PublishError::BrokenArchive(_))));
        assert!(matches!(unpacked(&[7; 700], 1 << 20), Err(PublishError::BrokenArchive(_))));
    }
}
