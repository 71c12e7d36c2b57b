//! How large one request may be: of all limits that apply, the least.

use crate::admission::Estimate;
use crate::types::{Caller, Error, ErrorKind, GenerateRequest, Limits};

/// No tokenizer makes fewer tokens of a text than this share of the estimate.
const SURELY: u64 = 3;

/// What is left to look at once the prompt has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    max_prompt: Option<u64>,
}

/// Refuses a request that is surely too large, and bounds the answer of one
/// that does not do so itself.
pub(super) fn hold(
    request: &mut GenerateRequest,
    caller: &Caller,
    model: &str,
    estimate: Estimate,
) -> Result<Sizes, Error> {
    let of_model = caller.tenant.model_limits.get(model);
    let applying = [Some(&caller.tenant.limits), Some(&caller.key.limits), of_model];
    let least = |of: fn(&Limits) -> Option<u64>| applying.into_iter().flatten().filter_map(of).min();
    if let Some(most) = least(|limits| limits.max_output_tokens) {
        let asked = request.max_tokens.map_or(most, u64::from);
        if asked > most {
            return Err(Error::invalid(
                "max_tokens",
                format!("max_tokens is too large: {asked}. You may ask for at most {most} tokens here."),
            ));
        }
        request.max_tokens = Some(u32::try_from(asked).unwrap_or(u32::MAX));
    }
    let sizes = Sizes { max_prompt: least(|limits| limits.max_prompt_tokens) };
    match sizes.max_prompt {
        Some(most) if estimate.input / SURELY > most => Err(too_long(most, None)),
        _ => Ok(sizes),
    }
}

fn too_long(most: u64, has: Option<u64>) -> Error {
    let has = has.map_or(String::new(), |has| format!("; yours has {has}"));
    Error::new(ErrorKind::ContextTooLong, format!("The prompt may have at most {most} tokens here{has}."))
}

// === impl Sizes ===

impl Sizes {
    /// The worker has read the prompt, and says how long it is.
    pub(super) fn read(self, prompt_tokens: Option<u32>) -> Result<(), Error> {
        match (self.max_prompt, prompt_tokens.map(u64::from)) {
            (Some(most), Some(has)) if has > most => Err(too_long(most, Some(has))),
            _ => Ok(()),
        }
    }
}
