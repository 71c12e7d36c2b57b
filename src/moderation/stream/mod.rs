//! The answer's side of the guard: events of a worker in, events for the client
//! out, held back until their text was judged.
//!
//! It does no waiting of its own beyond [`OutputGuard::poll`]: whoever has the
//! worker's stream pushes what comes and sends what is released.

mod choice;
mod fields;
#[cfg(test)]
mod tests;
mod text;

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::{Instant, Sleep};

use super::judge::{Judge, Opinion, Question};
use super::policy::{Found, Output, Policy};
use crate::types::{Action, Event, Finding, Side, Stage};

use choice::{CONTENT, Choice, Pushed, Released, State, TOKENS};
use text::Step;

/// Bytes that may wait for an answer before the worker is asked for no more.
const FULL: usize = 4096;

/// Judges one answer.
pub struct OutputGuard {
    policy: Arc<Policy>,
    judge: Arc<Judge>,
    choices: Vec<Choice>,
    /// Those that something may be sent of.
    touched: VecDeque<usize>,
    asking: FuturesUnordered<BoxFuture<'static, (usize, Arc<str>, Opinion)>>,
    /// The worker's last event, after the ends of all choices.
    usage: Option<Event>,
    /// Choices that the worker has ended itself.
    ended_choices: usize,
    /// Whether anything was stopped.
    stopped: bool,
    /// The worker has said all.
    ended: bool,
    at_once: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Of stage 1, looked up once.
    seconds: Histogram,
    first_sent: bool,
}

// === impl OutputGuard ===

impl OutputGuard {
    /// For an answer of so many choices. `flags`, what was found in the prompt, is
    /// told with the first choice. `None` where the policy does not look at answers.
    pub(super) fn new(policy: Arc<Policy>, judge: Arc<Judge>, choices: u32, flags: Vec<Finding>) -> Option<Self> {
        let at_once = policy.output.as_ref().map(Output::sends_at_once);
        if at_once.is_none() && flags.is_empty() {
            return None;
        }
        let metrics = judge.metrics();
        if at_once.is_some() {
            metrics.text(Side::Output);
        }
        let mut flags = Some(flags);
        let choice = |number| Choice::new(number, judge.model, flags.take().unwrap_or_default());
        let choices: Vec<Choice> = (0..choices.max(1)).map(choice).collect();
        Some(Self {
            seconds: metrics.stage(Side::Output, Stage::Linear),
            policy,
            judge,
            choices,
            touched: VecDeque::new(),
            asking: FuturesUnordered::new(),
            usage: None,
            ended_choices: 0,
            stopped: false,
            ended: false,
            at_once: at_once.unwrap_or(true),
            timer: None,
            first_sent: false,
        })
    }

