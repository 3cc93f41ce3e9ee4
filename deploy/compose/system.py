"""The same system for Docker's Compose: every process of the image, and Kafka, PostgreSQL, Prometheus and Grafana beside it."""

from typing import Any, Final

from deploy.chart.declared import OF_THE_CHART, declared
from deploy.local.topics import Topic, declared_topics
from deploy.observability import scraping
from deploy.observability.scraping import INSTANCES
from services import SERVICES

IMAGE: Final = "${CARTWRIGHT_IMAGE:-cartwright:0.1.0}"
KAFKA: Final = "apache/kafka:4.1.1"
_NETWORKS: Final = "172.16.0.0/12,192.168.0.0/16"
"""Those that Docker makes: the gateway asks from there."""
_ISSUER: Final = "${CARTWRIGHT_ISSUER:-http://localhost:8080}"
_SECRETS: Final = "/run/secrets/"
_READY: Final = {"postgres": {"condition": "service_healthy"}, "topics": {"condition": "service_completed_successfully"}}
_SAFE: Final[dict[str, Any]] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "tmpfs": ["/tmp"],  # noqa: S108 - within a container, whose root cannot be written
}


def compose() -> dict[str, Any]:
    """The whole of it."""
    known = declared()["services"]
    processes = {f"{service}-{kind}": _process(service, kind, known[service]) for service, kind in INSTANCES}
    migrations = {f"{service}-migrate": _migration(service) for service in SERVICES}
    services = _beside() | migrations | processes | _gateway(known) | _invariants()
    names = {name for each in services.values() for name in each.get("secrets", ())}
    return {
        "name": "cartwright",
        "services": services,
        "secrets": {name: {"file": f"./secrets/{name}"} for name in sorted(names)},
        "volumes": {"postgres": {}, "kafka": {}, "gateway": {}, "prometheus": {}, "grafana": {}},
    }


def topics() -> str:
    """What makes the topics, with the tools of Kafka's own image. On one broker, so there is no copy of anything."""
    return "\n".join(["#!/bin/sh", "set -eu", *map(_made, declared_topics(where="local"))])


def prometheus() -> dict[str, Any]:
    """Whom Prometheus asks: every process at its operators' port."""
    known = declared()["services"]
    ports = {"api": "ops", "worker": "worker"}
    places = {f"{service}-{kind}": f"{service}-{kind}:{known[service]['ports'][ports[kind]]}" for service, kind in INSTANCES}
    beside = {"gateway": "gateway:8281", "invariants": "invariants:9185"}
    return scraping.prometheus(places | beside, rules="/etc/prometheus/alerts/*.yaml")


def _process(service: str, kind: str, known: dict[str, Any]) -> dict[str, Any]:
    ports, secrets = known["ports"], known["secrets"]
    keys = [*secrets["required"], *(secrets["worker"] if kind == "worker" else [])]
    given = {
        "kafka_bootstrap_servers": "kafka:9092",
        "issuer": _ISSUER,
        "issuer_root_public_key": "${CARTWRIGHT_ISSUER_ROOT_PUBLIC_KEY:?python -m deploy.compose}",
        "jwks_url": "http://identity-api:8081/.well-known/jwks.json",
        "http_host": "0.0.0.0",  # noqa: S104 - within a container
        "http_port": str(ports[kind]),
        "drain_seconds": "30",
    }
    if kind == "api":
        given |= {
            "ops_host": given["http_host"],
            "ops_port": str(ports["ops"]),
            "trusted_proxies": _NETWORKS,
        }
    if "console_urls" in known["given"]:
        given["console_urls"] = f"{_ISSUER}/console/"
    files = {f"{_variable(key)}_FILE": f"{_SECRETS}{service}-{key}" for key in keys}
    after = _READY | {f"{service}-migrate": {"condition": "service_completed_successfully"}}
    return _SAFE | {
        "image": IMAGE,
        "command": ["serve", service, kind],
        "environment": {_variable(name): value for name, value in given.items() if name in OF_THE_CHART} | files,
        "secrets": [f"{service}-{key}" for key in keys],
        "depends_on": after,
        "restart": "unless-stopped",
        "stop_grace_period": "45s",
    }


def description() -> dict[str, Any]:
    """What the checker of invariants goes by: where everything is, and where its secrets lie."""
    known = declared()["services"]
    services = {
        name: {
            "url": f"http://{name}-api:{known[name]['ports']['api']}",
            "ops": [f"http://{name}-api:{known[name]['ports']['ops']}", f"http://{name}-worker:{known[name]['ports']['worker']}"],
        }
        for name in SERVICES
    }
    return {
        "home": "/tmp",  # noqa: S108 - as above
        "services": services,
        "kafka": {"bootstrap_servers": "kafka:9092"},
        "stripe": {"api_key_file": f"{_SECRETS}payments-stripe-api-key"},
        "platform_client": {"secret_file": f"{_SECRETS}identity-platform-client-secret"},
    }


