//! The base models' files: where they are loaded from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::adapters::Adapters;
use super::base::Base;
use super::bases::{Entry, Source};
use super::plan::{LEAST_CONTEXT, Need, Plan};
use super::{Config, EmbeddedError, ServedBase};
use crate::engine::files::{ModelConfig, ModelFiles};
use crate::engine::kernels::Precision;
use crate::engine::{self, Budget, Footprint, StartError};
use crate::types::BaseName;

pub(super) struct Library {
    precision: Precision,
    /// But for `kv_bytes`, which each has of its own.
    engine: engine::Config,
    titles: BTreeMap<BaseName, Title>,
    pot: Arc<Budget>,
    adapters: Arc<Adapters>,
}

struct Title {
    served: ServedBase,
    /// As it was at the start.
    model: ModelConfig,
    own_kv: u64,
    /// Opened at the start, for the first load.
    files: Mutex<Option<ModelFiles>>,
}

/// What was found out about the base models without loading any.
pub(super) struct Survey {
    pub(super) library: Library,
    pub(super) plan: Plan,
    pub(super) entries: Vec<Entry>,
    pub(super) pot: Arc<Budget>,
}

// === impl Survey ===

impl Survey {
    /// Opens all files, so that what is wrong with one is told at the start.
    pub(super) fn of(config: &Config, bases: Vec<ServedBase>, adapters: Arc<Adapters>) -> Result<Self, EmbeddedError> {
        let (mut opened, mut needs) = (Vec::new(), Vec::new());
        for base in bases {
            let files = ModelFiles::open(&base.path)?;
            if files.tokenizer().is_none() {
                return Err(StartError::NoTokenizer.into());
            }
            needs.push(need(config, &base, files.config())?);
            opened.push((base, files));
        }
        let plan = match config.memory_bytes {
            None => Plan::of_kv(config.engine.kv_bytes, needs.len()),
            Some(memory) => Plan::of_memory(memory, config.adapter_bytes.unwrap_or(0), &needs)?,
        };
        let pot = Arc::new(Budget::with_sure(plan.budget, plan.sure));
        let (mut titles, mut entries) = (BTreeMap::new(), Vec::new());
        for (((served, files), need), share) in opened.into_iter().zip(needs).zip(&plan.shares) {
            let engine = engine::Config { kv_bytes: share.own_kv, ..config.engine.clone() };
            let model = files.config().clone();
            engine::check(&model, config.precision, &engine).map_err(|reason| unfit(&served, reason))?;
            entries.push(Entry { name: served.name.clone(), weights: need.weights, share: *share });
            // What is not loaded now is opened again when it is.
            let files = Mutex::new(share.first.then_some(files));
            titles.insert(served.name.clone(), Title { served, model, own_kv: share.own_kv, files });
        }
        let (precision, engine) = (config.precision, config.engine.clone());
        let library = Library { precision, engine, titles, pot: pot.clone(), adapters };
        Ok(Self { library, plan, entries, pot })
    }
}

fn need(config: &Config, base: &ServedBase, model: &ModelConfig) -> Result<Need, EmbeddedError> {
    let footprint = Footprint::of(model, config.precision).map_err(|reason| unfit(base, reason))?;
    let context = config.engine.context.unwrap_or(usize::MAX).min(model.context).min(LEAST_CONTEXT);
    Ok(Need { name: base.name.clone(), weights: footprint.weights, kv: footprint.kv(context) })
}

fn unfit(base: &ServedBase, reason: String) -> EmbeddedError {
    EmbeddedError::Unfit { path: base.path.clone(), reason }
}

// === impl Library ===

impl Source for Library {
    type Base = Base;

    fn load(&self, name: &BaseName) -> Result<Base, String> {
        let Title { served, model, own_kv, files } = self.titles.get(name).ok_or("it is not served here")?;
        let opened = files.lock().unwrap_or_else(PoisonError::into_inner).take();
        let files = match opened {
            Some(files) => files,
            None => ModelFiles::open(&served.path).map_err(|error| error.to_string())?,
        };
        if files.config() != model {
            // Its memory was counted for the other, and so were adapters.
            return Err(format!("{}: it is another model than at the start", served.path.display()));
        }
        let engine = engine::Config { kv_bytes: *own_kv, ..self.engine.clone() };
        Base::start(files, served, self.precision, &engine, self.pot.clone())
    }

    fn broken(base: &Base) -> bool {
        base.stats().ended
    }

    fn leaving(&self, name: &BaseName) {
        self.adapters.remove_of(name);
    }
}
