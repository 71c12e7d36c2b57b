"""Holds the names in rules and dashboards against the README's table of metrics,
which a test of the code holds against the code.

A metric, a label or a recorded series that nothing writes would leave an alert
silent for ever, and nobody would see it.
"""

import re

import yaml

from files import DEPLOY, PANELS, REPOSITORY, boards, chosen, names_in, rules

# What Prometheus adds to every series, in Kubernetes the last two as well.
ADDED = {"job", "instance", "namespace", "pod"}
SUFFIXES = {"counter": [""], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}


def documented():
    """Every series with its labels."""
    series = {}
    for line in (REPOSITORY / "README.md").read_text().splitlines():
        if line.startswith(("| `tenantry_", "| `process_")):
            name, kind, _, labels, *_ = [cell.strip().strip("`*") for cell in line.strip("|").split("|")]
            for suffix in SUFFIXES[kind]:
                series[name + suffix] = {label.strip() for label in labels.split(",") if label.strip()}
    assert len(series) > 50, f"{len(series)} series are there"
    return series


def labels_in(expression):
    """What is asked of each series: pairs of its name and a label."""
    for name, matchers in re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', '""', matchers)):
            yield name, label


def main():
    series = documented()
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
            if name not in series and name not in recorded:
                wrong.append(f"{where}: nothing writes {name}")
        for name, label in labels_in(expression):
            if name in series and label not in series[name] | ADDED | ({"le"} if name.endswith("_bucket") else set()):
                wrong.append(f"{where}: {name} has no label {label}")
    assert not wrong, "\n".join(wrong)
    assert len(seen) > 50, f"{len(seen)} names are read"
    unused = sorted(recorded - seen)
    assert not unused, f"recorded and read by nobody: {unused}"


main()
