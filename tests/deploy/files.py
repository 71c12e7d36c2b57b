"""The files of deploy/, as the checks read them."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
SERVICES = Path(os.environ.get("TENANTRY_TEST_DATA", REPOSITORY / ".tenantry")) / "services"

# What stands in a query for what the reader chose.
CHOICES = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"}


def program(name, variable):
    """One that scripts/services.sh installs."""
    return os.environ.get(variable) or str(SERVICES / {"promtool": "prometheus"}.get(name, name) / name)


def rules():
    """All rules, with the name of their file."""
    for file in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                yield file.name, rule


def boards():
    return [json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))]


def chosen(expression, board):
    """A query with all of every variable chosen."""
    for name, value in CHOICES.items():
        expression = expression.replace(name, value)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            expression = expression.replace(f"${variable['name']}", variable["allValue"])
    return expression


def queries():
    """Every panel's queries: where, and what."""
    for board in boards():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{board['title']} / {panel['title']}", chosen(target["expr"], board)


PANELS = list(queries())


def names_in(expression):
    """Metrics and recorded series that a query names."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return {name for name in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare) if "tenantry_" in name or name.startswith("process_")}


def tenantry_check(file, environment=None):
    """What `tenantry check` says of a configuration, which has to be good."""
    run = subprocess.run(
        [os.environ["TENANTRY_BINARY"], "check", file], capture_output=True, text=True, env=environment or {}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
