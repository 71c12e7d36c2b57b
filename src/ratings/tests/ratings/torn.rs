//! What a crash of the machine leaves: a log whose last write is torn.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tenantry_ratings::{Config, Export, Ratings, Reader};

use crate::support::{folder, keys, running, tenant, until};

const DATABASE: &str = "spool.sqlite";
const LOG: &str = "spool.sqlite-wal";

/// The files of a spool that recorded some ratings, as they are on the disk
/// after each answer, and the ratings.
async fn recorded(count: usize) -> (TempDir, Vec<(u64, String)>) {
    let (spool, copy) = (folder(), folder());
    let room = running(Config::new(spool.path())).await;
    let mut recorded = Vec::new();
    for number in 0..count {
        let ack = room.rate_new(&tenant("acme"), Some(&format!("k-{number}"))).await;
        recorded.push((fs::metadata(spool.path().join(LOG)).expect("there").len(), ack.id));
    }
    for file in [DATABASE, LOG] {
        fs::copy(spool.path().join(file), copy.path().join(file)).expect("copied");
    }
    room.stop().await;
    (copy, recorded)
}

/// Opens a copy of the spool with another log, and reads the ratings in it.
async fn survivors(from: &Path, log: &[u8]) -> Vec<String> {
    let spool = folder();
    fs::copy(from.join(DATABASE), spool.path().join(DATABASE)).expect("copied");
    fs::write(spool.path().join(LOG), log).expect("written");
    let (ratings, background) = Ratings::open(Config::new(spool.path()), keys()).await.expect("opens");
    drop(background);
    drop(ratings);
    let mut rows = Reader::open(spool.path()).export(Export::default());
    let mut ids = Vec::new();
    while let Some(row) = rows.next().await.expect("readable and whole") {
        ids.push(row.rating_id);
    }
    ids
}

#[tokio::test]
async fn a_torn_write_behind_what_was_answered_costs_nothing() {
    let (files, recorded) = recorded(6).await;
    let ids: Vec<_> = recorded.iter().map(|(_, id)| id.clone()).collect();
    let log = fs::read(files.path().join(LOG)).expect("there");
    // A frame that looks like the last one but is not whole, and rubbish.
    let frame = &log[log.len() - 4096 - 24..];
    for tail in [&frame[..24], &frame[..2000], frame, &[0; 5000], &[0xFF; 4096 + 24]] {
        let torn = [&log[..], tail].concat();
        assert_eq!(survivors(files.path(), &torn).await, ids, "{} bytes behind", tail.len());
    }
}

/// Cut or overwritten anywhere, a log is read as far as it is whole, and so what
/// was answered with that much of it on the disk is there.
#[tokio::test]
async fn a_log_is_good_up_to_where_it_is_torn() {
    let (files, recorded) = recorded(6).await;
    let log = fs::read(files.path().join(LOG)).expect("there");
    let held = |whole: usize| recorded.iter().filter(move |(end, _)| *end <= whole as u64).map(|(_, id)| id.clone());
    let step = (log.len() / 24).max(1);
    for cut in (0..log.len()).step_by(step) {
        let cut_off = survivors(files.path(), &log[..cut]).await;
        let mut overwritten = log.clone();
        overwritten[cut] ^= 0x55;
        let overwritten = survivors(files.path(), &overwritten).await;
        let expected: Vec<_> = held(cut).collect();
        for survivors in [cut_off, overwritten] {
            assert_eq!(survivors, expected, "torn at {cut} of {}", log.len());
        }
    }
}

#[tokio::test]
async fn a_torn_spool_goes_on() {
    let (files, recorded) = recorded(4).await;
    let log = fs::read(files.path().join(LOG)).expect("there");
    let cut = recorded[2].0 as usize + 100;
    fs::write(files.path().join(LOG), &log[..cut]).expect("written");
    let (sink, taken) = crate::support::Scripted::willing();
    let room = running(Config::new(files.path()).with_sink("one", sink)).await;
    // The fourth was not whole: its key is free.
    let fourth = room.rate_new(&tenant("acme"), Some("k-3")).await;
    let third = room.rate_new(&tenant("acme"), Some("k-2")).await;
    assert_eq!(third.id, recorded[2].1);
    until("delivery", || taken.lock().expect("not poisoned").len() == 4).await;
    let mut ids: Vec<_> = recorded[..3].iter().map(|(_, id)| id.clone()).collect();
    ids.push(fourth.id);
    assert_eq!(crate::support::ids(&taken), ids);
    room.stop().await;
}
