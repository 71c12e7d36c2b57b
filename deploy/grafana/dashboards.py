#!/usr/bin/env python3
"""Writes dashboards/*.json, which Grafana 11 and later read as they are.

    python3 deploy/grafana/dashboards.py [FOLDER]

The files are generated so that their hundred panels stay alike; a test holds
them against this program. Change this, not them.
"""

import json
import sys
from pathlib import Path

from panels import RATE, bars, dashboard, heatmap, lines, number, quantiles, rates, target, variable

# What counts against the objective, as in ../prometheus/rules/recording.yml.
FAILURES = (
    "upstream|upstream_error|deadline|timeout|drained|shutting_down|internal|no_worker|queue_full|queue_timeout"
    "|adapter_unavailable|guard_unavailable"
)
INSTANCE = variable("instance", "label_values(tenantry_build_info, instance)", "Gateway")
TENANT = variable("tenant", "label_values(tenantry_requests_total, tenant)", "Tenant")
MODEL = variable("model", 'label_values(tenantry_requests_total{tenant=~"$tenant"}, model)', "Model")
WORKER = variable("worker", "label_values(tenantry_worker_leases, worker)", "Worker")


def fleet():
    here = 'instance=~"$instance"'
    ours = f"tenantry_build_info{{{here}}}"
    return dashboard(
        "fleet",
        "Fleet",
        "Whether the gateways serve, how soon, and what their workers do.",
        [INSTANCE, WORKER],
        [
            ("Now", [
                number("Gateways", "short", f"sum(tenantry_build_info{{{here}}})"),
                number("Requests", "reqps", f"sum(rate(tenantry_requests_total{{{here}}}{RATE}))"),
                number("Failures", "percentunit", "max(job:tenantry_slo_failures:ratio_rate5m)",
                       "Generations that failed by our fault, of those that count.", [(0.001, "orange"), (0.01, "red")]),
                number("Budget left", "percentunit", "1 - max(job:tenantry_slo_failures:ratio_rate3d) / 0.001",
                       "Of what may fail (0.1 %), at the pace of the last three days.", max=1),
                number("First token, p95", "s", "max(job:tenantry_time_to_first_token_seconds:p95_5m)",
                       "", [(1, "orange"), (2.5, "red")]),
                number("Streams", "short", f"sum(tenantry_streams_in_flight{{{here}}})", "Generations that run now."),
                number("Workers in health", "short", f'sum(tenantry_workers{{{here}, state="healthy"}})',
                       "As each gateway sees them, summed."),
                number("Waiting", "short", f"sum(tenantry_queue_depth{{{here}}})",
                       "Requests that wait for a place at a worker.", [(10, "orange"), (100, "red")]),
            ]),
            ("Traffic", [
                lines("Requests by outcome", "reqps",
                      rates("tenantry_requests_total", here, "outcome"), stacked=True),
                lines("Failures by outcome", "reqps",
                      target(f'sum by (outcome) (rate(tenantry_requests_total{{{here}, outcome=~"{FAILURES}"}}{RATE}))',
                             "{{outcome}}"), "What counts against the objective.", stacked=True),
                lines("Tokens", "short",
                      rates("tenantry_tokens_total", here, "direction"),
                      "A second; what prompts had (input) and answers (output)."),
                lines("Streams in flight", "short",
                      target(f"sum by (instance) (tenantry_streams_in_flight{{{here}}})", "{{instance}}"), stacked=True),
                bars("Busiest tenants", "reqps",
                     f"topk(10, sum by (tenant) (rate(tenantry_requests_total{{{here}}}{RATE})))", "{{tenant}}"),
                bars("Tenants with most tokens", "short",
                     f"topk(10, sum by (tenant) (rate(tenantry_tokens_total{{{here}}}{RATE})))", "{{tenant}}", "A second."),
            ]),
            ("How soon", [
                lines("First token", "s", quantiles("tenantry_time_to_first_token_seconds", here),
                      "From a request's arrival to the first text that is sent."),
                heatmap("First tokens", "tenantry_time_to_first_token_seconds", here),
                lines("Slow first tokens", "percentunit",
                      target("job:tenantry_slo_slow_first_tokens:ratio_rate5m", "{{job}}"),
                      "Past 2.5 seconds; the objective allows 1 %."),
                lines("Time between tokens", "s", quantiles("tenantry_inter_token_seconds", here)),
                lines("Worker's first event, p95", "s",
                      quantiles("tenantry_worker_first_token_seconds", here, of=(0.5, 0.95)),
                      "What is between this and the first token is the guard's."),
                lines("In the gateway itself, p99", "s",
                      target("job_route:tenantry_gateway_overhead_seconds:p99_5m", "{{route}}"),
                      "Without what workers, the queue and clients took."),
            ]),
            ("Waiting", [
                lines("Requests waiting", "short",
                      target(f"sum by (base) (tenantry_queue_depth{{{here}}})", "{{base}}"), stacked=True),
                lines("Wait for a place", "s", quantiles("tenantry_queue_wait_seconds", here)),
                lines("Tried again", "reqps",
                      rates("tenantry_retries_total", here, "outcome"),
                      "Before the first event; over_budget were not."),
            ]),
            ("Workers", [
                lines("Workers by state", "short",
                      target(f"sum by (state) (tenantry_workers{{{here}}})", "{{state}}"), stacked=True),
                lines("Requests at each", "short",
                      target(f'sum by (worker) (tenantry_worker_leases{{{here}, worker=~"$worker"}})', "{{worker}}"),
                      "Of these gateways.", stacked=True),
                lines("Batch rows", "short",
                      target(f'max by (worker) (tenantry_engine_batch_rows{{{here}, worker=~"$worker"}})', "{{worker}}"),
                      "Sequences that run."),
                lines("Waiting at the worker", "short",
                      target(f'max by (worker) (tenantry_engine_waiting{{{here}, worker=~"$worker"}})', "{{worker}}")),
                lines("Key-value cache", "short",
                      target(f'max by (worker) (tenantry_engine_kv_tokens{{{here}, worker=~"$worker"}})', "{{worker}}"),
                      "Positions in use."),
                lines("Why a worker was picked", "reqps",
                      rates("tenantry_picks_total", here, "reason"), stacked=True),
            ]),
            ("What it stands on", [
                lines("Catalogue", "bool_yes_no", target(f"min by (instance) (tenantry_catalogue_up{{{here}}})", "{{instance}}"),
                      "Whether its database answers.", max=1),
                lines("Shared limits", "bool_yes_no",
                      target(f"min by (instance) (tenantry_limits_shared{{{here}}})", "{{instance}}"),
                      "Whether Redis answers; empty where limits are not shared.", max=1),
                lines("Usage lost", "short",
                      target(f"sum by (instance) (increase(tenantry_usage_lost_total{{{here}}}{RATE}))", "{{instance}}"),
                      "Generations whose usage is not written down."),
                lines("Gateways that share", "short", target(f"max by (instance) (tenantry_gateways{{{here}}})", "{{instance}}")),
                lines("Versions", "short", target(f"sum by (version) (tenantry_build_info{{{here}}})", "{{version}}"), stacked=True),
                lines("Processor", "short",
                      target(f"sum by (instance) (rate(process_cpu_seconds_total{RATE}) and on (job, instance) {ours})", "{{instance}}"),
                      "Cores in use.", stacked=True),
                lines("Memory", "bytes",
                      target(f"sum by (instance) (process_resident_memory_bytes and on (job, instance) {ours})", "{{instance}}"),
                      stacked=True),
                lines("Open files", "percentunit",
                      target(f"max by (instance) (process_open_fds / process_max_fds and on (job, instance) {ours})", "{{instance}}"),
                      "And sockets, of those that may be: past it connections wait.", max=1),
                lines("Spans dropped", "short", rates("tenantry_trace_spans_dropped_total", here, "instance"),
                      "A second; the collector did not take them."),
            ]),
        ],
    )


