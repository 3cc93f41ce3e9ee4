"""The chart, rendered by Helm: Kubernetes takes what comes out, every process has what it requires, and nobody has more."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart.declared import connections, partitions_read
from deploy.chart.files import CHART, HELM
from deploy.cli.deployment import described
from deploy.composition import parts_of, settings_of
from deploy.local.cells import CELLED
from deploy.local.ports import DEFAULT_PORTS
from deploy.local.state import ROOT
from deploy.observability.files import RULES
from libs.common.cells import in_cell
from libs.common.settings import PREFIX, KafkaLogin
from services import SERVICES
from tests.contract.charts.asking import GIVEN, VALUES, Manifest, asked, defined

EXAMPLES = sorted((HELM / "examples").glob("*.yaml"))
PROCESSES = [(service, kind) for service in SERVICES for kind in ("api", "worker")]
EXTENDED = {"external-secrets.io/v1", "gateway.networking.k8s.io/v1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
IN_EXAMPLES = {"kafka.strimzi.io/v1", "postgresql.cnpg.io/v1"}
PROBES = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
WRONG = ROOT / "tests" / "contract" / "charts" / "wrong.yaml"
"""What Kubernetes would not take."""


@pytest.fixture(scope="module")
def answer(request: pytest.FixtureRequest) -> Manifest:
    return asked(request.config.cache.mkdir("chart"), [*EXAMPLES, WRONG])


@pytest.fixture(params=GIVEN)
def values(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def parts(answer: Manifest, values: str) -> list[Manifest]:
    found = answer["rendered"][values]
    assert isinstance(found, list), found
    return found


def _of(parts: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {part["metadata"]["name"]: part for part in parts if part["kind"] == kind}


def _pods(parts: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for kind in ("Deployment", "Job"):
        for name, part in _of(parts, kind).items():
            yield name, part["spec"]["template"]["spec"]


def _container(parts: list[Manifest], service: str, kind: str) -> Manifest:
    found: Manifest = _of(parts, "Deployment")[f"cartwright-{service}-{kind}"]["spec"]["template"]["spec"]["containers"][0]
    return found


def _environment(container: Manifest) -> dict[str, str]:
    """Its variables, the values of files in place of their names."""
    found = {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}
    return {name.removeprefix(PREFIX): value for name, value in found.items() if name.startswith(PREFIX)}


def test_kubernetes_takes_what_helm_makes_of_the_chart_and_not_what_is_wrong(answer: Manifest) -> None:
    [found] = answer["wrong"]
    assert "Deployment wrong" in found
    assert "'replica' was unexpected" in found
    assert answer["lint"]["errors"] == []
    assert {each.split()[0] for each in answer["unknown"]} == EXTENDED | IN_EXAMPLES


@pytest.mark.long("fetches five Go modules that carry the definitions")
def test_what_is_not_kubernetes_own_is_as_its_extensions_define_it(request: pytest.FixtureRequest) -> None:
    """Not proven: Strimzi's. No registry has its definitions."""
    found = asked(request.config.cache.mkdir("chart"), EXAMPLES, defined())
    assert found["wrong"] == []
    assert {each.split()[0] for each in found["unknown"]} == {"kafka.strimzi.io/v1"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", r"at '/issuer'.*|at '/kafka/bootstrapServers'"),
        ("misspelt", r"additional properties 'isuer' not allowed"),
        ("unknown setting", r"additional properties 'log_levels' not allowed"),
        ("a password in sight", r"at '/provider/proxy': .*does not match pattern"),
        ("a cell of nothing", r"cell.of: the release that this one is a cell of"),
        ("no token", r"kafkaTokenSecret: kafka.saslMechanism is OAUTHBEARER"),
        ("too many workers", r"at '/services/cart/worker/autoscaling/max': maximum: got 25, want 24"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(answer: Manifest, name: str, said: str) -> None:
    refusal = answer["rendered"][name]
    assert isinstance(refusal, str), f"{VALUES[name]} is taken"
    assert re.search(said, refusal)


@pytest.mark.parametrize(("service", "kind"), PROCESSES)
def test_a_process_is_given_all_that_it_requires_and_nothing_that_it_does_not_know(
    parts: list[Manifest], service: str, kind: str
) -> None:
    given = _environment(_container(parts, service, kind))
    fields = settings_of(service).model_fields
    required = {name.upper() for name, field in fields.items() if field.is_required()}
    required |= {"OPS_PORT"} if kind == "api" else {"RELAY_DATABASE_URL"}
    names = {name.removesuffix("_FILE") if name.removesuffix("_FILE").lower() in fields else name for name in given}
    assert required - names == set()
    assert {name.lower() for name in names} - fields.keys() == set()


@pytest.mark.parametrize(("service", "kind"), PROCESSES)
def test_every_secret_is_a_file_that_is_mounted_and_a_process_has_no_other(
    parts: list[Manifest], service: str, kind: str
) -> None:
    pod = _of(parts, "Deployment")[f"cartwright-{service}-{kind}"]["spec"]["template"]["spec"]
    [secrets] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets"]
    mounted = {f"/etc/cartwright/secrets/{item['path']}" for item in secrets["items"]}
    named = {value for name, value in _environment(pod["containers"][0]).items() if name.endswith("_FILE")}
    assert mounted == named
    assert (f"/etc/cartwright/secrets/{'relay-database-url'}" in mounted) == (kind == "worker")


def test_every_file_that_a_pod_is_told_of_is_mounted_there(parts: list[Manifest]) -> None:
    for name, pod in _pods(parts):
        for container in pod["containers"]:
            named = {each["value"] for each in container.get("env", ()) if each.get("value", "").startswith("/etc/cartwright/")}
            assert named - {*_files(pod, container)} == set(), name


def _files(pod: Manifest, container: Manifest) -> Iterator[str]:
    """What is mounted below /etc/cartwright: of a whole Secret or ConfigMap, all that ours have in them."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    whole = [{"path": path} for path in ("owner-database-url", "platform-client-secret", "deployment.json")]
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        sources = [source["secret"] for source in volume.get("projected", {}).get("sources", ())]
        sources += [volume[kind] for kind in ("secret", "configMap") if kind in volume]
        for source in sources:
            yield from (f"{mount['mountPath']}/{item['path']}" for item in source.get("items", whole))


def test_who_comes_by_a_token_or_a_certificate_has_its_own_and_no_password(answer: Manifest) -> None:
    parts = answer["rendered"]["tokens"]
    for name, pod in _pods(parts):
        given, secrets = _environment(pod["containers"][0]), {*_secrets(pod)}
        assert not any("SASL_PASSWORD" in variable or "SASL_USERNAME" in variable for variable in given), name
        if "KAFKA_SECURITY_PROTOCOL" in given:
            who = name.split("-")[1]
            assert given["KAFKA_SASL_TOKENFILE"] == "/etc/cartwright/kafka/token"
            assert {secret for secret in secrets if "token" in secret} == {f"{who}-token"}
            assert ("KAFKA_SSL_CERTFILE" in given) == (f"{who}-kafka" in secrets) == (who in ("payments", "invariants"))
        if name.split("-")[1] in ("identity", "cart", "checkout"):
            assert {"postgres-ca", f"{name.split('-')[1]}-database"} <= secrets, name


def _secrets(pod: Manifest) -> Iterator[str]:
    for volume in pod["volumes"]:
        yield from ([volume["secret"]["secretName"]] if "secret" in volume else [])
        yield from (source["secret"]["name"] for source in volume.get("projected", {}).get("sources", ()))


def test_only_who_asks_the_provider_is_told_of_the_proxy_on_the_way_there(answer: Manifest) -> None:
    asking = {"cartwright-payments-api", "cartwright-payments-worker", "cartwright-invariants"}
    for values, told in (
        ("least", {}),
        ("most", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".cluster.local,10.0.0.0/8"}),
        ("tokens", {"HTTPS_PROXY": {"secretKeyRef": {"name": "proxy", "key": "proxy"}}}),
    ):
        for name, pod in _pods(answer["rendered"][values]):
            given = {each["name"]: each.get("value") or each["valueFrom"] for each in pod["containers"][0].get("env", ())}
            found = {variable: value for variable, value in given.items() if variable.endswith("_PROXY")}
            assert found == (told if name in asking else {}), name
            is_trusted = values == "most" and name in asking
            assert (given.get("SSL_CERT_FILE"), "proxy-ca" in {*_secrets(pod)}) == (
                ("/etc/cartwright/provider/ca.crt", True) if is_trusted else (None, False)
            )


def test_a_cell_is_workers_of_what_it_has_databases_of_and_asks_the_main_release_who_comes(answer: Manifest) -> None:
    parts = answer["rendered"]["a cell"]
    assert {*_of(parts, "Deployment")} == {f"cartwright-{service}-worker" for service in CELLED}
    assert {*_of(parts, "Job")} == {f"cartwright-{service}-migrate" for service in CELLED}
    assert {*_of(parts, "Service")} == {f"cartwright-{service}-worker" for service in CELLED}
    assert len(_of(parts, "ExternalSecret")) == 2 * len(CELLED)
    assert {part["kind"] for part in parts} == {
        *("Deployment", "ExternalSecret", "Job", "NetworkPolicy", "PodDisruptionBudget", "ScaledObject", "Service"),
        *("ServiceAccount", "ServiceMonitor"),
    }
    for service in CELLED:
        given = _environment(_container(parts, service, "worker"))
        assert (given["CELL"], given["JWKS_URL"].split(":")[1]) == ("east", "//shop-cartwright-identity")
        query = _of(parts, "ScaledObject")[f"cartwright-{service}-worker"]["spec"]["triggers"][0]["metadata"]["query"]
        [group] = re.findall(r'group=~"([^"]+)"', query)
        assert all(re.fullmatch(group, in_cell(f"eu.{name}", "east")) for name in parts_of(service).groups)
        assert not any(re.fullmatch(group, f"eu.{name}") for name in parts_of(service).groups), "those are the main cell's"
        policy = _of(parts, "NetworkPolicy")[f"cartwright-{service}-worker"]["spec"]
        asked = [_labels(peer) for rule in policy["egress"] for peer in rule.get("to", ()) if _labels(peer)]
        asking = [_labels(peer) for rule in policy["ingress"] for peer in rule.get("from", ()) if _labels(peer)]
        assert [(each["app.kubernetes.io/instance"], each["cartwright/service"]) for each in asked] == [("shop", "identity")]
        assert [(each["app.kubernetes.io/instance"], each["app.kubernetes.io/component"]) for each in asking] == [
            ("shop", "operator")
        ]


def test_a_release_with_cells_gives_its_apis_their_databases_and_lets_their_workers_ask_identity(
    answer: Manifest, tmp_path: Path
) -> None:
    parts, releases = answer["rendered"]["with cells"], ["cartwright", "east", "west-cartwright"]
    for service, kind in PROCESSES:
        given = _environment(_container(parts, service, kind))
        assert ("CELL_DATABASE_URLS_FILE" in given) == (kind == "api" and service in CELLED)
        assert "CELL" not in given
    stored = {name: [each["secretKey"] for each in it["spec"]["data"]] for name, it in _of(parts, "ExternalSecret").items()}
    assert {name for name, keys in stored.items() if "cell-database-urls" in keys} == {
        "carts",
        "cartwright-checkout",
        "cartwright-payments",
    }
    policies = {name: each["spec"] for name, each in _of(parts, "NetworkPolicy").items()}
    identity = policies["cartwright-identity-api"]["ingress"]
    workers = [_labels(peer) for rule in identity for peer in rule.get("from", ())]
    operator = policies["cartwright-operator"]["egress"]
    asked = [_labels(peer) for rule in operator for peer in rule.get("to", ())]
    for labels in (workers, asked):
        of_workers = [each for each in labels if each.get("app.kubernetes.io/component") == "worker"]
        assert [each["app.kubernetes.io/instance"] for each in of_workers] == releases
    description = tmp_path / "deployment.json"
    description.write_text(_of(parts, "ConfigMap")["cartwright-description"]["data"]["deployment.json"])
    for name, here in (("east", "east-cartwright"), ("west", "west-cartwright")):
        assert described(description).cells[name].ops == {
            service: (f"http://{here}-{service}-worker:{DEFAULT_PORTS[f'{service}.worker']}",) for service in CELLED
        }


def test_the_checker_of_invariants_finds_everything_it_asks_by_what_it_is_given(answer: Manifest, tmp_path: Path) -> None:
    for values, base in (("tokens", "http://stripe:1"), ("most", "https://api.stripe.com")):
        parts = answer["rendered"][values]
        pod = _of(parts, "Deployment")["cartwright-invariants"]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        here = tmp_path / values
        for file in _files(pod, container):
            (here / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (here / file.lstrip("/")).write_text(f"{Path(file).name} of it\n")
        description = here / _environment(container)["DEPLOYMENT"].lstrip("/")
        description.write_text(_of(parts, "ConfigMap")["cartwright-description"]["data"]["deployment.json"])
        found = described(description)
        assert (found.stripe_api_base, found.stripe_api_key) == (base, "stripe-api-key of it")
        assert found.platform_client_secret() == "platform-client-secret of it"
        assert {service: found.url(service) for service in SERVICES} == {
            service: f"http://cartwright-{service}:{DEFAULT_PORTS[f'{service}.api']}" for service in SERVICES
        }
        assert {*_environment(container)} - {"DEPLOYMENT", "TOPIC_PREFIX", "KAFKA_BOOTSTRAP_SERVERS"} <= {
            f"{name.upper()}{file}" for name in KafkaLogin.model_fields for file in ("", "_FILE")
        }


def test_what_is_chosen_for_a_process_goes_before_what_is_chosen_for_its_service_and_for_all(answer: Manifest) -> None:
    parts = answer["rendered"]["most"]
    levels = {(service, kind): _environment(_container(parts, service, kind))["LOG_LEVEL"] for service, kind in PROCESSES}
    assert levels[("cart", "worker")] == "error"
    assert levels[("cart", "api")] == "warning"
    assert levels[("payments", "api")] == "debug"
    given = _environment(_container(parts, "checkout", "worker"))
    assert (given["HTTP_CONNECTIONS"], given["INBOX_PARK_SHARE"]) == ("5000000", "0.25"), "as they were written"


def test_every_pod_may_as_little_as_can_be(parts: list[Manifest]) -> None:
    pods = dict(_pods(parts))
    assert len(pods) == len(PROCESSES) + len(SERVICES) + len(["gateway", "invariants"])
    for name, pod in pods.items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert {"requests", "limits"} == container["resources"].keys(), name


def test_a_process_has_longer_to_leave_than_it_takes_and_is_asked_how_it_is_where_operators_are(parts: list[Manifest]) -> None:
    for service, kind in PROCESSES:
        deployment = _of(parts, "Deployment")[f"cartwright-{service}-{kind}"]["spec"]["template"]["spec"]
        container = deployment["containers"][0]
        drain = int(_environment(container)["DRAIN_SECONDS"])
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert deployment["terminationGracePeriodSeconds"] > before + drain + 10, "ten more, for what is put away"
        assert {name: container[name]["httpGet"] for name in PROBES} == {
            name: {"path": path, "port": "ops"} for name, path in PROBES.items()
        }
        port = "OPS_PORT" if kind == "api" else "HTTP_PORT"
        assert {each["containerPort"] for each in container["ports"] if each["name"] == "ops"} == {
            int(_environment(container)[port])
        }


def test_workers_are_scaled_by_the_lag_of_their_own_groups_up_to_their_partitions(answer: Manifest) -> None:
    scaled = _of(answer["rendered"]["most"], "ScaledObject")
    assert scaled.keys() == {f"cartwright-{service}-worker" for service in SERVICES}
    for service in SERVICES:
        spec = scaled[f"cartwright-{service}-worker"]["spec"]
        assert spec["maxReplicaCount"] <= partitions_read(service)
        query = spec["triggers"][0]["metadata"]["query"]
        [group] = re.findall(r'group=~"([^"]+)"', query)
        assert all(re.fullmatch(group, f"eu.{name}") for name in parts_of(service).groups)
        others = (service, f"eux{service}", f"eu.{service}s", f"eu.{service}.east")
        assert not any(re.fullmatch(group, name) for name in others), "a cell's are scaled by their own lag"
    fixed = {name for name, each in _of(answer["rendered"]["least"], "Deployment").items() if "replicas" in each["spec"]}
    assert fixed == {"cartwright-invariants", *(f"cartwright-{service}-worker" for service in SERVICES)}, (
        "whoever is scaled has no number beside that"
    )


def test_policies_let_through_what_the_matrix_has_and_nothing_else(parts: list[Manifest]) -> None:
    policies = {name.removeprefix("cartwright-"): policy["spec"] for name, policy in _of(parts, "NetworkPolicy").items()}
    asks = {
        (who, target, rule["ports"][0]["port"])
        for who, policy in policies.items()
        for rule in policy.get("egress") or []
        for peer in rule.get("to", [])
        for target in _chosen(peer, policies)
    }
    answers = {
        (_labels(peer)["app.kubernetes.io/component"], who, rule["ports"][0]["port"])
        for who, policy in policies.items()
        for rule in policy.get("ingress") or []
        for peer in rule.get("from", [])
        if _labels(peer)
    }
    assert asks == {edge for edge in _edges() if edge[0] in policies}
    assert answers == {(_component(who), target, port) for who, target, port in asks}
    assert policies["cartwright"]["podSelector"]["matchLabels"].keys() == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
    }, "what no other policy chooses may ask for names, and is asked by nobody"


def _edges() -> Iterator[tuple[str, str, str]]:
    """The matrix: who asks which kind of pod, at which of its ports."""
    for who, places in connections().items():
        for place in places:
            component, _, port = place.partition(".")
            for asking in _all_of(who):
                if component in {*SERVICES, "api", "worker", "gateway"}:
                    named = "customers" if place == "gateway" else port or component
                    for target in [f"{component}-{port}"] if component in SERVICES else _all_of(component):
                        yield asking, target, named


def _all_of(component: str) -> list[str]:
    return [f"{service}-{component}" for service in SERVICES] if component in {"api", "worker"} else [component]


def _component(name: str) -> str:
    return name.rpartition("-")[2]


def _labels(peer: Manifest) -> Manifest:
    found: Manifest = peer.get("podSelector", {}).get("matchLabels", {})
    return found


def _chosen(peer: Manifest, policies: Manifest) -> list[str]:
    """The policies whose pods a peer chooses."""
    wanted = _labels(peer).items()
    return [name for name, each in policies.items() if wanted and wanted <= each["podSelector"]["matchLabels"].items()]


def test_the_charts_rules_are_those_that_prometheus_was_asked_about_with_the_pages_where_they_are(answer: Manifest) -> None:
    [rules] = _of(answer["rendered"]["most"], "PrometheusRule").values()
    declared = RULES.read_text(encoding="utf-8").replace("docs/runbooks/", "https://ops/")
    assert rules["spec"] == yaml.safe_load(declared)


def test_the_values_file_says_what_each_value_is_for() -> None:
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(lines):
        if re.match(r"\s*\w+:", line):
            assert before.lstrip().startswith("# "), line
    schema: Any = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert [name for name, each in schema["properties"].items() if not each.get("description")] == []
