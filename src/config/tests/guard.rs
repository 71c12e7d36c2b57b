//! `[guard]` and who names its policies.

use std::path::Path;
use std::time::Duration;

use tenantry_guard::{Action as Listed, Category, Normalised};

use super::{GOOD, good};
use crate::config::{JudgeKind, parse};
use crate::moderation::{Busy, Mode, Policy};
use crate::types::{Action, TenantId};

fn problems(guard: &str) -> Vec<String> {
    let text = format!("{GOOD}\n{guard}");
    let refused = parse(Path::new("t.toml"), &text, []).expect_err(guard);
    refused.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

#[test]
fn without_a_section_both_sides_are_blocked() {
    let config = good(GOOD);
    let standard = &config.guard.standard;
    assert!(standard.prompt.is_some() && !standard.system_prompts);
    assert_eq!(standard.output.as_ref().expect("on").mode, Mode::Strict);
    assert!(config.guard.stage2.enabled && config.guard.judges.is_empty());
    assert!(config.tenants.iter().all(|tenant| tenant.guard.is_none() && tenant.model_guards.is_empty()));
}

#[test]
fn a_policy_says_what_is_looked_for_and_done() {
    let config = good(&format!(
        r#"{GOOD}
        [guard]
        policy = "mild"
        [guard.lists.house]
        block = ["plugh", "/x[0-9]/"]
        redact = ["secret*"]
        allow = ["secret garden"]
        [guard.judges.hosted]
        url = "http://127.0.0.1:1/v1"
        on_failure = "block"
        [guard.policies.mild]
        lists = ["house"]
        system_prompts = true
        prompt = {{ mode = "off" }}
        [guard.policies.mild.output]
        mode = "strict"
        action = "flag"
        threshold = 0.8
        categories = {{ profanity = "off", hate = 0.5 }}
        judge = "hosted"
        busy = "block"
        "#
    ));
    let Policy { prompt, system_prompts, output } = &*config.guard.standard;
    assert!(prompt.is_none() && *system_prompts);
    let output = output.as_ref().expect("on");
    let rules = &output.rules;
    assert_eq!((output.mode, rules.action, rules.busy), (Mode::Strict, Action::Flag, Busy::Block));
    let threshold = |category: Category| rules.thresholds[category as usize];
    assert_eq!(Category::ALL.map(threshold), [Some(0.8), Some(0.5), Some(0.8), None]);
    assert_eq!(rules.judge.as_deref(), Some("hosted"));
    let text = "plugh, x7, secrets and the secret garden";
    let hits = rules.lists.find(text, &Normalised::of(text));
    let found: Vec<_> = hits.iter().map(|hit| (&text[hit.span.clone()], hit.action, hit.category)).collect();
    let (block, redact) = (Listed::Block, Listed::Redact);
    assert_eq!(found, [("plugh", block, "house"), ("x7", block, "house"), ("secrets", redact, "house")]);
    let [judge] = config.guard.judges.as_slice() else { panic!("{:?}", config.guard.judges) };
    assert!(judge.closed && judge.timeout == Duration::from_secs(2));
    assert!(matches!(&judge.kind, JudgeKind::Endpoint { key: None, .. }));
}

#[test]
fn tenants_and_their_models_name_policies() {
    let text = format!(
        "{}\nguard = \"off\"\nmodel_guards = {{ assistant = \"strict\" }}\n\
         [guard.policies.off]\nprompt.mode = \"off\"\noutput.mode = \"off\"\n[guard.policies.strict]\n",
        GOOD.trim_end()
    );
    let config = good(&text);
    let tenant = config.tenants.iter().find(|tenant| tenant.guard.is_some()).expect("the last one names it");
    assert!(tenant.guard.as_ref().expect("named").output.is_none());
    assert!(tenant.model_guards["assistant"].output.is_some());
    let policies = config.policies();
    assert!(policies.of(&tenant.id, "assistant").output.is_some());
    assert!(policies.of(&tenant.id, "other").output.is_none());
    assert!(policies.of(&TenantId::new("nobody"), "other").output.is_some());
}

#[test]
fn what_is_wrong_is_said_with_its_path() {
    assert_eq!(
        problems(
            r#"
            [guard]
            policy = "none"
            [guard.stage2]
            queue = 0
            [guard.lists.bad]
            block = ["fine", "/(/", "two words!"]
            redact = ["//"]
            [guard.judges.both]
            url = "ftp://x"
            base = "nope"
            [guard.judges.neither]
            [guard.policies.p]
            lists = ["absent"]
            [guard.policies.p.prompt]
            threshold = 1.5
            judge = "absent"
            categories = { insult = "on", sexual = 0.5 }
            [guard.policies.p.output]
            mode = "async"
            action = "redact"
            hold = "1h"
            "#
        )
        .iter()
        .map(|problem| problem.lines().next().expect("a line"))
        .collect::<Vec<_>>(),
        [
            "guard.policy: there is no policy `none`; defined are p",
            "guard.stage2.queue: 0 is out of range: from 1 to 65536",
            "guard.lists.bad.block[1]: the regular expression \"(\": regex parse error:",
            "guard.lists.bad.redact[0]: the regular expression is empty",
            "guard.judges.both: has both `url` and `base`",
            "guard.judges.both.url: expected an http:// or https:// address",
            "guard.judges.both.base: there is no base model `nope`; there is one, two",
            "guard.judges.neither: has neither `url` nor `base`",
            "guard.policies.p.lists[0]: there is no list `absent` under `guard.lists`",
            "guard.policies.p.prompt.threshold: 1.5 is out of range: from 0.01 to 1",
            "guard.policies.p.prompt.judge: there is no judge `absent` under `guard.judges`",
            "guard.policies.p.prompt.categories.insult: expected a number, found a text, or \"off\"",
            "guard.policies.p.prompt.categories.sexual: unknown key; known here: insult, hate, threat, profanity",
            "guard.policies.p.output.action: nothing can be redacted of what was sent already: with \"async\" it is \
             \"block\" or \"flag\"",
            "guard.policies.p.output.hold: 1h is out of range: from 10ms to 1m",
        ]
    );
}

#[test]
fn two_file_sinks_in_one_folder_are_refused() {
    let refused = problems(
        r#"
        [ratings]
        rate_within = "48h"
        keep = "24h"
        [ratings.sinks.one]
        kind = "file"
        folder = "events"
        [ratings.sinks.two]
        kind = "file"
        folder = "events"
        "#,
    );
    assert_eq!(
        refused,
        [
            "ratings.keep: is shorter than `rate_within`: a rating would miss its generation",
            "ratings.sinks.two.folder: the sink `one` writes to this folder already",
        ]
    );
}
