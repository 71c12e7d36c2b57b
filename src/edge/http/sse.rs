//! The body of a streaming response. It owns the generation, so a client that
//! goes away drops the body and with it everything the request holds.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::error;
use super::openai::{ChunkEncoder, DONE, Form, Identity};
use crate::gateway::{EventStream, Generation};
use crate::types::Error;

/// A generation on its way to its first event.
pub(super) type Beginning = BoxFuture<'static, Result<Generation, Error>>;

/// A comment, which clients skip: it keeps proxies from taking a silent
/// connection for a dead one.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

pub(super) struct SseBody {
    state: State,
    silence: Silence,
}

enum State {
    /// The client was told that all is well, and the first event is still to come.
    Beginning {
        generation: Beginning,
        form: Form,
        include_usage: bool,
    },
    Running {
        events: EventStream,
        encoder: ChunkEncoder,
    },
    Ended,
}

/// How long nothing was sent.
struct Silence {
    longest: Duration,
    last_frame: Instant,
    /// Set at the last frame or before it, and only then set anew, so that a
    /// frame costs a look at the clock and no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl SseBody ===

impl SseBody {
    /// For a generation whose first event exists.
    pub(super) fn running(generation: Generation, form: Form, include_usage: bool, hold: Duration) -> Self {
        Self { state: State::running(generation, form, include_usage), silence: Silence::new(hold, Instant::now()) }
    }

    /// For a generation that has let its client wait for `hold` already.
    pub(super) fn beginning(generation: Beginning, form: Form, include_usage: bool, hold: Duration) -> Self {
        let now = Instant::now();
        let silence = Silence::new(hold, now.checked_sub(hold).unwrap_or(now));
        Self { state: State::Beginning { generation, form, include_usage }, silence }
    }

    fn end(&mut self, last: Bytes) -> Poll<Option<Bytes>> {
        self.state = State::Ended;
        Poll::Ready(Some(last))
    }

    /// The next frame of the generation, or pending.
    fn poll_generation(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Beginning { generation, form, include_usage } => match generation.poll_unpin(cx) {
                    Poll::Ready(Ok(generation)) => self.state = State::running(generation, *form, *include_usage),
                    Poll::Ready(Err(error)) => return self.end(error_frame(&error)),
                    Poll::Pending => return Poll::Pending,
                },
                State::Running { events, encoder } => match events.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(event))) => {
                        if let Some(frame) = encoder.event(&event) {
                            return Poll::Ready(Some(frame));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => return self.end(error_frame(&error)),
                    Poll::Ready(None) => return self.end(Bytes::from_static(DONE)),
                    Poll::Pending => return Poll::Pending,
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        match this.poll_generation(cx) {
            Poll::Ready(Some(frame)) => {
                this.silence.broken();
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => this.silence.poll_too_long(cx).map(|()| Some(Ok(Frame::data(KEEP_ALIVE)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

// === impl State ===

impl State {
    fn running(generation: Generation, form: Form, include_usage: bool) -> Self {
        let encoder = ChunkEncoder::new(form, &Identity::of(&generation), include_usage);
        Self::Running { events: generation.stream, encoder }
    }
}

// === impl Silence ===

impl Silence {
    fn new(longest: Duration, last_frame: Instant) -> Self {
        Self { longest, last_frame, timer: None }
    }

    fn broken(&mut self) {
        self.last_frame = Instant::now();
    }

    /// Ready when something has to be sent; the silence counts as broken then.
    fn poll_too_long(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { longest, last_frame, timer } = self;
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*last_frame + *longest)));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let due = *last_frame + *longest;
            if timer.deadline() >= due {
                *last_frame = Instant::now();
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

fn error_frame(error: &Error) -> Bytes {
    let error = error::body(error);
    let mut frame = BytesMut::with_capacity(error.len() + 8);
    frame.put_slice(b"data: ");
    frame.put_slice(&error);
    frame.put_slice(b"\n\n");
    frame.freeze()
}
