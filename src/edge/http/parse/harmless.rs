//! Fields that ask for nothing, or for what happens anyway: dropped here, so
//! that clients which always send them work with every worker.

use serde_json::{Value, json};

use super::fields::Fields;
use crate::edge::http::Api;

/// Bookkeeping of OpenAI's own service.
const IGNORED: [&str; 7] =
    ["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"];

pub(super) fn drop_from(fields: &mut Fields, api: Api, choices: u32) {
    for name in IGNORED {
        fields.take(name);
    }
    match api {
        Api::Chat => drop_from_chat(fields),
        Api::Completions => drop_from_completion(fields, choices),
    }
}

fn drop_from_chat(fields: &mut Fields) {
    fields.drop_if("response_format", |format| format.get("type").is_some_and(|kind| kind == "text"));
    fields.drop_if("modalities", |modalities| *modalities == json!(["text"]));
    fields.drop_if("verbosity", |verbosity| verbosity == "medium");
    fields.drop_if("parallel_tool_calls", |parallel| *parallel == Value::Bool(true));
    for (tools, choice) in [("tools", "tool_choice"), ("functions", "function_call")] {
        fields.drop_if(tools, |tools| *tools == json!([]));
        if !fields.has(tools) {
            fields.drop_if(choice, |choice| choice == "none" || choice == "auto");
        }
    }
}

fn drop_from_completion(fields: &mut Fields, choices: u32) {
    fields.drop_if("echo", |echo| *echo == Value::Bool(false));
    fields.drop_if("suffix", |suffix| suffix == "");
    fields.drop_if("best_of", |best_of| *best_of == choices);
}
