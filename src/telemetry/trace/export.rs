//! Spans on their way to the collector: in batches, by a thread of their own,
//! from a bounded queue. What does not fit in is counted and forgotten.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue};
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor,
};
use tonic::metadata::{Ascii, MetadataKey, MetadataMap};
use tracing::warn;

use super::Config;
use crate::types::{SpanId, TraceContext};

/// Spans that wait to be sent at most.
const QUEUE: usize = 4096;

/// What a request's span says.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    pub name: String,
    /// What all of its spans say, and what only its own does.
    pub shared: Vec<(&'static str, Value)>,
    pub own: Vec<(&'static str, Value)>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    Float(f64),
    Bool(bool),
}

/// A step that ended.
pub(super) struct Spanned {
    pub span: SpanId,
    pub name: &'static str,
    pub from: SystemTime,
    pub to: SystemTime,
    pub worker: Option<Arc<str>>,
    pub answered: Option<SystemTime>,
    pub error: Option<Cow<'static, str>>,
}

pub(super) struct Exporter {
    batches: BatchSpanProcessor,
    scope: InstrumentationScope,
    dropped: Arc<AtomicU64>,
    /// Spans that wait to be sent.
    queued: Arc<AtomicU64>,
}

/// The collector's client, whose failures are counted and told.
#[derive(Debug)]
struct Counted<E> {
    inner: E,
    dropped: Arc<AtomicU64>,
    queued: Arc<AtomicU64>,
}

// === impl Exporter ===

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    pub(super) fn open(config: &Config) -> Result<Self, String> {
        let mut metadata = MetadataMap::new();
        for (name, value) in &config.headers {
            let key = name.parse::<MetadataKey<Ascii>>();
            let key = key.map_err(|_| format!("`{name}` is not the name of a header"))?;
            let value = value.expose().parse().map_err(|_| format!("the value of `{name}` is not one of a header"))?;
            metadata.insert(key, value);
        }
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&config.endpoint)
            .with_timeout(config.timeout)
            .with_metadata(metadata)
            .build()
            .map_err(|error| error.to_string())?;
        let dropped = Arc::new(AtomicU64::new(0));
        let queued = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: exporter, dropped: dropped.clone(), queued: queued.clone() };
        let size = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let mut batches = BatchSpanProcessor::builder(counted).with_batch_config(size).build();
        let resource = Resource::builder_empty().with_service_name(config.service_name.clone()).with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", ulid::Ulid::generate().to_string()),
        ]);
        batches.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("tenantry").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { batches, scope, dropped, queued })
    }

    #[expect(clippy::too_many_arguments, reason = "each is one part of a span, and it is called in one place")]
    pub(super) fn send(
        &self,
        own: &TraceContext,
        parent: Option<SpanId>,
        from: SystemTime,
        to: SystemTime,
        described: Described,
        error: Option<&'static str>,
        children: Vec<Spanned>,
    ) {
        let Described { name, shared, own: more } = described;
        for child in children {
            self.queue(self.child(own, child, &name, &shared));
        }
        let attributes = shared.into_iter().chain(more).map(|(name, value)| KeyValue::new(name, value));
        let mut attributes: Vec<KeyValue> = attributes.collect();
        attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
        self.queue(SpanData {
            span_context: context(own, own.span),
            parent_span_id: parent.map_or(opentelemetry::trace::SpanId::INVALID, span_id),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: name.into(),
            start_time: from,
            end_time: to,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: status(error),
            instrumentation_scope: self.scope.clone(),
        });
    }

    /// The processor's own queue drops what it has no room for without a word.
    fn queue(&self, span: SpanData) {
        if self.queued.fetch_add(1, Ordering::Relaxed) < QUEUE as u64 {
            return self.batches.on_end(span);
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn child(&self, own: &TraceContext, step: Spanned, name: &str, shared: &[(&'static str, Value)]) -> SpanData {
        let Spanned { span, name: step, from, to, worker, answered, error } = step;
        let mut attributes = Vec::new();
        let (kind, name) = match worker {
            Some(worker) => {
                attributes.extend(shared.iter().map(|(name, value)| KeyValue::new(*name, value.clone())));
                attributes.push(KeyValue::new("tenantry.worker", worker.to_string()));
                (SpanKind::Client, Cow::Owned(name.to_owned()))
            }
            None => (SpanKind::Internal, Cow::Borrowed(step)),
        };
        attributes.extend(error.iter().map(|error| KeyValue::new("error.type", error.clone())));
        let mut events = SpanEvents::default();
        events.events.extend(answered.map(|at| Event::new("first_token", at, Vec::new(), 0)));
        SpanData {
            span_context: context(own, span),
            parent_span_id: span_id(own.span),
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time: from,
            end_time: to,
            attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: status(error.as_deref()),
            instrumentation_scope: self.scope.clone(),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self, patience: Duration) {
        if let Err(error) = self.batches.shutdown_with_timeout(patience) {
            warn!(%error, "not all traces were sent");
        }
    }
}

fn context(own: &TraceContext, span: SpanId) -> SpanContext {
    let state = own.state.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let trace = opentelemetry::trace::TraceId::from_bytes(own.trace.0);
    SpanContext::new(trace, span_id(span), TraceFlags::SAMPLED, false, state)
}

fn span_id(span: SpanId) -> opentelemetry::trace::SpanId {
    opentelemetry::trace::SpanId::from_bytes(span.0)
}

fn status(error: Option<&str>) -> Status {
    error.map_or(Status::Unset, |error| Status::error(error.to_owned()))
}

// === impl Value ===

impl From<Value> for opentelemetry::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::from(text),
            Value::Texts(texts) => {
                Self::Array(Array::from(texts.into_iter().map(StringValue::from).collect::<Vec<_>>()))
            }
            Value::Number(number) => Self::from(number),
            Value::Float(float) => Self::from(float),
            Value::Bool(bool) => Self::from(bool),
        }
    }
}

// === impl Counted ===

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        let sent = self.inner.export(batch).await;
        if let Err(error) = &sent {
            self.dropped.fetch_add(spans, Ordering::Relaxed);
            warn!(%error, spans, "the collector did not take spans");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
