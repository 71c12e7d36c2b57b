"""Asks a running Prometheus what our rules and dashboards ask.

    live.py URL PENDING...

Every recording and alert rule has to evaluate, every recording rule to record,
and every query of every dashboard to answer with a number. PENDING names
metrics of which nothing can be there. It goes on asking for some minutes, since
what is counted has to be scraped twice, and then tells what is missing.
"""

import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from files import PANELS, names_in

URL, PENDING = sys.argv[1], set(sys.argv[2:])
PATIENCE = 150


def ask(path, **parameters):
    query = urllib.parse.urlencode(parameters).encode()
    request = urllib.request.Request(f"{URL}/api/v1/{path}", data=query or None)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        return {"result": [], "refused": json.load(error)["error"]}


def numbers(expression):
    found = ask("query", query=expression)
    if "refused" in found:
        raise SystemExit(f"{expression}: {found['refused']}")
    values = [found["result"][1]] if found["resultType"] == "scalar" else [it["value"][1] for it in found["result"]]
    return [value for value in map(float, values) if not math.isnan(value)]


def waits_for(expression):
    """Metrics that it reads and that cannot be there, directly or by a rule."""
    names = names_in(expression)
    return (names & PENDING) or {name for name in names if any(metric in name for metric in PENDING)}


def broken():
    """Rules that do not evaluate."""
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 50, f"{len(rules)} rules are loaded"
    return rules, [
        f"rule {rule['name']}: {rule['health']} {rule.get('lastError', '')}" for rule in rules if rule["health"] != "ok"
    ]


def main():
    until = time.monotonic() + PATIENCE
    rules, _ = broken()
    wanted = {("recorded", rule["name"], rule["name"], rule["query"]) for rule in rules if rule["type"] == "recording"}
    wanted |= {("panel", title, expression, expression) for title, expression in PANELS}
    left_out = sorted({title for _, title, _, reads in wanted if waits_for(reads)})
    silent = {it for it in wanted if not waits_for(it[3])}
    asked = len(silent)
    # What has answered once is not asked again: rates are numbers while there is traffic.
    while (silent := {it for it in silent if not numbers(it[2])}) or broken()[1]:
        if time.monotonic() > until:
            lacking = [f"{kind} {title} has no number: {expression}" for kind, title, expression, _ in sorted(silent)]
            raise SystemExit("\n".join(lacking + broken()[1]))
        time.sleep(1)
    exemplars = ask(
        "query_exemplars",
        query="tenantry_time_to_first_token_seconds_bucket",
        start=time.time() - 3600,
        end=time.time(),
    )
    print(f"{asked} queries answered; left out: {left_out}; series with exemplars: {len(exemplars)}")


main()
