"""Holds the names in rules and dashboards against the metrics that there are.

    names.py PENDING... < METRICS

METRICS is the text of /metrics with every family in it; PENDING names families
that are not in it yet. A metric, a label or a recorded series that nothing
writes would leave an alert silent for ever, and nobody would see it.
"""

import re
import sys

import yaml

from files import DASHBOARDS, DEPLOY, PANELS, boards, chosen, names_in, rules

# What Prometheus adds to every series, in Kubernetes the last two as well.
ADDED = {"job", "instance", "namespace", "pod"}
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}


def exposed(text):
    """Every series of the text with its labels."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert len(kinds) > 30, f"{len(kinds)} families are there"
    series = {name + suffix: set() for name, kind in kinds.items() for suffix in SUFFIXES[kind]}
    for name, labels in re.findall(r"^(tenantry_\w+)\{([^}]*)\}", text, re.MULTILINE):
        series[name] |= set(re.findall(r"(\w+)=", labels))
    return series


def labels_in(expression):
    """What is asked of each series: pairs of its name and a label."""
    for name, matchers in re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', '""', matchers)):
            yield name, label


def main():
    pending = {name + suffix for name in sys.argv[1:] for suffix in ["", "_bucket", "_sum", "_count"]}
    series = exposed(sys.stdin.read())
    recorded = {rule["record"] for _, rule in rules() if "record" in rule}
    asked = [(f"{file}: {rule.get('record') or rule.get('alert')}", rule["expr"]) for file, rule in rules()]
    asked += PANELS
    for board in boards():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                query = chosen(variable["query"]["query"], board)
                asked.append((f"{board['title']}: variable {variable['name']}", query))
        asked += [(f"{board['title']}: {it['name']}", it["expr"]) for it in board["annotations"]["list"]]
    adapter = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yml").read_text())
    for rule in [*adapter["rules"]["custom"], *adapter["rules"]["external"]]:
        asked.append(("adapter.yml", rule["seriesQuery"]))

    wrong, seen = [], set()
    for where, expression in asked:
        for name in names_in(expression):
            seen.add(name)
            if name not in series and name not in recorded and name not in pending:
                wrong.append(f"{where}: nothing writes {name}")
        for name, label in labels_in(expression):
            if name in series and label not in series[name] | ADDED | ({"le"} if name.endswith("_bucket") else set()):
                wrong.append(f"{where}: {name} has no label {label}")
    assert not wrong, "\n".join(wrong)
    needless = {name for name in sys.argv[1:] if any(it.startswith(name) for it in series)}
    assert not needless, f"no longer pending: {needless}"
    assert any("tenantry_requests_total" in name for name in seen) and list(DASHBOARDS.glob("*.json"))
    unused = sorted(recorded - seen)
    assert not unused, f"recorded and read by nobody: {unused}"


main()
