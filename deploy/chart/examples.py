"""Kafka by Strimzi and PostgreSQL by CloudNativePG, as this system needs them: the same declarations as `up` goes by."""

from collections.abc import Iterator
from typing import Any, Final

from deploy.local.access import Acl, Operation, Pattern, Principal, Resource, declared_access
from deploy.local.databases import ROLES, closing, closing_languages, limiting
from deploy.local.topics import Topic, declared_topics
from services import SERVICES

Manifest = dict[str, Any]

CLUSTER: Final = "cartwright"
_RESOURCES: Final = {
    Resource.TOPIC: "topic",
    Resource.GROUP: "group",
    Resource.TRANSACTIONAL_ID: "transactionalId",
    Resource.CLUSTER: "cluster",
}
_OPERATIONS: Final = {Operation.READ: "Read", Operation.WRITE: "Write", Operation.DESCRIBE: "Describe"}
_PATTERNS: Final = {Pattern.LITERAL: "literal", Pattern.PREFIXED: "prefix"}
_VOLUME: Final = {"type": "persistent-claim", "size": "100Gi", "deleteClaim": False}


def strimzi() -> list[Manifest]:
    """A cluster, its topics and its users."""
    topics = [_topic(topic) for topic in declared_topics(where="production")]
    users = [_user(principal) for principal in declared_access().principals.values()]
    return [_nodes(), _kafka(), *topics, *users]


def cloudnative_pg() -> list[Manifest]:
    """A cluster and the services' databases. Each role's password is in a Secret of its name, which is made before."""
    return [_cluster(), *(_database(service) for service in SERVICES)]


def _named(kind: str, version: str, name: str, spec: Manifest, **labels: str) -> Manifest:
    metadata: Manifest = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _of_strimzi(kind: str, name: str, spec: Manifest, *, belongs: bool = True) -> Manifest:
    made = _named(kind, "kafka.strimzi.io/v1", name, spec)
    if belongs:
        made["metadata"]["labels"] = {"strimzi.io/cluster": CLUSTER}
    return made


def _nodes() -> Manifest:
    storage = {"type": "jbod", "volumes": [{"id": 0, "kraftMetadata": "shared", **_VOLUME}]}
    return _of_strimzi("KafkaNodePool", "brokers", {"replicas": 3, "roles": ["controller", "broker"], "storage": storage})


def _kafka() -> Manifest:
    listener = {"name": "tls", "port": 9093, "type": "internal", "tls": True, "authentication": {"type": "scram-sha-512"}}
    config = {
        "auto.create.topics.enable": False,
        "default.replication.factor": 3,
        "min.insync.replicas": 2,
        "offsets.topic.replication.factor": 3,
        "transaction.state.log.replication.factor": 3,
        "transaction.state.log.min.isr": 2,
        "unclean.leader.election.enable": False,
    }
    kafka = {"listeners": [listener], "authorization": {"type": "simple"}, "config": config}
    operators: Manifest = {"topicOperator": {}, "userOperator": {}}
    return _of_strimzi("Kafka", CLUSTER, {"kafka": kafka, "entityOperator": operators}, belongs=False)


def _topic(topic: Topic) -> Manifest:
    spec = {"partitions": topic.partitions, "replicas": topic.replication, "config": dict(topic.settings)}
    return _of_strimzi("KafkaTopic", topic.name, spec)


def _user(principal: Principal) -> Manifest:
    acls = [_acl(acl) for acl in sorted(principal.acls())]
    authentication = {"type": "scram-sha-512"}
    spec = {"authentication": authentication, "authorization": {"type": "simple", "acls": acls}}
    return _of_strimzi("KafkaUser", principal.name, spec)


def _acl(acl: Acl) -> Manifest:
    resource = {
        "type": _RESOURCES[Resource(acl.resource)],
        "name": acl.name,
        "patternType": _PATTERNS[Pattern(acl.pattern)],
    }
    return {"resource": resource, "operations": [_OPERATIONS[Operation(acl.operation)]]}


def _cluster() -> Manifest:
    parameters = {"synchronous_commit": "on", "max_connections": "400"}
    return _named(
        "Cluster",
        "postgresql.cnpg.io/v1",
        CLUSTER,
        {
            "instances": 3,
            "postgresql": {
                "parameters": parameters,
                "synchronous": {"method": "any", "number": 1, "dataDurability": "required"},
            },
            "enableSuperuserAccess": False,
            "managed": {"roles": [role for service in SERVICES for role in _roles(service)]},
            "storage": {"size": "100Gi"},
            "walStorage": {"size": "20Gi"},
        },
    )


def _roles(service: str) -> Iterator[Manifest]:
    for role in ROLES:
        name = f"{service}_{role}"
        yield {"name": name, "ensure": "present", "login": True, "passwordSecret": {"name": name.replace("_", "-")}}


def _database(service: str) -> Manifest:
    spec = {"cluster": {"name": CLUSTER}, "name": service, "owner": f"{service}_owner"}
    return _named("Database", "postgresql.cnpg.io/v1", service, spec)


def databases() -> str:
    """What no resource of CloudNativePG says of roles and databases: how long they may take, and who may come in."""
    lines: list[str] = []
    for service in SERVICES:
        bounds = [statement for role in ROLES[1:] for statement in limiting(f"{service}_{role}")]
        lines += [f"{statement};" for statement in (*bounds, *closing(service, service))]
        lines += [f"\\connect {service}", *(f"{statement};" for statement in closing_languages(service))]
    return "\n".join(lines)