def tenant():
    who = 'tenant=~"$tenant", model=~"$model"'
    of = 'tenant=~"$tenant"'
    return dashboard(
        "tenant",
        "Tenant",
        "What tenants ask for, what they get, and where their limits are.",
        [TENANT, MODEL],
        [
            ("Now", [
                number("Requests", "reqps", f"sum(rate(tenantry_requests_total{{{who}}}{RATE}))", width=4),
                number("Failures", "percentunit",
                       f'(sum(rate(tenantry_requests_total{{{who}, outcome=~"{FAILURES}"}}{RATE})) or vector(0)) '
                       f"/ sum(rate(tenantry_requests_total{{{who}}}{RATE}))",
                       "By our fault.", [(0.001, "orange"), (0.01, "red")], 4),
                number("First token, p95", "s",
                       f"histogram_quantile(0.95, sum by (le) (rate(tenantry_time_to_first_token_seconds_bucket{{{who}}}{RATE})))",
                       "", [(1, "orange"), (2.5, "red")], 4),
                number("Streams", "short", f"sum(tenantry_streams_in_flight{{{of}}})", width=4),
                number("Refused by limits", "percentunit",
                       f"sum(rate(tenantry_rate_limited_total{{{of}}}{RATE})) / sum(rate(tenantry_requests_total{{{of}}}{RATE}))",
                       "", [(0.05, "orange"), (0.2, "red")], 4),
                number("Nearest limit", "percentunit", f"max(job_tenant_limit:tenantry_limit_utilisation:max{{{of}}})",
                       "The share in use of the tightest; empty below a half.", [(0.8, "orange"), (0.95, "red")], 4, max=1),
            ]),
            ("What is asked", [
                lines("Requests by outcome", "reqps",
                      rates("tenantry_requests_total", who, "outcome"), stacked=True),
                lines("Requests by model", "reqps",
                      target(f"sum by (tenant, model) (rate(tenantry_requests_total{{{who}}}{RATE}))", "{{tenant}}/{{model}}"),
                      stacked=True),
                lines("Requests by route", "reqps",
                      rates("tenantry_requests_total", who, "route"), stacked=True),
                lines("Prompt tokens", "short",
                      target(f'sum by (tenant, model) (rate(tenantry_tokens_total{{{who}, direction="input"}}{RATE}))',
                             "{{tenant}}/{{model}}"), "A second.", stacked=True),
                lines("Answer tokens", "short",
                      target(f'sum by (tenant, model) (rate(tenantry_tokens_total{{{who}, direction="output"}}{RATE}))',
                             "{{tenant}}/{{model}}"), "A second.", stacked=True),
                lines("Share of all tokens", "percentunit",
                      target(f"sum by (tenant) (rate(tenantry_tokens_total{{{of}}}{RATE})) "
                             f"/ scalar(sum(rate(tenantry_tokens_total{RATE})))", "{{tenant}}"), stacked=True, max=1),
            ]),
            ("How soon", [
                lines("First token by model, p95", "s",
                      target("histogram_quantile(0.95, sum by (tenant, model, le) "
                             f"(rate(tenantry_time_to_first_token_seconds_bucket{{{who}}}{RATE})))",
                             "{{tenant}}/{{model}}", exemplar=True)),
                heatmap("First tokens", "tenantry_time_to_first_token_seconds", who),
                lines("Time between tokens by model, p95", "s",
                      target("histogram_quantile(0.95, sum by (tenant, model, le) "
                             f"(rate(tenantry_inter_token_seconds_bucket{{{who}}}{RATE})))", "{{tenant}}/{{model}}")),
            ]),
            ("Limits", [
                lines("Share of the limit in use", "percentunit",
                      target(f"job_tenant_limit:tenantry_limit_utilisation:max{{{of}}}", "{{tenant}} {{limit}}"),
                      "Of the tightest; tenants below a half are left out.", max=1),
                lines("Refused by limit", "reqps",
                      rates("tenantry_rate_limited_total", of, "tenant", "limit"),
                      stacked=True),
                lines("Streams in flight", "short",
                      target(f"sum by (tenant) (tenantry_streams_in_flight{{{of}}})", "{{tenant}}"), stacked=True),
            ]),
        ],
    )


