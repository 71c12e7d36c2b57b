#!/usr/bin/env python3
"""Writes dashboards/*.json, which Grafana 11 and later read as they are.

    python3 deploy/grafana/dashboards.py [FOLDER]

The files are generated so that their hundred panels stay alike; a test holds
them against this program. Change this, not them.
"""

import json
import sys
from pathlib import Path

# What counts against the objective, as in ../prometheus/rules/recording.yml.
FAILURES = (
    "upstream|upstream_error|deadline|timeout|drained|shutting_down|internal|no_worker|queue_full|queue_timeout"
    "|adapter_unavailable|guard_unavailable"
)
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


# What a panel shows.


def target(expr, legend="", **more):
    return {"expr": expr, "legendFormat": legend or "__auto", **more}


def quantiles(metric, labels="", by="", of=(0.5, 0.95, 0.99)):
    """One line a quantile, with exemplars on the highest."""
    group = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    lines = [
        target(
            f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{{labels}}}{RATE})))",
            f"{legend}p{round(q * 100)}",
        )
        for q in of
    ]
    lines[-1]["exemplar"] = True
    return lines


def panel(kind, title, unit, targets, width, height, description="", options=None, custom=None, **defaults):
    targets = [targets] if isinstance(targets, dict) else targets
    fields = {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom or {}, **defaults}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "editorMode": "code", "range": not it.get("instant"), **it}
            for index, it in enumerate(targets)
        ],
        "fieldConfig": {"defaults": fields, "overrides": []},
        "options": options or {},
        "gridPos": {"w": width, "h": height},
    }


def lines(title, unit, targets, description="", width=8, stacked=False, **defaults):
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults.setdefault("min", 0)
    return panel("timeseries", title, unit, targets, width, 8, description, options, custom, **defaults)


def number(title, unit, expr, description="", thresholds=(), width=3, **defaults):
    """`thresholds`: pairs of a value and the colour from it on; green below the first."""
    steps = [{"color": "green", "value": None}, *({"color": color, "value": value} for value, color in thresholds)]
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }
    found = panel("stat", title, unit, target(expr), width, 4, description, options, **defaults)
    found["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    found["fieldConfig"]["defaults"]["thresholds"] = {"mode": "absolute", "steps": steps}
    return found


def heatmap(title, metric, labels="", description="", width=8):
    expr = f"sum by (le) (increase({metric}_bucket{{{labels}}}{RATE}))"
    options = {
        "calculate": False,
        "yAxis": {"unit": "s", "axisPlacement": "left"},
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": True, "exponent": 0.5, "fill": "red"},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
    }
    shown = target(expr, "{{le}}", format="heatmap", exemplar=True)
    return panel("heatmap", title, "s", shown, width, 8, description, options)


def bars(title, unit, expr, legend, description="", width=8, **defaults):
    options = {
        "displayMode": "gradient",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "valueMode": "color",
        "namePlacement": "auto",
        "sizing": "auto",
        "minVizHeight": 16,
        "minVizWidth": 8,
    }
    return panel("bargauge", title, unit, target(expr, legend, instant=True), width, 8, description, options, **defaults)


# What a dashboard is made of.


def variable(name, query, label):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
    }


DATASOURCE = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "current": {"text": "Prometheus", "value": "prometheus"},
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "options": [],
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
}
INSTANCE = variable("instance", "label_values(tenantry_build_info, instance)", "Gateway")
TENANT = variable("tenant", "label_values(tenantry_requests_total, tenant)", "Tenant")
MODEL = variable("model", 'label_values(tenantry_requests_total{tenant=~"$tenant"}, model)', "Model")
WORKER = variable("worker", "label_values(tenantry_worker_leases, worker)", "Worker")


