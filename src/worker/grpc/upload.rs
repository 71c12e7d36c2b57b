//! An adapter's two files on their way to the worker, in pieces, so that no
//! more of them is in memory than a few.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::convert::key_to_pb;
use super::pb;
use crate::worker::AdapterLoad;
use pb::load_adapter_request::Part;

const PIECE: usize = 1 << 20;
/// Read and not yet sent.
const AHEAD: usize = 2;

/// The messages of one upload; and the reader, which says why it could not
/// read to the end.
pub(super) fn pieces(
    load: &AdapterLoad,
) -> (impl Stream<Item = pb::LoadAdapterRequest> + Send + 'static, JoinHandle<Result<(), String>>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let header = pb::LoadAdapterHeader { key: Some(key_to_pb(&load.key)), base: load.base.to_string() };
    let folder = load.folder.clone();
    let reader = tokio::task::spawn_blocking(move || {
        // A receiver that is gone has a reason of its own to tell.
        let send = |part| sender.blocking_send(pb::LoadAdapterRequest { part: Some(part) }).is_ok();
        let _ = send(Part::Header(header))
            && read(&folder, "adapter_config.json", |piece| send(Part::Config(piece)))?
            && read(&folder, "adapter_model.safetensors", |piece| send(Part::Weights(piece)))?;
        Ok(())
    });
    let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (pieces, reader)
}

/// `Ok(false)` where nobody wants more.
fn read(folder: &Path, name: &str, mut send: impl FnMut(Vec<u8>) -> bool) -> Result<bool, String> {
    let failed = |error| format!("{name} cannot be read: {error}");
    let mut file = File::open(folder.join(name)).map_err(failed)?;
    loop {
        let mut piece = Vec::new();
        (&mut file).take(PIECE as u64).read_to_end(&mut piece).map_err(failed)?;
        if piece.is_empty() {
            return Ok(true);
        }
        if !send(piece) {
            return Ok(false);
        }
    }
}