    /// The next event of the worker's.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Delta(delta) => {
                let number = delta.choice as usize;
                // One that was not asked for cannot be told to a client.
                let Some(choice) = self.choices.get_mut(number) else { return };
                if choice.state() != State::Open {
                    return;
                }
                let now = Instant::now();
                let Pushed { grown, paused, too_many } = choice.push(delta, now, self.policy.output.is_some());
                self.touched.push_back(number);
                if too_many {
                    let found = Found::unjudged();
                    return self.stop(number, &CONTENT.into(), &found, 0..0);
                }
                if grown.is_empty() {
                    return;
                }
                // What another text has taken over from is judged as if it had ended.
                for channel in grown.into_iter().chain(paused) {
                    self.advance(number, &channel, false);
                }
                self.seconds.observe(now.elapsed().as_secs_f64());
            }
            Event::Finished { choice, reason } => {
                let Some(ended) = self.choices.get_mut(choice as usize) else { return };
                ended.end(reason);
                self.ended_choices += 1;
                self.finish(choice as usize);
            }
            Event::Usage(_) => self.usage = Some(event),
        }
    }

    /// The worker has said all that it will: what waits is judged as it is.
    pub fn end(&mut self) {
        self.ended = true;
        for number in 0..self.choices.len() {
            self.finish(number);
        }
    }

    /// The next event to be sent; pending where there is none before more is pushed,
    /// or answered, or time has gone by.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            // What is sent at once is sent after what is known by now.
            if !self.at_once
                && let Some(event) = self.release()
            {
                return Poll::Ready(event);
            }
            match self.asking.poll_next_unpin(cx) {
                Poll::Ready(Some((number, channel, opinion))) => self.answered(number, &channel, opinion),
                Poll::Ready(None) | Poll::Pending if self.at_once => {
                    return self.release().map_or(Poll::Pending, Poll::Ready);
                }
                Poll::Ready(None) | Poll::Pending => match self.poll_timer(cx) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Whether nothing is left to be sent, once the worker has said all.
    pub fn is_done(&self) -> bool {
        self.usage.is_none() && self.is_waiting_for_nothing()
    }

    /// Whether a judge outside has a part in it.
    pub fn asks_outside(&self) -> bool {
        self.policy.output.as_ref().is_some_and(|output| output.rules.judge.is_some())
    }

    /// Whether so much waits to be judged that the worker has to wait as well.
    pub fn is_full(&self) -> bool {
        !self.asking.is_empty() && self.choices.iter().map(Choice::held_bytes).sum::<usize>() > FULL
    }

    /// Whether the answer was ended here: every choice has its end, and one of them
    /// because of what it said.
    pub fn has_stopped(&self) -> bool {
        self.stopped && self.is_over()
    }

    /// Whether all that the worker has left to say is what it used.
    pub fn awaits_usage(&self) -> bool {
        self.usage.is_none() && self.ended_choices >= self.choices.len()
    }

    fn is_over(&self) -> bool {
        self.choices.iter().all(|choice| choice.state() == State::Over)
    }

    fn release(&mut self) -> Option<Event> {
        while let Some(number) = self.touched.front() {
            let choice = &mut self.choices[*number];
            let released = if self.at_once { choice.release_all() } else { choice.release() };
            let Some(Released { event, arrived }) = released else {
                self.touched.pop_front();
                continue;
            };
            if let Some(arrived) = arrived.filter(|_| !self.at_once) {
                let held = arrived.elapsed();
                self.judge.metrics().held(held);
                if !std::mem::replace(&mut self.first_sent, true) {
                    self.judge.metrics().first_token_held(held);
                }
            }
            return Some(event);
        }
        if self.usage.is_none() && self.asking.is_empty() {
            return None;
        }
        let over = self.is_over();
        if over {
            // Answers that come to nothing are not waited for.
            self.asking.clear();
        }
        if over || self.ended && self.is_waiting_for_nothing() { self.usage.take() } else { None }
    }

    fn is_waiting_for_nothing(&self) -> bool {
        self.asking.is_empty() && !self.choices.iter().any(Choice::waits)
    }

    fn finish(&mut self, number: usize) {
        self.touched.push_back(number);
        for channel in self.choices[number].channels() {
            self.advance(number, &channel, true);
        }
    }

    fn advance(&mut self, number: usize, channel: &Arc<str>, ends: bool) {
        let policy = self.policy.clone();
        let Some(output) = &policy.output else { return };
        let choice = &mut self.choices[number];
        if !choice.state().is_judged() {
            return;
        }
        let Some(text) = choice.text(channel) else { return };
        let step = text.advance(&output.rules, ends);
        let told: Vec<_> = text.told().collect();
        for (found, span) in told {
            self.note(number, channel, &found, [span]);
        }
        match step {
            Some(Step::Ask(question)) => self.ask(number, channel, question),
            Some(Step::Stop(found, span)) => self.stop(number, channel, &found, span),
            None => {}
        }
    }

    fn ask(&mut self, number: usize, channel: &Arc<str>, question: Question) {
        let (judge, policy, channel) = (self.judge.clone(), self.policy.clone(), channel.clone());
        self.asking.push(Box::pin(async move {
            let opinion = judge.opinion(policy, Side::Output, question).await;
            (number, channel, opinion)
        }));
    }

    fn answered(&mut self, number: usize, channel: &Arc<str>, opinion: Opinion) {
        self.touched.push_back(number);
        let choice = &mut self.choices[number];
        if !choice.state().is_judged() {
            return;
        }
        let Some(text) = choice.text(channel) else { return };
        if let Some((found, spans)) = text.answer(opinion) {
            match found.action {
                Action::Block => return self.stop(number, channel, &found, bounds(&spans)),
                // As many as are taken out.
                Action::Redact => self.note(number, channel, &found, spans),
                Action::Flag => self.note(number, channel, &found, [bounds(&spans)]),
            }
        }
        let ends = self.choices[number].state() != State::Open || self.ended;
        self.advance(number, channel, ends);
    }

    fn stop(&mut self, number: usize, channel: &Arc<str>, found: &Found, span: Range<usize>) {
        self.note(number, channel, found, [span]);
        self.choices[number].stop();
        self.touched.push_back(number);
        self.stopped = true;
    }

    fn note(
        &mut self,
        number: usize,
        channel: &Arc<str>,
        found: &Found,
        spans: impl IntoIterator<Item = Range<usize>>,
    ) {
        // What tokens spell was found, or will be, in the text that they make.
        if **channel == *TOKENS && found.action != Action::Block {
            return;
        }
        self.judge.metrics().verdict(Side::Output, found.action, &found.category);
        for span in spans {
            self.choices[number].note(Finding {
                side: Side::Output,
                action: found.action,
                stage: found.stage,
                category: found.category.clone(),
                score: found.score,
                place: channel.clone(),
                span: Some(span),
            });
        }
    }

    /// Ready where time has made something known.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(hold) = self.policy.output.as_ref().filter(|_| !self.at_once).map(|output| output.hold) else {
            return Poll::Pending;
        };
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut due = Vec::new();
        for (number, choice) in self.choices.iter().enumerate() {
            let Some(since) = choice.waits_since() else { continue };
            match since + hold {
                at if at <= now => due.push(number),
                at => next = Some(next.map_or(at, |next| next.min(at))),
            }
        }
        let mut moved = false;
        for number in due {
            for channel in self.choices[number].channels() {
                let Some(text) = self.choices[number].text(&channel) else { continue };
                if let Some(Step::Ask(question)) = text.expire() {
                    self.ask(number, &channel, question);
                    moved = true;
                } else if text.is_late() {
                    self.advance(number, &channel, false);
                    self.touched.push_back(number);
                    moved = true;
                }
            }
        }
        if moved {
            return Poll::Ready(());
        }
        let Some(next) = next else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        timer.as_mut().poll(cx)
    }
}

// === impl State ===

impl State {
    /// Whether its text is still looked at.
    fn is_judged(self) -> bool {
        matches!(self, Self::Open | Self::Ended(_))
    }
}

/// From the first to the last of some spans.
fn bounds(spans: &[Range<usize>]) -> Range<usize> {
    let start = spans.iter().map(|span| span.start).min().unwrap_or(0);
    start..spans.iter().map(|span| span.end).max().unwrap_or(start)
}