def adapters():
    here = 'instance=~"$instance"'
    which = f'{here}, worker=~"$worker"'
    return dashboard(
        "adapters",
        "Adapters",
        "What is published, where it is loaded, and what loading costs.",
        [INSTANCE, WORKER],
        [
            ("Now", [
                number("Loaded", "short", f"sum(max by (worker) (tenantry_adapters_resident{{{which}}}))", "On all workers.", width=4),
                number("Loads", "ops", f"sum(rate(tenantry_adapter_loads_total{{{here}}}{RATE}))", width=4),
                number("Evictions for each load", "percentunit", "max(job:tenantry_adapter_evictions_per_load:ratio_rate15m)",
                       "Near 100 %, adapters drive each other out.", [(0.5, "orange"), (0.8, "red")], 4),
                number("Load, p95", "s",
                       f"histogram_quantile(0.95, sum by (le) (rate(tenantry_adapter_load_seconds_bucket{{{here}}}{RATE})))", width=4),
                number("Revisions in service", "short",
                       f'max(sum by (instance) (tenantry_adapters{{{here}, state=~"published|resident|idle|fetching"}}))', width=4),
                number("In quarantine", "short", f"sum(tenantry_adapters_quarantined{{{which}}})",
                       "Answered as another adapter.", [(1, "red")], 4),
            ]),
            ("Where they are", [
                lines("Loaded by worker", "short",
                      target(f"max by (worker) (tenantry_adapters_resident{{{which}}})", "{{worker}}"), stacked=True),
                lines("Revisions by state", "short",
                      target(f"max by (state) (tenantry_adapters{{{here}}})", "{{state}}"),
                      "Of published adapters; those of the configuration file are not counted.", stacked=True),
                lines("Why a worker was picked", "reqps",
                      rates("tenantry_picks_total", here, "reason"),
                      "affinity, resident: it had the adapter; load, spread: it had not.", stacked=True),
            ]),
            ("Loading", [
                lines("Loads by outcome", "ops",
                      rates("tenantry_adapter_loads_total", here, "outcome"), stacked=True),
                lines("Time to load", "s", quantiles("tenantry_adapter_load_seconds", here)),
                heatmap("Loads", "tenantry_adapter_load_seconds", here),
                lines("Evictions", "ops",
                      rates("tenantry_adapter_evictions_total", here, "instance"), stacked=True),
                lines("Evictions for each load", "percentunit",
                      target("job:tenantry_adapter_evictions_per_load:ratio_rate15m", "{{job}}")),
            ]),
            ("Proving and publishing", [
                lines("Probes by outcome", "ops",
                      rates("tenantry_adapter_probes_total", here, "outcome"),
                      "mismatch: a worker answered as another adapter would.", stacked=True),
                lines("In quarantine", "short",
                      target(f"max by (worker) (tenantry_adapters_quarantined{{{which}}})", "{{worker}}")),
                lines("Publishes by outcome", "short",
                      target(f"sum by (outcome) (increase(tenantry_adapter_publishes_total{{{here}}}{RATE}))", "{{outcome}}"),
                      stacked=True),
            ]),
        ],
    )


