"""deploy/kubernetes: valid by Kubernetes' own schemas, and what no schema can tell."""

import shutil
import subprocess
from typing import Any

import kubernetes_validate
import psycopg
import pytest
import typer.main
import yaml
from psycopg.sql import SQL

from api import serve
from bursar.cli import app
from runtime.celery_app import make_celery
from runtime.settings import Settings
from tests.deploy.places import REPOSITORY
from tests.deploy.test_scripts import accept_one
from worker import sending

FOLDER = REPOSITORY / "deploy/kubernetes"
BY_HAND = {"audit.yaml", "keda.yaml", "ingress.yaml"}  # each needs something that a cluster may not have
OLDEST, NEWEST = "1.30", "1.37"  # of the Kubernetes versions that these are held to


def documents(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / file).read_text()))


KUSTOMIZATION = documents("kustomization.yaml")[0]
FILES = sorted({path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"})
OBJECTS = [(file, each) for file in FILES for each in documents(file)]
KUBERNETES_OWN = [(file, each) for file, each in OBJECTS if "keda.sh" not in each["apiVersion"]]
PODS = {
    each["metadata"]["name"]: each["spec"].get("jobTemplate", each)["spec"]["template"]
    for _, each in OBJECTS
    if each["kind"] in ("Deployment", "Job", "CronJob")
}
KEDA = {each["kind"]: each for each in documents("keda.yaml")}


def named(pair: object) -> str:
    return f"{pair['kind']}-{pair['metadata']['name']}" if isinstance(pair, dict) else str(pair)


def container(name: str) -> dict[str, Any]:
    [only] = PODS[name]["spec"]["containers"]
    return only


def given(name: str) -> set[str]:
    """The environment variables of a pod."""
    return {variable["name"] for variable in container(name)["env"]}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("each", [each for _, each in KUBERNETES_OWN], ids=named)
def test_it_is_valid_by_the_schema(each: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(each, version, strict=True)


def test_the_schema_refuses_what_is_none() -> None:
    [deployment] = [each for _, each in OBJECTS if named(each) == "Deployment-bursar-api"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment | {"spec": deployment["spec"] | {"replica": 2}}, NEWEST, strict=True)


def test_the_kustomization_names_every_file() -> None:
    assert {*KUSTOMIZATION["resources"]} | BY_HAND == set(FILES)
    assert [image["name"] for image in KUSTOMIZATION["images"]] == ["bursar"]
    assert {container(name)["image"] for name in PODS} == {"bursar"}


def test_kustomize_makes_one_of_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run([kubectl, "kustomize", FOLDER], capture_output=True, text=True, timeout=30, check=True)
    made = list(yaml.safe_load_all(built.stdout))
    assert len(made) == len([each for file, each in OBJECTS if file not in BY_HAND])
    assert {each["metadata"]["namespace"] for each in made} == {"bursar"}
    for each in made:
        kubernetes_validate.validate(each, NEWEST, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_can_do_no_more_than_it_must(name: str) -> None:
    pod, only = PODS[name]["spec"], container(name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    user = pod["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{pod['securityContext']['runAsGroup']}\n" in (REPOSITORY / "deploy/Dockerfile").read_text()
    [mounted] = only["volumeMounts"]
    assert mounted["mountPath"] == "/tmp"
    assert only["resources"]["requests"].keys() == {"cpu", "memory"}
    assert only["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_sets_no_setting_of_ours(name: str) -> None:
    """For a Service `bursar` it would set BURSAR_PORT=tcp://…, which is no port."""
    assert PODS[name]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", PODS)
def test_its_command_exists_and_every_setting_is_read(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert container(name)["args"][0] in commands
    known = {f"BURSAR_{field}".upper() for field in Settings.model_fields}
    assert given(name) | set(documents("settings.yaml")[0]["data"]) <= known


def test_each_gets_the_secrets_that_it_needs_and_no_others() -> None:
    needed = {"BURSAR_DATABASE_URL", "BURSAR_REDIS_URL"}
    assert given("bursar-audit") == needed
    assert given("bursar-worker") == needed | {"BURSAR_METRICS_PORTS"}
    assert given("bursar-migrate") == needed | {"BURSAR_PARTITIONS"}
    assert given("bursar-webhooks") == needed | {"BURSAR_METRICS_PORTS", "BURSAR_SECRETS_KEY"}
    assert given("bursar-api") == needed | {"BURSAR_RECEIPT_KEY", "BURSAR_SECRETS_KEY"}
    for where, variable in [(name, each) for name in PODS for each in container(name)["env"]]:
        if variable["name"].endswith(("_URL", "_KEY")):
            assert "secretKeyRef" in variable["valueFrom"], where


def test_a_pod_has_time_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://127.0.0.1:1/0")
    soft_s: float = make_celery(Settings(), partitions=1).conf.worker_soft_shutdown_timeout  # pyright: ignore[reportCallIssue]
    [_, leaves_s] = container("bursar-api")["lifecycle"]["preStop"]["exec"]["command"]
    needs_s = {
        "bursar-api": int(leaves_s) + 2 * serve.SHUTDOWN_S,
        "bursar-worker": 4 * soft_s,
        "bursar-webhooks": 2 * sending.DEADLINE_S + soft_s,
        "bursar-migrate": 10,
        "bursar-audit": 0,
    }
    for name, pod in PODS.items():
        assert pod["spec"]["terminationGracePeriodSeconds"] >= needs_s[name], name


def test_the_probes_ask_what_is_there() -> None:
    api = container("bursar-api")
    [port] = api["ports"]
    assert port == {"name": "http", "containerPort": 8000}
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {api[probe]["httpGet"]["path"] for probe in ("livenessProbe", "startupProbe")} == {"/livez"}
    for name, arguments in (("bursar-worker", []), ("bursar-webhooks", ["webhooks"])):
        [python, script, *rest] = container(name)["livenessProbe"]["exec"]["command"]
        assert (python, rest) == ("python", arguments)
        assert f"!{script}" in (REPOSITORY / ".dockerignore").read_text().splitlines()


def test_prometheus_is_told_the_port_of_each_and_let_in() -> None:
    policies = str(documents("network.yaml"))
    for name in ("bursar-api", "bursar-worker", "bursar-webhooks"):
        annotations = PODS[name]["metadata"]["annotations"]
        [port] = container(name)["ports"]
        assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(port["containerPort"])}
        assert f"'port': {port['containerPort']}," in policies
        ports = [each["value"] for each in container(name)["env"] if each["name"] == "BURSAR_METRICS_PORTS"]
        assert ports == ([] if name == "bursar-api" else [str(port["containerPort"])])
    assert documents("settings.yaml")[0]["data"]["BURSAR_HOST"] == "0.0.0.0"


def test_everything_that_selects_selects_something() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    for _, each in OBJECTS:
        spec = each.get("spec", {})
        selectors = [spec.get("selector"), spec.get("podSelector")]
        for selector in filter(None, selectors):
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= label.items() for label in labels.values()), named(each)
    budgets = {each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for _, each in OBJECTS
               if each["kind"] == "PodDisruptionBudget"}  # fmt: skip
    assert budgets == {"api", "worker", "webhooks"}
    for _, each in OBJECTS:
        if each["kind"] == "Deployment":
            assert each["spec"]["selector"]["matchLabels"] == each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["replicas"] >= 2


def test_nothing_is_open_by_default() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in documents("network.yaml")}
    nobody = policies.pop("bursar-nobody")
    assert nobody == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "bursar"}}, "policyTypes": ["Ingress", "Egress"]
    }  # fmt: skip
    world = [name for name, spec in policies.items() if "0.0.0.0/0" in str(spec)]
    assert world == ["bursar-webhooks-to-the-world"]


def test_the_scaler_scales_the_workers_by_the_age_of_the_oldest_pending_command(database_url: str) -> None:
    scaled = KEDA["ScaledObject"]["spec"]
    [trigger] = scaled["triggers"]
    assert scaled["scaleTargetRef"]["name"] == "bursar-worker"
    assert trigger["authenticationRef"]["name"] == KEDA["TriggerAuthentication"]["metadata"]["name"]
    assert scaled["maxReplicaCount"] == int(
        next(each["value"] for each in container("bursar-migrate")["env"] if each["name"] == "BURSAR_PARTITIONS")
    )
    query = SQL(trigger["metadata"]["query"])
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert connection.execute(query).fetchall() == [(0,)]
        accept_one(database_url)
        [(age_s,)] = connection.execute(query).fetchall()
        assert isinstance(age_s, int)
        assert 1 <= age_s < 60, "rounded up: what waits is no zero"
        plan = "\n".join(row for (row,) in connection.execute(SQL("EXPLAIN ") + query).fetchall())
        assert "Seq Scan on commands" not in plan
