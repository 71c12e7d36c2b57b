//! A LoRA adapter, packed for the kernels (Hu et al., "LoRA", 2021).

use std::collections::BTreeMap;

use super::files::{AdapterFiles, LoraModule};
use super::kernels::{Isa, LayoutError, LoraPair};
use super::model::Model;

/// Immutable; sequences that use it share it.
pub struct Adapter {
    digest: String,
    /// By layer; of each layer the modules that the adapter changes.
    layers: Vec<BTreeMap<LoraModule, LoraPair>>,
    max_rank: usize,
    bytes: usize,
}

// === impl Adapter ===

impl Adapter {
    /// Packs an adapter that was checked against the model's shapes.
    pub fn pack(files: &AdapterFiles, model: &Model) -> Result<Self, LayoutError> {
        let config = model.config();
        let mut layers: Vec<BTreeMap<LoraModule, LoraPair>> = (0..config.layers).map(|_| BTreeMap::new()).collect();
        let (mut max_rank, mut bytes) = (0, 0);
        for module in files.modules() {
            let (inputs, outputs) = module.module.widths(config);
            let rank = module.a.len() / inputs;
            let pair = LoraPair::pack(&module.a, &module.b, rank, inputs, outputs, files.scale(), model.precision())?;
            max_rank = max_rank.max(rank);
            bytes += pair.bytes();
            layers[module.layer].insert(module.module, pair);
        }
        Ok(Self { digest: files.digest().to_owned(), layers, max_rank, bytes })
    }

    /// SHA-256 of the artifact.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Memory the packed weights take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn max_rank(&self) -> usize {
        self.max_rank
    }

    /// `y += scale · B A x` for one module of one layer, if the adapter changes it. `low` has room for
    /// [`Adapter::max_rank`] numbers.
    pub(super) fn apply(&self, isa: Isa, layer: usize, module: LoraModule, x: &[f32], low: &mut [f32], y: &mut [f32]) {
        if let Some(pair) = self.layers[layer].get(&module) {
            let low = &mut low[..pair.rank()];
            pair.shrink(isa, x, low);
            pair.expand(isa, low, y);
        }
    }
}
