"""The chart on a real API server, as strict as one is: it takes every object and every pod, and sees no change the second time.

Not proven: what controllers make of it (none runs here), that a network enforces the policies, that KEDA scales anything.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from deploy.chart.files import HELM
from tests.contract.charts.api_server import ApiServer, RefusedError, built, objects_of, pods_of, running
from tests.contract.charts.asking import CELLS, GIVEN, Manifest, asked, defined

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.cluster("builds Kubernetes' API server and etcd of their Go modules, which takes minutes of every core"),
    pytest.mark.timeout(7_200),
]

EXAMPLE = HELM / "examples" / "cloudnative-pg.yaml"
AROUND: list[Manifest] = yaml.safe_load(
    """
    # Which the controller of service accounts would make.
    - {apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}
    # A namespace with a quota takes no pod that does not say what it needs.
    - apiVersion: v1
      kind: ResourceQuota
      metadata: {name: all}
      spec: {hard: {requests.cpu: "100", requests.memory: 100Gi, limits.memory: 100Gi, pods: "100"}}
    """
)
PRIORITY: Manifest = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1}
MODEST: Manifest = yaml.safe_load(
    """
    apiVersion: v1
    kind: Pod
    metadata: {name: modest}
    spec:
      priorityClassName: high
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: a
          image: a
          resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {memory: 1Mi}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    """
)
"""A pod that no namespace refuses."""


def _altered(part: Manifest, **spec: Any) -> Manifest:
    return part | {"spec": part["spec"] | spec}


BOUNDLESS = _altered(MODEST, containers=[MODEST["spec"]["containers"][0] | {"resources": {}}])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApiServer]:
    programs = built(request.config.cache.mkdir("kubernetes"))
    definitions = [definition for file in defined() for definition in objects_of(file)]
    async with running(programs, tmp_path_factory.mktemp("cluster")) as server:
        await server.apply(PRIORITY)
        for definition in definitions:
            await server.define(definition)
        yield server


@pytest.fixture(scope="module")
def rendered(request: pytest.FixtureRequest) -> dict[str, list[Manifest]]:
    found = asked(request.config.cache.mkdir("chart"), [])["rendered"]
    return {name: found[name] for name in (*GIVEN, *CELLS)}


async def _namespace(cluster: ApiServer, name: str) -> str:
    return await cluster.namespace(name, *AROUND, good=MODEST, bad=BOUNDLESS)


@pytest.mark.parametrize("values", [*GIVEN, *CELLS])
async def test_an_api_server_takes_all_of_it_without_a_word_and_sees_no_change_the_second_time(
    cluster: ApiServer, rendered: dict[str, list[Manifest]], values: str
) -> None:
    parts = rendered[values]
    here = await _namespace(cluster, f"takes-{values.replace(' ', '-')}")
    tried = [await cluster.apply(part, here, dry=True) for part in parts]
    first = [await cluster.apply(part, here) for part in parts]
    pods = [await cluster.apply(pod, here) for pod in pods_of(parts)]
    assert len(pods) > len(parts) // 10
    assert {word for each in [*tried, *first, *pods] for word in each.warnings} == set()
    again = [await cluster.apply(part, here) for part in parts]
    assert [each.seen for each in again] == [each.seen for each in first]
    # Not before: what a definition has a Gateway's state be until a controller says otherwise is written down with the second.
    third = [await cluster.apply(part, here) for part in parts]
    assert [each.version for each in third] == [each.version for each in again]


@pytest.mark.parametrize("values", [name for name in GIVEN if name != "least"])
async def test_a_release_may_change_its_values_and_go_back(
    cluster: ApiServer, rendered: dict[str, list[Manifest]], values: str
) -> None:
    here = await _namespace(cluster, f"changes-{values}")
    for parts in (rendered["least"], rendered[values], rendered["least"]):
        for part in parts:
            await cluster.apply(part, here)
        for job in (part for part in parts if part["kind"] == "Job"):  # as its hook has it, before the next is made
            await cluster.delete(job, here)


async def test_a_database_cluster_is_taken_as_its_example_has_it(cluster: ApiServer) -> None:
    here = await _namespace(cluster, "databases")
    for part in objects_of(EXAMPLE):
        assert (await cluster.apply(part, here)).warnings == ()


async def test_what_is_wrong_is_refused(cluster: ApiServer, rendered: dict[str, list[Manifest]]) -> None:
    """So what is taken above says something."""
    here = await _namespace(cluster, "refuses")
    kinds = {part["kind"]: part for part in rendered["most"]}
    deployment, scaled = kinds["Deployment"], kinds["ScaledObject"]
    await cluster.apply(deployment, here)
    refused = {
        "field not declared": _altered(deployment, replica=3),
        "immutable": _altered(deployment, selector={"matchLabels": {"a": "b"}}),
        "expected numeric": _altered(scaled, maxReplicaCount="many"),
        "violates PodSecurity": _altered(MODEST, securityContext={}),
        "failed quota": BOUNDLESS,
        "no PriorityClass": _altered(MODEST, priorityClassName="higher"),
        "no matches for kind": deployment | {"apiVersion": "apps/v1beta1"},
    }
    said = {}
    for why, part in refused.items():
        with pytest.raises(RefusedError) as refusal:
            await cluster.apply(part, here, dry=True)
        said[why] = str(refusal.value)
    assert {why: text for why, text in said.items() if why not in text} == {}
