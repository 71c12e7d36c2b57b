"""The dashboards: as their program writes them, and as Grafana wants them."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from files import DASHBOARDS, DEPLOY, boards

GRAFANA = DEPLOY / "grafana"


def written():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, GRAFANA / "dashboards.py", folder], check=True)
        fresh = {file.name: file.read_text() for file in Path(folder).iterdir()}
    here = {file.name: file.read_text() for file in DASHBOARDS.iterdir()}
    assert fresh == here, "run deploy/grafana/dashboards.py"


def laid_out(board):
    """Panels within the 24 columns, none over another."""
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{board['title']}: {panel['title']} lies over another panel"
        taken |= cells


def sound(board):
    variables = {it["name"] for it in board["templating"]["list"]}
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities), board["title"]
    assert board["schemaVersion"] >= 39 and "datasource" in variables, board["title"]
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        where = f"{board['title']}: {panel['title']}"
        assert panel["fieldConfig"]["defaults"]["unit"], f"{where} has no unit"
        assert panel["datasource"]["uid"] == "${datasource}", where
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", where
            for word in target["expr"].split("$")[1:]:
                name = "".join(c for c in word if c.isalnum() or c == "_")
                known = any(word.startswith(it) for it in variables) or word.startswith("__rate_interval")
                assert known, f"{where}: ${name} is no variable"


def main():
    written()
    shown = boards()
    assert len({board["uid"] for board in shown}) == len(shown) == 5
    for board in shown:
        laid_out(board)
        sound(board)
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["uid"] == shown[0]["templating"]["list"][0]["current"]["value"]
    assert yaml.safe_load((GRAFANA / "provisioning/dashboards/tenantry.yml").read_text())["providers"]


main()