def dashboard(name, title, description, variables, rows):
    """`rows`: pairs of a title and its panels, which are laid out from left to right."""
    panels, y, number_of = [], 0, 1
    for heading, shown in rows:
        row = {"type": "row", "title": heading, "collapsed": False, "panels": [], "id": number_of}
        panels.append({**row, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y, x, tallest, number_of = y + 1, 0, 0, number_of + 1
        for it in shown:
            width, height = it["gridPos"]["w"], it["gridPos"]["h"]
            if x + width > 24:
                y, x, tallest = y + tallest, 0, 0
            panels.append({**it, "id": number_of, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x, tallest, number_of = x + width, max(tallest, height), number_of + 1
        y += tallest
    alerts = {
        "name": "Alerts",
        "enable": True,
        "iconColor": "red",
        "datasource": SOURCE,
        "expr": 'ALERTS{alertname=~"Tenantry.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{tenant}} {{worker}} {{sink}}",
        "step": "60s",
    }
    links = {"type": "dashboards", "title": "Tenantry", "tags": ["tenantry"], "asDropdown": True, "includeVars": True}
    return {
        "uid": f"tenantry-{name}",
        "title": f"Tenantry / {title}",
        "description": description,
        "tags": ["tenantry"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{**links, "icon": "external link", "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}],
        "annotations": {"list": [alerts]},
        "templating": {"list": [DATASOURCE, *variables]},
        "panels": panels,
    }


def fleet():
    here = 'instance=~"$instance"'
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
                      target(f"sum by (outcome) (rate(tenantry_requests_total{{{here}}}{RATE}))", "{{outcome}}"), stacked=True),
                lines("Failures by outcome", "reqps",
                      target(f'sum by (outcome) (rate(tenantry_requests_total{{{here}, outcome=~"{FAILURES}"}}{RATE}))',
                             "{{outcome}}"), "What counts against the objective.", stacked=True),
                lines("Tokens", "short",
                      target(f"sum by (direction) (rate(tenantry_tokens_total{{{here}}}{RATE}))", "{{direction}}"),
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
                      target(f"sum by (outcome) (rate(tenantry_retries_total{{{here}}}{RATE}))", "{{outcome}}"),
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
                      target(f"sum by (reason) (rate(tenantry_picks_total{{{here}}}{RATE}))", "{{reason}}"), stacked=True),
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
                      target(f"sum by (outcome) (rate(tenantry_requests_total{{{who}}}{RATE}))", "{{outcome}}"), stacked=True),
                lines("Requests by model", "reqps",
                      target(f"sum by (tenant, model) (rate(tenantry_requests_total{{{who}}}{RATE}))", "{{tenant}}/{{model}}"),
                      stacked=True),
                lines("Requests by route", "reqps",
                      target(f"sum by (route) (rate(tenantry_requests_total{{{who}}}{RATE}))", "{{route}}"), stacked=True),
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
                      target(f"sum by (tenant, limit) (rate(tenantry_rate_limited_total{{{of}}}{RATE}))", "{{tenant}} {{limit}}"),
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
                      target(f"sum by (reason) (rate(tenantry_picks_total{{{here}}}{RATE}))", "{{reason}}"),
                      "affinity, resident: it had the adapter; load, spread: it had not.", stacked=True),
            ]),
            ("Loading", [
                lines("Loads by outcome", "ops",
                      target(f"sum by (outcome) (rate(tenantry_adapter_loads_total{{{here}}}{RATE}))", "{{outcome}}"), stacked=True),
                lines("Time to load", "s", quantiles("tenantry_adapter_load_seconds", here)),
                heatmap("Loads", "tenantry_adapter_load_seconds", here),
                lines("Evictions", "ops",
                      target(f"sum by (instance) (rate(tenantry_adapter_evictions_total{{{here}}}{RATE}))", "{{instance}}"), stacked=True),
                lines("Evictions for each load", "percentunit",
                      target("job:tenantry_adapter_evictions_per_load:ratio_rate15m", "{{job}}")),
            ]),
            ("Proving and publishing", [
                lines("Probes by outcome", "ops",
                      target(f"sum by (outcome) (rate(tenantry_adapter_probes_total{{{here}}}{RATE}))", "{{outcome}}"),
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
                      target(f"sum by (side, action) (rate(tenantry_guard_verdicts_total{{{here}}}{RATE}))", "{{side}} {{action}}"),
                      stacked=True),
                lines("Findings by category", "ops",
                      target(f"sum by (category) (rate(tenantry_guard_verdicts_total{{{here}}}{RATE}))", "{{category}}"), stacked=True),
                lines("Findings for each text", "percentunit",
                      target(f"sum by (side) (rate(tenantry_guard_verdicts_total{{{here}}}{RATE})) "
                             f"/ sum by (side) (rate(tenantry_guard_texts_total{{{here}}}{RATE}))", "{{side}}")),
                lines("Requests stopped", "reqps",
                      target('sum by (tenant, outcome) (rate(tenantry_requests_total{'
                             f'{here}, outcome=~"content_filter|guard_stopped|guard_unavailable"}}{RATE}))', "{{tenant}} {{outcome}}"),
                      "content_filter: the prompt; guard_stopped: the answer.", stacked=True),
                lines("Texts judged", "ops",
                      target(f"sum by (side) (rate(tenantry_guard_texts_total{{{here}}}{RATE}))", "{{side}}"), stacked=True),
                lines("Escalations", "ops",
                      target(f"sum by (side, outcome) (rate(tenantry_guard_escalations_total{{{here}}}{RATE}))", "{{side}} {{outcome}}"),
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
                      target(f"sum by (outcome) (rate(tenantry_ratings_total{{{here}}}{RATE}))", "{{outcome}}"), stacked=True),
                lines("Requests by tenant", "reqps",
                      target(f'sum by (tenant) (rate(tenantry_requests_total{{{here}, route="ratings"}}{RATE}))', "{{tenant}}"),
                      stacked=True),
                lines("Events of generations", "ops",
                      target(f"sum by (outcome) (rate(tenantry_generation_events_total{{{here}}}{RATE}))", "{{outcome}}"), stacked=True),
            ]),
            ("Spool", [
                lines("Events waiting", "short", target(f"sum by (instance) (tenantry_spool_events{{{here}}})", "{{instance}}"),
                      "That not every sink has.", stacked=True),
                lines("Oldest event", "s", target(f"max by (instance) (tenantry_spool_oldest_seconds{{{here}}})", "{{instance}}")),
                lines("Size", "bytes", target(f"sum by (instance) (tenantry_spool_bytes{{{here}}})", "{{instance}}"),
                      "As it counts against ratings.max_bytes.", stacked=True),
            ]),
            ("Sinks", [
                lines("Delivered", "ops", target(f"sum by (sink) (rate(tenantry_sink_delivered_total{{{here}}}{RATE}))", "{{sink}}")),
                lines("Tried again", "ops", target(f"sum by (sink) (rate(tenantry_sink_retried_total{{{here}}}{RATE}))", "{{sink}}")),
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