def guard():
    here = 'instance=~"$instance"'
    return dashboard(
        "guard",
        "Guard",
        "What the guard finds, and what looking costs.",
        [INSTANCE],
        [
            ("Now", [
                number("Texts judged", "ops", f"sum(rate(tenantry_guard_texts_total{{{here}}}{RATE}))", width=4),
                number("Findings", "ops", f"sum(rate(tenantry_guard_verdicts_total{{{here}}}{RATE}))", width=4),
                number("In doubt", "percentunit",
                       f"sum(rate(tenantry_guard_escalations_total{{{here}}}{RATE})) / sum(rate(tenantry_guard_texts_total{{{here}}}{RATE}))",
                       "Escalations to the second stage for each text.", width=4),
                number("Second stage without time", "percentunit", "max(job:tenantry_guard_busy:ratio_rate5m)",
                       "", [(0.01, "orange"), (0.05, "red")], 4),
                number("Added to first token, p95", "s",
                       f"histogram_quantile(0.95, sum by (le) (rate(tenantry_guard_first_token_held_seconds_bucket{{{here}}}{RATE})))",
                       width=4),
                number("Held back, p95", "s",
                       f"histogram_quantile(0.95, sum by (le) (rate(tenantry_guard_held_seconds_bucket{{{here}}}{RATE})))",
                       "How long a chunk of an answer waits.", width=4),
            ]),
            ("What is found", [
                lines("Findings by action", "ops",
                      rates("tenantry_guard_verdicts_total", here, "side", "action"),
                      stacked=True),
                lines("Findings by category", "ops",
                      rates("tenantry_guard_verdicts_total", here, "category"), stacked=True),
                lines("Findings for each text", "percentunit",
                      target(f"sum by (side) (rate(tenantry_guard_verdicts_total{{{here}}}{RATE})) "
                             f"/ sum by (side) (rate(tenantry_guard_texts_total{{{here}}}{RATE}))", "{{side}}")),
                lines("Requests stopped", "reqps",
                      target('sum by (tenant, outcome) (rate(tenantry_requests_total{'
                             f'{here}, outcome=~"content_filter|guard_stopped|guard_unavailable"}}{RATE}))', "{{tenant}} {{outcome}}"),
                      "content_filter: the prompt; guard_stopped: the answer.", stacked=True),
                lines("Texts judged", "ops",
                      rates("tenantry_guard_texts_total", here, "side"), stacked=True),
                lines("Escalations", "ops",
                      rates("tenantry_guard_escalations_total", here, "side", "outcome"),
                      "Doubtful to the first stage; busy: the second had no time.", stacked=True),
            ]),
            ("What it costs", [
                lines("Time of each stage, p95", "s",
                      target(f"histogram_quantile(0.95, sum by (side, stage, le) (rate(tenantry_guard_seconds_bucket{{{here}}}{RATE})))",
                             "{{side}} {{stage}}")),
                lines("Chunks held back", "s", quantiles("tenantry_guard_held_seconds", here)),
                lines("Added to the first token", "s", quantiles("tenantry_guard_first_token_held_seconds", here)),
            ]),
        ],
    )


