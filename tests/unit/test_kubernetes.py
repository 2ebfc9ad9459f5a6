"""The manifests for Kubernetes: fields that the API has, names that fit together, and nothing that runs as root."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from infra.app.settings import FILE_KEYS, KEYS, load
from infra.drivers.process.plan import plan_of

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "infra" / "deploy" / "kubernetes"
ROLES: Final = ("ingest", "worker", "archive", "publish", "serve")
PROBES: Final = "PROBE_PORT"  # of the roles' liveness and readiness
SECRET_FILES: Final = {"database", "vault", "master_key", "kafka_password", "kafka_ca.pem", "aws_credentials"}

# A leaf is what a value must be; `...`: any names with such values; a list: of items like its one.
_TEXTS: Final[Any] = {...: str}
_META: Final[Any] = {"name": str, "namespace": str, "labels": _TEXTS}
_SELECTOR: Final[Any] = {"matchLabels": _TEXTS}
_PROBE: Final[Any] = {
    "httpGet": {"path": str, "port": str},
    **dict.fromkeys(("periodSeconds", "timeoutSeconds", "failureThreshold"), int),
}
_CONTAINER: Final[Any] = {
    **{"name": str, "image": str, "imagePullPolicy": str, "args": [str]},
    "envFrom": [{"configMapRef": {"name": str}}],
    "ports": [{"name": str, "containerPort": int}],
    **dict.fromkeys(("startupProbe", "livenessProbe", "readinessProbe"), _PROBE),
    "resources": {"requests": {"cpu": (str, int), "memory": str}, "limits": {"memory": str}},
    "securityContext": {
        **{"allowPrivilegeEscalation": bool, "readOnlyRootFilesystem": bool},
        "capabilities": {"drop": [str]},
    },
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
_POD: Final[Any] = {
    **{"serviceAccountName": str, "automountServiceAccountToken": bool, "enableServiceLinks": bool},
    **{"terminationGracePeriodSeconds": int, "restartPolicy": str},
    "securityContext": {
        **{"runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "fsGroup": int},
        "seccompProfile": {"type": str},
    },
    "topologySpreadConstraints": [
        {"maxSkew": int, "topologyKey": str, "whenUnsatisfiable": str, "labelSelector": _SELECTOR}
    ],
    "containers": [_CONTAINER],
    "volumes": [{"name": str, "emptyDir": {}, "secret": {"secretName": str, "defaultMode": int}}],
}
_TEMPLATE: Final[Any] = {"metadata": {"labels": _TEXTS}, "spec": _POD}
_CLAIM: Final[Any] = {
    "metadata": {"name": str},
    "spec": {"accessModes": [str], "resources": {"requests": {"storage": str}}},
}
SCHEMAS: Final[Mapping[tuple[str, str], Any]] = {
    ("v1", "Namespace"): {},
    ("v1", "ServiceAccount"): {"automountServiceAccountToken": bool},
    ("v1", "ConfigMap"): {"data": _TEXTS},
    ("v1", "Service"): {
        "spec": {
            **{"clusterIP": str, "selector": _TEXTS, "sessionAffinity": str},
            "ports": [{"name": str, "port": int, "targetPort": str}],
        }
    },
    ("apps/v1", "Deployment"): {
        "spec": {
            **{"replicas": int, "selector": _SELECTOR, "template": _TEMPLATE},
            "strategy": {"rollingUpdate": {"maxUnavailable": int, "maxSurge": int}},
        }
    },
    ("apps/v1", "StatefulSet"): {
        "spec": {
            **{"replicas": int, "selector": _SELECTOR, "template": _TEMPLATE},
            **{"serviceName": str, "podManagementPolicy": str, "volumeClaimTemplates": [_CLAIM]},
        }
    },
    ("batch/v1", "Job"): {"spec": {"backoffLimit": int, "template": _TEMPLATE}},
    ("policy/v1", "PodDisruptionBudget"): {"spec": {"maxUnavailable": int, "selector": _SELECTOR}},
}


def documents() -> Iterator[tuple[str, Any]]:
    """(file, document) of every manifest."""
    for path in sorted(FOLDER.glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            yield path.name, each


ALL: Final = tuple(documents())


def faults(value: Any, schema: Any, at: str) -> Iterator[str]:
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            yield f"{at} is no list with items"
            return
        for number, item in enumerate(value):
            yield from faults(item, schema[0], f"{at}[{number}]")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{at} is no object"
            return
        for name, item in value.items():
            if name not in schema and ... not in schema:
                yield f"{at}.{name} is no field"
            else:
                yield from faults(item, schema.get(name, schema.get(...)), f"{at}.{name}")
    elif not isinstance(value, schema) or (isinstance(value, bool) and schema is not bool):
        yield f"{at} is {value!r}"


def workloads() -> Iterator[tuple[str, Any, Any]]:
    """(name, document, pod) of all that runs our image."""
    for _, each in ALL:
        if "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each, each["spec"]["template"]["spec"]


def settings() -> dict[str, str]:
    (found,) = [each["data"] for _, each in ALL if each["kind"] == "ConfigMap"]
    return dict(found)


def test_every_manifest_has_the_fields_that_its_kind_has_and_no_others() -> None:
    assert len(ALL) > 10
    wrong: list[str] = []
    for file, each in ALL:
        schema = {"apiVersion": str, "kind": str, "metadata": _META, **SCHEMAS[each["apiVersion"], each["kind"]]}
        wrong += faults(each, schema, f"{file} {each['kind']}")
    assert wrong == []
    assert list(faults({"spec": {"replica": 2}}, SCHEMAS["apps/v1", "Deployment"], "x")) == [
        "x.spec.replica is no field"
    ]


def test_every_role_of_a_cluster_runs_with_probes_a_budget_and_labels_that_fit() -> None:
    found = {name: (document, pod) for name, document, pod in workloads()}
    assert found.keys() == {*ROLES, "topics"}
    budgets = {each["metadata"]["name"]: each["spec"] for _, each in ALL if each["kind"] == "PodDisruptionBudget"}
    assert budgets.keys() == set(ROLES)
    for role in ROLES:
        document, pod = found[role]
        labels = document["spec"]["template"]["metadata"]["labels"]
        for selector in (document["spec"]["selector"], budgets[role]["selector"]):
            assert selector["matchLabels"].items() <= labels.items()
        (container,) = pod["containers"]
        assert container["args"] == [role]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["probe"] == int(settings()[f"TOUCHFOLD_{PROBES}"])
        assert ("http" in ports) == (role in {"ingest", "serve"})
        probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
        assert [probe["path"] for probe in probes] == ["/live", "/live", "/ready"]
        assert {probe["port"] for probe in probes} == {"probe"}
        assert pod["terminationGracePeriodSeconds"] > 10, "a role stops within 10 s"


def test_a_service_reaches_pods_that_there_are() -> None:
    pods = {name: document["spec"]["template"] for name, document, _ in workloads()}
    services = {each["metadata"]["name"]: each["spec"] for _, each in ALL if each["kind"] == "Service"}
    for name, service in services.items():
        (chosen,) = [p for p in pods.values() if service["selector"].items() <= p["metadata"]["labels"].items()]
        ports = {port["name"] for port in chosen["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["ports"]} <= ports, name
    assert services["serve"]["sessionAffinity"] == "ClientIP"
    for name, document, _ in workloads():
        if document["kind"] == "StatefulSet":
            assert services[document["spec"]["serviceName"]]["clusterIP"] == "None", name
    kinds = {name: document["kind"] for name, document, _ in workloads()}
    assert kinds["worker"] == "StatefulSet", "its pods keep their names, by which the brokers know them again"


def test_nothing_runs_as_root_writes_its_image_or_is_pulled_from_a_named_registry() -> None:
    for name, _, pod in workloads():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"--uid {pod['securityContext']['runAsUser']}" in (ROOT / "Dockerfile").read_text()
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False), name
        for container in pod["containers"]:
            inner = container["securityContext"]
            assert (inner["allowPrivilegeEscalation"], inner["readOnlyRootFilesystem"]) == (False, True)
            assert inner["capabilities"]["drop"] == ["ALL"]
            assert "/" not in container["image"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts == {"data": "/data", "tmp": "/tmp", "secrets": "/secrets"}
        claims = next(d for n, d, _ in workloads() if n == name)["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in pod["volumes"]} | {claim["metadata"]["name"] for claim in claims}
        assert volumes == {"data", "tmp", "secrets"}
        assert bool(claims) == (name == "serve"), "its folder has the ledger of erasures"


def test_the_settings_can_be_read_and_no_secret_is_among_them(tmp_path: Path) -> None:
    given = settings()
    ours = {key.removeprefix("TOUCHFOLD_") for key in given if key.startswith("TOUCHFOLD_")}
    assert ours <= {*KEYS, *FILE_KEYS}
    assert not {key for key in ours if re.search("PASSWORD$|MASTER_KEY$|^DATABASE$|^VAULT$", key)}
    files = {Path(value).name for value in given.values() if value.startswith("/secrets/")}
    assert files == SECRET_FILES
    text = (FOLDER / "settings.yaml").read_text()
    assert {name for name in SECRET_FILES if f"--from-file={name}" in text} == SECRET_FILES
    for name in files:
        (tmp_path / name).write_text("postgresql://touchfold@db/touchfold")
    read = {key: value.replace("/secrets", str(tmp_path)) for key, value in given.items()}
    loaded = load(read)
    for role in ROLES:
        assert plan_of(role, loaded).roles


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_everything_is_in_our_namespace_and_no_manifest_holds_a_secret(path: Path) -> None:
    for each in yaml.safe_load_all(path.read_text()):
        assert each["kind"] != "Secret"
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "touchfold"
