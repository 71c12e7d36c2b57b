"""promtool's own checks, its unit tests, and what promtool does not ask for."""

import subprocess

import yaml

from files import DEPLOY, program, rules

FOLDER = DEPLOY / "prometheus"


def promtool(*arguments):
    run = subprocess.run([program("promtool", "PROMTOOL"), *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def tested():
    """Alerts that some unit test sees fire."""
    for file in (FOLDER / "tests").glob("*.yml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case.get("promql_expr_test", []):
                for sample in check["exp_samples"]:
                    yield sample["labels"].split('"')[1]
            for check in case.get("alert_rule_test", []):
                if check["exp_alerts"]:
                    yield check["alertname"]


def main():
    promtool("check", "config", FOLDER / "prometheus.yml")
    promtool("check", "rules", *sorted((FOLDER / "rules").glob("*.yml")))
    promtool("test", "rules", *sorted((FOLDER / "tests").glob("*.yml")))
    alerts = [rule for _, rule in rules() if "alert" in rule]
    assert len(alerts) > 20 and len({it["alert"] for it in alerts}) == len(alerts)
    for alert in alerts:
        name = alert["alert"]
        assert name.startswith("Tenantry"), name
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
        for text in ["summary", "description", "runbook"]:
            assert len(alert["annotations"][text]) > 10, f"{name} has no {text}"
    silent = {it["alert"] for it in alerts} - set(tested())
    assert not silent, f"in no test do fire: {sorted(silent)}"


main()
