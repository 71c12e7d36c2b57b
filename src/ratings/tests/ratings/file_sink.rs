//! The file sink: rotation, deletion under its feet, restarts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tenantry_ratings::{Config, FileCompression, FileConfig, Rotation, SinkKind};

use crate::support::{Running, events_in, folder, running, tenant};

async fn room(spool: &Path, events: &Path, rotation: Rotation) -> Running {
    let sink = SinkKind::File(FileConfig { folder: events.to_owned(), rotation });
    running(Config::new(spool).with_sink("file", sink)).await
}

async fn rate(room: &Running, count: usize) -> Vec<String> {
    let mut recorded = Vec::new();
    for _ in 0..count {
        recorded.push(room.rate_new(&tenant("acme"), None).await.id);
        room.settled().await;
    }
    recorded
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().expect("an id")).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn each_line_is_one_structured_event() {
    let (spool, events) = (folder(), folder());
    let room = room(spool.path(), events.path(), Rotation::default()).await;
    let ack = room.rate_new(&tenant("acme"), Some("k-1")).await;
    room.settled().await;
    let events = events_in(events.path());
    assert_eq!(ids(&events), [ack.id]);
    assert_eq!((&events[0]["specversion"], &events[0]["type"]), (&"1.0".into(), &"generation.rated".into()));
    assert_eq!(events[0]["data"]["idempotency_key"], "k-1");
    room.stop().await;
}

#[tokio::test]
async fn full_files_are_compressed_and_nothing_is_lost_between_them() {
    let (spool, events) = (folder(), folder());
    let rotation = Rotation { bytes: 2000, ..Rotation::default() };
    let room = room(spool.path(), events.path(), rotation).await;
    let recorded = rate(&room, 20).await;
    assert_eq!(ids(&events_in(events.path())), recorded);
    let files = files(events.path());
    assert!(files.len() > 3, "{files:?}");
    let (last, full) = files.split_last().expect("files");
    assert!(full.iter().all(|file| file.to_string_lossy().ends_with(".jsonl.gz")), "{files:?}");
    assert!(last.to_string_lossy().ends_with(".jsonl"));
    room.stop().await;
}

#[tokio::test]
async fn full_files_are_compressed_with_zstd_where_wished() {
    let (spool, events) = (folder(), folder());
    let rotation = Rotation { bytes: 20_000, compression: FileCompression::Zstd, ..Rotation::default() };
    let room = room(spool.path(), events.path(), rotation).await;
    let recorded = rate(&room, 200).await;
    assert_eq!(ids(&events_in(events.path())), recorded);
    let files = files(events.path());
    let (last, full) = files.split_last().expect("files");
    assert!(full.len() > 2 && full.iter().all(|file| file.to_string_lossy().ends_with(".jsonl.zst")), "{files:?}");
    assert!(last.to_string_lossy().ends_with(".jsonl"));
    assert!(full.iter().all(|file| fs::metadata(file).expect("there").len() < 8_000), "little is left");
    room.stop().await;
}

#[tokio::test]
async fn old_files_are_ended_too_and_stay_as_they_are_where_wished() {
    let (spool, events) = (folder(), folder());
    let rotation = Rotation { age: Duration::ZERO, compression: FileCompression::None, ..Rotation::default() };
    let room = room(spool.path(), events.path(), rotation).await;
    let recorded = rate(&room, 4).await;
    assert_eq!(ids(&events_in(events.path())), recorded);
    assert_eq!(files(events.path()).len(), 4);
    room.stop().await;
}

#[tokio::test]
async fn a_file_or_a_folder_that_is_removed_is_made_again() {
    let (spool, place) = (folder(), folder());
    let events = place.path().join("events");
    let room = room(spool.path(), &events, Rotation::default()).await;
    rate(&room, 3).await;
    fs::remove_file(&files(&events)[0]).expect("removed");
    let after = rate(&room, 2).await;
    assert_eq!(ids(&events_in(&events)), after);
    fs::remove_dir_all(&events).expect("removed");
    let after = rate(&room, 2).await;
    assert_eq!(ids(&events_in(&events)), after);
    // Another file in its place is not written to as if it were ours.
    let file = files(&events).remove(0);
    fs::remove_file(&file).expect("removed");
    fs::write(&file, "").expect("written");
    let after = rate(&room, 1).await;
    assert_eq!(ids(&events_in(&events)), after);
    room.stop().await;
}

#[tokio::test]
async fn half_a_line_of_a_crash_is_cut_off() {
    let (spool, events) = (folder(), folder());
    let first = room(spool.path(), events.path(), Rotation::default()).await;
    let mut recorded = rate(&first, 2).await;
    first.stop().await;
    let file = files(events.path()).remove(0);
    let whole = fs::read_to_string(&file).expect("readable");
    fs::write(&file, format!("{whole}{{\"specversion\":\"1.0\",\"id\":\"rat_")).expect("written");
    let second = room(spool.path(), events.path(), Rotation::default()).await;
    recorded.extend(rate(&second, 1).await);
    assert_eq!(ids(&events_in(events.path())), recorded);
    second.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_holds_events_back_and_no_more() {
    let (spool, place) = (folder(), folder());
    let events = place.path().join("events");
    // A file where the folder should be.
    fs::write(&events, "").expect("written");
    let room = room(spool.path(), &events, Rotation::default()).await;
    let ack = room.rate_new(&tenant("acme"), None).await;
    let sink = room.ratings.metrics().sinks()[0].clone();
    crate::support::until("retries", || sink.retried() > 1).await;
    fs::remove_file(&events).expect("removed");
    room.settled().await;
    assert_eq!(ids(&events_in(&events)), [ack.id]);
    room.stop().await;
}
