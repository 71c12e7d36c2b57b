//! What the guard found, as an extension field of chunks and answers. Never the text.

use serde::Serialize;

use crate::types::Finding;

#[derive(Serialize)]
pub(super) struct FindingBody<'a> {
    side: &'static str,
    action: &'static str,
    category: &'a str,
    /// 0 to 1.
    score: f32,
    stage: &'static str,
    /// The field of the request, or what of the answer: `content`, a tool call's field.
    place: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    /// Bytes of the text there, the first and the one after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<[usize; 2]>,
}

// === impl FindingBody ===

impl<'a> FindingBody<'a> {
    /// Of one choice.
    pub(super) fn all(choice: u32, findings: &'a [Finding]) -> Vec<Self> {
        let of = |finding: &'a Finding| Self {
            side: finding.side.as_str(),
            action: finding.action.as_str(),
            category: &finding.category,
            score: finding.score,
            stage: finding.stage.as_str(),
            place: &finding.place,
            index: (finding.side == crate::types::Side::Output).then_some(choice),
            span: finding.span.as_ref().map(|span| [span.start, span.end]),
        };
        findings.iter().map(of).collect()
    }
}