def _invariants() -> dict[str, Any]:
    looks = {
        "image": IMAGE,
        "command": ["invariants", "--watch", "--every=60", "--metrics-host=0.0.0.0"],
        "environment": {"CARTWRIGHT_DEPLOYMENT": "/etc/cartwright/deployment.json"},
        "secrets": ["identity-platform-client-secret", "payments-stripe-api-key"],
        "volumes": ["./deployment.json:/etc/cartwright/deployment.json:ro"],
        "depends_on": {"topics": _READY["topics"]},
        "restart": "unless-stopped",
    }
    return {"invariants": _SAFE | looks}


def _migration(service: str) -> dict[str, Any]:
    keys = ["owner-database-url", *(["platform-client-secret"] if service == "identity" else [])]
    return _SAFE | {
        "image": IMAGE,
        "command": ["migrate", service],
        "environment": {f"{_variable(key)}_FILE": f"{_SECRETS}{service}-{key}" for key in keys},
        "secrets": [f"{service}-{key}" for key in keys],
        "depends_on": {"postgres": _READY["postgres"]},
        "restart": "on-failure",
    }


def _gateway(known: dict[str, Any]) -> dict[str, Any]:
    places = [f"--service={name}={name}-api:{known[name]['ports']['api']}:{known[name]['ports']['ops']}" for name in SERVICES]
    asked = ["--host=0.0.0.0", "--port=8080", "--watched-port=8281", f"--issuer={_ISSUER}"]
    made = {
        "image": IMAGE,
        "command": ["gateway", "config", "/made/gateway", *asked, *places],
        "user": "0:0",
        "volumes": ["gateway:/made"],
    }
    envoy = {
        "image": "envoyproxy/envoy:distroless-v1.40.0",
        "entrypoint": ["envoy"],
        "command": ["-c", "/made/gateway/envoy.json", "--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"],
        "user": "0:0",
        "volumes": ["gateway:/made:ro"],
        "ports": ["127.0.0.1:8080:8080"],
        "depends_on": {"gateway-config": {"condition": "service_completed_successfully"}},
        "restart": "unless-stopped",
    }
    return {"gateway-config": _SAFE | made, "gateway": _SAFE | envoy}


def _beside() -> dict[str, Any]:
    broker = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@kafka:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka:9092",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
    }
    return {
        "postgres": {
            "image": "postgres:18",
            "environment": {"POSTGRES_PASSWORD_FILE": f"{_SECRETS}postgres-password"},
            "secrets": ["postgres-password"],
            "volumes": ["postgres:/var/lib/postgresql", "./secrets/databases.sql:/docker-entrypoint-initdb.d/databases.sql:ro"],
            "healthcheck": {"test": ["CMD", "pg_isready", "-h", "127.0.0.1"], "interval": "2s", "retries": 60},
        },
        "kafka": {
            "image": KAFKA,
            "environment": broker,
            "volumes": ["kafka:/var/lib/kafka/data"],
            "healthcheck": {
                "test": ["CMD", "/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "kafka:9092", "--list"],
                "interval": "5s",
                "timeout": "20s",
                "retries": 30,
            },
        },
        "topics": {
            "image": KAFKA,
            "entrypoint": ["/bin/sh", "/topics.sh"],
            "volumes": ["./topics.sh:/topics.sh:ro"],
            "depends_on": {"kafka": {"condition": "service_healthy"}},
        },
        **_watchers(),
    }


def _watchers() -> dict[str, Any]:
    return {
        "prometheus": {
            "image": "prom/prometheus:v3.7.3",
            "volumes": [
                "./prometheus.yaml:/etc/prometheus/prometheus.yml:ro",
                "../helm/cartwright/files/alerts:/etc/prometheus/alerts:ro",
                "prometheus:/prometheus",
            ],
            "ports": ["127.0.0.1:9090:9090"],
        },
        "grafana": {
            "image": "grafana/grafana:12.2.1",
            "environment": {"GF_SECURITY_ADMIN_PASSWORD__FILE": f"{_SECRETS}grafana-password"},
            "secrets": ["grafana-password"],
            "volumes": [
                "./grafana/datasource.yaml:/etc/grafana/provisioning/datasources/cartwright.yaml:ro",
                "./grafana/dashboards.yaml:/etc/grafana/provisioning/dashboards/cartwright.yaml:ro",
                "../observability/dashboards:/etc/dashboards:ro",
                "grafana:/var/lib/grafana",
            ],
            "ports": ["127.0.0.1:3000:3000"],
        },
    }


def _made(topic: Topic) -> str:
    settings = " ".join(f"--config {name}={value}" for name, value in topic.settings.items())
    return (
        "/opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka:9092 --create --if-not-exists "
        f"--topic {topic.name} --partitions {topic.partitions} --replication-factor {topic.replication} {settings}"
    )


def _variable(name: str) -> str:
    return f"CARTWRIGHT_{name.upper().replace('-', '_')}"
