//! One event a line, to this process's standard output.

use futures_util::future::BoxFuture;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{Entry, Outcome, Sink, all_later};

/// Lines to a writer. What has left this process counts as taken.
pub(crate) struct Stdout<W = tokio::io::Stdout>(W);

// === impl Stdout ===

impl Stdout {
    pub(crate) fn new() -> Self {
        Self(tokio::io::stdout())
    }
}

impl<W: AsyncWrite + Send + Unpin> Sink for Stdout<W> {
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            for entry in batch {
                lines.extend_from_slice(entry.payload.as_bytes());
                lines.push(b'\n');
            }
            let written = async {
                self.0.write_all(&lines).await?;
                self.0.flush().await
            };
            match written.await {
                Ok(()) => vec![Outcome::Taken; batch.len()],
                Err(error) => all_later(batch, error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventType;
    use tokio::io::AsyncReadExt as _;

    fn entry(payload: &str) -> Entry {
        Entry {
            seq: 1,
            id: "rat_1".to_owned(),
            tenant: "acme".to_owned(),
            kind: EventType::Rated,
            subject: "gen_1".to_owned(),
            payload: payload.to_owned(),
        }
    }

    #[tokio::test]
    async fn each_event_is_a_line() {
        let (near, mut far) = tokio::io::duplex(64);
        let taken = Stdout(near).deliver(&[entry("{\"a\":1}"), entry("{\"b\":2}")]).await;
        assert_eq!(taken, [Outcome::Taken, Outcome::Taken]);
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("readable");
        assert_eq!(text, "{\"a\":1}\n{\"b\":2}\n");
    }

    #[tokio::test]
    async fn an_output_that_is_gone_takes_nothing() {
        let (near, far) = tokio::io::duplex(64);
        drop(far);
        let outcomes = Stdout(near).deliver(&[entry("{}")]).await;
        assert!(matches!(outcomes[..], [Outcome::Later { .. }]));
    }
}
