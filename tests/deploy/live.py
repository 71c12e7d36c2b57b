"""Asks a running Prometheus what our rules and dashboards ask.

    live.py URL

Every recording and alert rule has to evaluate, every recording rule to record,
and every query of every dashboard to answer with a number. It goes on asking for
some minutes, since what is counted has to be scraped twice, and then tells what
is missing.
"""

import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from files import PANELS

URL = sys.argv[1]
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
    silent = {("recorded", rule["name"], rule["name"]) for rule in rules if rule["type"] == "recording"}
    silent |= {("panel", title, expression) for title, expression in PANELS}
    asked = len(silent)
    # What has answered once is not asked again: rates are numbers while there is traffic.
    while (silent := {it for it in silent if not numbers(it[2])}) or broken()[1]:
        if time.monotonic() > until:
            lacking = [f"{kind} {title} has no number: {expression}" for kind, title, expression in sorted(silent)]
            raise SystemExit("\n".join(lacking + broken()[1]))
        time.sleep(1)
    exemplars = ask(
        "query_exemplars",
        query="tenantry_time_to_first_token_seconds_bucket",
        start=time.time() - 3600,
        end=time.time(),
    )
    assert exemplars, "no trace is named"
    print(f"{asked} queries answered; series with exemplars: {len(exemplars)}")


main()
