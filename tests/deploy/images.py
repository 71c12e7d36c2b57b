"""The Dockerfile by hadolint, the compose file by a parser of its specification,
what the two promise each other, and the configuration that they run."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from compose_spec import PyCompose

from files import DEPLOY, tenantry_check

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose" / "docker-compose.yml"


def dockerfile():
    lint = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", DOCKERFILE],
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr
    text = DOCKERFILE.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE), "it runs as root"
    assert 'CMD ["tenantry", "health"]' in last


def filled_in(text):
    """With values for what .env has: a path where one is needed, otherwise what passes for a hash."""
    values = {"BASE_MODEL": "/srv/models/base"}
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|[^}]*)\}", lambda it: it[2] or values.get(it[1], "a" * 64), text)


def compose():
    text = COMPOSE.read_text()
    PyCompose.from_yaml(filled_in(text))
    file = yaml.safe_load(filled_in(text))
    services = file["services"]
    for name, service in services.items():
        for network in service["networks"]:
            assert network in file["networks"], f"{name}: {network}"
        for other in service.get("depends_on", []):
            assert other in services, f"{name}: {other}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), f"{name}: {source} is not there"
            elif not source.startswith("/"):
                assert source in file["volumes"], f"{name}: {source}"
    # Every secret is asked for, and comes from .env.
    example = (COMPOSE.parent / ".env.example").read_text()
    offered = set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == offered, f"asked for and not in .env.example, or the reverse: {asked ^ offered}"
    gateway = services["tenantry"]
    assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"]
    # Both see adapters at the same place.
    assert "adapters:/var/lib/tenantry/adapters" in gateway["volumes"]
    assert "adapters:/var/lib/tenantry/adapters:ro" in services["vllm"]["volumes"]
    return gateway


def configuration(gateway):
    """As the container has it, but with a base model that is there."""
    environment = dict(gateway["environment"])
    environment["TENANTRY_BASES__BASE__PATH"] = str(DEPLOY.parent / "tests/fixtures/tiny/llama3/config.json")
    told = tenantry_check(COMPOSE.parent / "tenantry.toml", environment)
    assert "good; tenants: 1" in told, told


dockerfile()
configuration(compose())