def ratings():
    here = 'instance=~"$instance"'
    return dashboard(
        "ratings",
        "Ratings",
        "Whether ratings are taken, and whether every sink has them.",
        [INSTANCE],
        [
            ("Now", [
                number("Ratings", "ops", f'sum(rate(tenantry_ratings_total{{{here}, outcome="recorded"}}{RATE}))', width=4),
                number("For each generation", "percentunit",
                       f'sum(rate(tenantry_ratings_total{{{here}, outcome="recorded"}}{RATE})) '
                       f'/ sum(rate(tenantry_requests_total{{{here}, outcome="complete", route=~"chat_completions|completions|grpc_generate"}}{RATE}))',
                       width=4),
                number("Refused, spool full", "short",
                       f'sum(increase(tenantry_ratings_total{{{here}, outcome=~"full|failed"}}[1h]))', "In the last hour.",
                       [(1, "red")], 4),
                number("Events dropped", "short",
                       f'sum(increase(tenantry_generation_events_total{{{here}, outcome="dropped"}}[1h]))', "In the last hour.",
                       [(1, "red")], 4),
                number("Oldest event", "s", f"max(tenantry_spool_oldest_seconds{{{here}}})",
                       "That not every sink has.", [(300, "orange"), (600, "red")], 4),
                number("Dead letters", "short", f"sum(increase(tenantry_sink_dead_lettered_total{{{here}}}[1h]))",
                       "In the last hour.", [(1, "red")], 4),
            ]),
            ("Taken", [
                lines("Ratings by outcome", "ops",
                      rates("tenantry_ratings_total", here, "outcome"), stacked=True),
                lines("Requests by tenant", "reqps",
                      target(f'sum by (tenant) (rate(tenantry_requests_total{{{here}, route="ratings"}}{RATE}))', "{{tenant}}"),
                      stacked=True),
                lines("Events of generations", "ops",
                      rates("tenantry_generation_events_total", here, "outcome"), stacked=True),
            ]),
            ("Spool", [
                lines("Events waiting", "short", target(f"sum by (instance) (tenantry_spool_events{{{here}}})", "{{instance}}"),
                      "That not every sink has.", stacked=True),
                lines("Oldest event", "s", target(f"max by (instance) (tenantry_spool_oldest_seconds{{{here}}})", "{{instance}}")),
                lines("Size", "bytes", target(f"sum by (instance) (tenantry_spool_bytes{{{here}}})", "{{instance}}"),
                      "As it counts against ratings.max_bytes.", stacked=True),
            ]),
            ("Sinks", [
                lines("Delivered", "ops", rates("tenantry_sink_delivered_total", here, "sink")),
                lines("Tried again", "ops", rates("tenantry_sink_retried_total", here, "sink")),
                lines("Dead letters", "short",
                      target(f"sum by (sink) (increase(tenantry_sink_dead_lettered_total{{{here}}}{RATE}))", "{{sink}}"),
                      "Refused for good."),
            ]),
        ],
    )


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards"
    folder.mkdir(exist_ok=True)
    for name, make in {"fleet": fleet, "tenant": tenant, "adapters": adapters, "guard": guard, "ratings": ratings}.items():
        text = json.dumps(make(), indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
