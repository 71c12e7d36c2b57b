"""The Helm chart: linted, rendered with each of its ci/ values, held against
Kubernetes' own schemas, and against what its comments promise."""

import re
import subprocess
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

from files import DEPLOY, program, tenantry_check

CHART = DEPLOY / "helm" / "tenantry"
# Of the schemas; the probes and scalers used have been there since 1.27.
KUBERNETES = ["1.31", "1.36"]
# What is not Kubernetes' own.
FOREIGN = {"ServiceMonitor"}


def helm(*arguments):
    return subprocess.run([program("helm", "HELM"), *map(str, arguments)], capture_output=True, text=True)


def rendered(values, *arguments):
    run = helm("template", "gateways", CHART, "--namespace", "serving", "--values", CHART / "ci" / values, *arguments)
    assert run.returncode == 0, run.stderr
    return [it for it in yaml.safe_load_all(run.stdout) if it]


def refused(word, values, *arguments):
    run = helm("template", "gateways", CHART, "--values", CHART / "ci" / values, *arguments)
    assert run.returncode != 0 and word in run.stderr, f"{arguments}: {run.stderr or 'rendered'}"


def one(manifests, kind):
    (found,) = [it for it in manifests if it["kind"] == kind]
    return found


def valid(manifests):
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            for version in KUBERNETES:
                kubernetes_validate.validate(manifest, version, strict=True)
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "gateways", manifest["metadata"]["name"]


def confined(pod):
    """Without a privilege, a root, or a file system to write to but its own folders."""
    security = pod["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "limits" in container["resources"] and not pod["enableServiceLinks"]
    mounted = {it["name"] for it in container["volumeMounts"]}
    assert {"config", "data", "tmp"} <= mounted


def variables(container):
    """As the container has them, with something in the place of each secret."""
    found = {}
    for it in container["env"]:
        found[it["name"]] = it.get("value", "a" * 64).replace("$(POD_NAME)", "gateways-0")
    return {name: value for name, value in found.items() if name != "POD_NAME"}


def good_configuration(manifests, container):
    """The file as it is mounted is one, with the variables laid over it and the
    secrets that it names; the cluster is another one, since there is no token here."""
    data = one(manifests, "ConfigMap")["data"]
    told = variables(container)
    told.update({name: "a" * 64 for name in re.findall(r"env:(\w+)", data["tenantry.toml"])})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nats.creds").write_text("a" * 64)
        data["tenantry.toml"] = data["tenantry.toml"].replace("/etc/tenantry-secrets", folder)
        other = 'kubernetes = { api = "https://127.0.0.1:6443", '
        data["tenantry.toml"] = data["tenantry.toml"].replace("kubernetes = { ", other)
        for key, text in data.items():
            file = Path(folder) / key
            if key.startswith("base-"):
                file = Path(folder) / "bases" / key.removeprefix("base-").removesuffix(".json") / "config.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        tenantry_check(Path(folder) / "tenantry.toml", told)


def common(values):
    lint = helm("lint", "--strict", CHART, "--values", CHART / "ci" / values)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    manifests = rendered(values)
    valid(manifests)
    (workload,) = [it for it in manifests if it["kind"] in {"StatefulSet", "Deployment"}]
    pod = workload["spec"]["template"]["spec"]
    confined(pod)
    (container,) = pod["containers"]
    good_configuration(manifests, container)
    told = variables(container)
    drain = int(told["TENANTRY_SHUTDOWN__DRAIN_TIMEOUT"].removesuffix("s"))
    linger = int(container["lifecycle"]["preStop"]["exec"]["command"][1]) if "lifecycle" in container else 0
    assert pod["terminationGracePeriodSeconds"] > drain + linger
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "ops"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "ops"}
    chosen = one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    assert chosen <= workload["spec"]["template"]["metadata"]["labels"].items()
    assert told["TENANTRY_RATINGS__FOLDER"].startswith("/var/lib/tenantry/")
    return manifests, workload, pod, told


