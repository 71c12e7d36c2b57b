//! A base model in memory, with its engine.

use std::path::Path;
use std::sync::Arc;

use super::ServedBase;
use super::refusal::refusal;
use crate::engine::files::{AdapterError, AdapterFiles, AdapterLimits, ModelFiles, Tokenizer};
use crate::engine::kernels::Precision;
use crate::engine::{self, Adapter, Budget, Engine, Job, Model, StartError, Stats};
use crate::types::{GenerateRequest, Input};
use crate::worker::WorkerError;
use crate::worker::prompt::prompts;

pub(super) struct Base {
    files: ModelFiles,
    tokenizer: Arc<Tokenizer>,
    engine: Engine,
    /// Those that adapters may give for it.
    names: Vec<String>,
}

// === impl Base ===

impl Base {
    /// Reads the weights and starts the engine, with `config.kv_bytes` of its own. Takes seconds.
    pub(super) fn start(
        files: ModelFiles,
        served: &ServedBase,
        precision: Precision,
        config: &engine::Config,
        pot: Arc<Budget>,
    ) -> Result<Self, String> {
        let tokenizer = files.tokenizer().cloned().ok_or_else(|| StartError::NoTokenizer.to_string())?;
        let model = Model::load(&files, precision).map_err(|error| error.to_string())?;
        let engine = Engine::start(Arc::new(model), config, pot).map_err(|error| error.to_string())?;
        let mut names = served.also_known_as.clone();
        names.push(served.name.to_string());
        Ok(Self { files, tokenizer, engine, names })
    }

    pub(super) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub(super) fn stats(&self) -> Stats {
        self.engine.stats()
    }

    pub(super) fn submit(
        &self,
        request: &GenerateRequest,
        adapter: Option<Arc<Adapter>>,
    ) -> Result<engine::Generation, WorkerError> {
        let job = Job {
            prompts: prompts(&self.files, &self.tokenizer, &request.input).map_err(WorkerError::Refused)?,
            choices: request.choices,
            drop_leading_space: matches!(request.input, Input::Chat(_)) && self.tokenizer.drops_leading_space(),
            adapter,
            sampling: request.sampling.clone(),
            max_tokens: request.max_tokens,
            stop: request.stop.clone(),
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs,
        };
        self.engine.submit(job).map_err(|error| refusal(error, &request.input))
    }

    pub(super) fn open_adapter(&self, folder: &Path, limits: AdapterLimits) -> Result<Adapter, WorkerError> {
        let head = self.engine.model().config();
        self.packed(AdapterFiles::open(folder, head, &self.names(), limits))
    }

    pub(super) fn adapter_of(
        &self,
        config: &[u8],
        weights: Vec<u8>,
        limits: AdapterLimits,
    ) -> Result<Adapter, WorkerError> {
        let head = self.engine.model().config();
        self.packed(AdapterFiles::from_parts(config, weights, head, &self.names(), limits))
    }

    fn packed(&self, files: Result<AdapterFiles, AdapterError>) -> Result<Adapter, WorkerError> {
        let files = files.map_err(adapter_refused)?;
        Adapter::pack(&files, self.engine.model()).map_err(|error| WorkerError::AdapterInvalid(error.to_string()))
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

fn adapter_refused(error: AdapterError) -> WorkerError {
    if error.is_temporary() {
        WorkerError::AdapterUnavailable(error.to_string())
    } else {
        WorkerError::AdapterInvalid(error.to_string())
    }
}