def least():
    manifests, workload, pod, told = common("least.yaml")
    kinds = sorted(it["kind"] for it in manifests)
    assert kinds == ["ConfigMap", "NetworkPolicy", "Service", "Service", "ServiceAccount", "StatefulSet"], kinds
    # The spool is on a volume that outlives its pod, and a scaling down.
    spec = workload["spec"]
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["serviceName"] in {it["metadata"]["name"] for it in manifests if it["kind"] == "Service"}
    assert pod["automountServiceAccountToken"] is False
    # Without a key there is no admin API.
    assert "TENANTRY_OPS__ADMIN_KEY__SHA256" not in told


def most():
    manifests, workload, pod, told = common("most.yaml")
    assert "replicas" not in workload["spec"], "the scaler has a say alone"
    gateways, workers = [it["spec"] for it in manifests if it["kind"] == "HorizontalPodAutoscaler"]
    assert gateways["scaleTargetRef"]["name"] == workload["metadata"]["name"]
    assert gateways["scaleTargetRef"]["kind"] == workload["kind"] == "StatefulSet"
    assert workers["scaleTargetRef"]["name"] == "vllm"
    adapter = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yml").read_text())["rules"]
    served = {kind: {rule["name"]["as"] for rule in adapter[kind]} for kind in ["custom", "external"]}
    assert gateways["metrics"][0]["pods"]["metric"]["name"] in served["custom"]
    assert workers["metrics"][0]["external"]["metric"]["name"] in served["external"]
    assert one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    # The account may look at endpoints of the workers' namespace, and nothing else.
    role = one(manifests, "Role")
    assert role["metadata"]["namespace"] == "models" and pod["automountServiceAccountToken"] is True
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]
    subject = one(manifests, "RoleBinding")["subjects"][0]
    assert (subject["name"], subject["namespace"]) == (pod["serviceAccountName"], "serving")
    # Each gateway has a folder of its own where vLLM reads; the spool is not there.
    assert told["TENANTRY_CATALOGUE__DATA_DIR"] == "/adapters/gateways-0"
    # Prometheus finds the operations port, under the name that the rules know.
    monitor = one(manifests, "ServiceMonitor")["spec"]
    (service,) = [
        it
        for it in manifests
        if it["kind"] == "Service" and monitor["selector"]["matchLabels"].items() <= it["metadata"]["labels"].items()
    ]
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["endpoints"][0]["relabelings"] == [{"targetLabel": "job", "replacement": "tenantry"}]


def passing():
    manifests, workload, pod, _ = common("passing.yaml")
    assert workload["kind"] == "Deployment" and workload["spec"]["replicas"] == 3
    assert {"name": "data", "emptyDir": {}} in pod["volumes"]
    assert one(manifests, "PodDisruptionBudget")
    # The file of a running pod changes under it.
    assert not workload["spec"]["template"]["metadata"].get("annotations")


def changed():
    """A change of the configuration, and of nothing else, replaces the pods."""

    def annotations(*arguments):
        (workload,) = [it for it in rendered("least.yaml", *arguments) if it["kind"] == "StatefulSet"]
        return workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert annotations() == annotations("--set", "replicas=0") != annotations("--set", "baseConfigs.base=x")


def wrong():
    refused("config", "least.yaml", "--set", "config=")
    refused("replica", "least.yaml", "--set", "replica=2")
    refused("database.existingSecret", "least.yaml", "--set", "replicas=2")
    refused("ratingsSecret.existingSecret", "least.yaml", "--set", "replicas=2,database.existingSecret=x")
    refused("database.existingSecret", "least.yaml", "--set", "autoscaling.enabled=true")
    refused("workerAutoscaling", "most.yaml", "--set", "workerAutoscaling.base=")
    refused("minReplicas", "most.yaml", "--set", "autoscaling.minReplicas=9")


least()
most()
passing()
changed()
wrong()
