"""What the chart knows of the code: each service's processes, settings, secrets and consumers, and who connects to whom."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic.fields import FieldInfo

from deploy.composition import is_secret, parts_of, settings_of
from deploy.local.ports import DEFAULT_PORTS
from deploy.local.topics import TOPICS_FILE, declared_topics
from services import SERVICES

KINDS: Final = ("api", "worker")
WORKERS_SECRETS: Final = frozenset({"relay_database_url"})
"""Not required of every process, but of each worker; an API process is not given it."""
SASL_SECRETS: Final = frozenset({"kafka_sasl_password"})
"""Required where the broker asks who comes."""
OF_THE_CHART: Final = frozenset(
    {
        *("kafka_bootstrap_servers", "kafka_security_protocol", "kafka_sasl_mechanism", "kafka_sasl_username"),
        *("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile", "kafka_sasl_tokenfile", "topic_prefix"),
        *("issuer", "jwks_url", "issuer_root_public_key", "trusted_proxies"),
        *("http_host", "http_port", "ops_host", "ops_port", "drain_seconds", "console_urls", "cell"),
    }
)
"""The settings that the chart gives by itself, from values of its own. Every other that is no secret may be set freely."""


def declared() -> dict[str, Any]:
    """All of it, as the chart's templates read it."""
    return {"services": {service: _service(service) for service in SERVICES}, "connections": connections()}


def free_settings(service: str) -> dict[str, FieldInfo]:
    """What an operator may choose of a service's settings, by name."""
    fields = settings_of(service).model_fields
    return {name: field for name, field in fields.items() if name not in OF_THE_CHART and not is_secret(field)}


def secrets(service: str) -> dict[str, list[str]]:
    """The names of a service's secrets, as the keys of its Secret: those that are always needed, and those that may be there."""
    fields = settings_of(service).model_fields
    found: dict[str, list[str]] = {"required": [], "worker": [], "sasl": [], "optional": []}
    for name, field in fields.items():
        if is_secret(field):
            found[_need(name, field)].append(name.replace("_", "-"))
    return found


def connections() -> dict[str, list[str]]:
    """Who connects to whom, as `deploy/topics.yaml` has it."""
    import yaml

    found: dict[str, list[str]] = yaml.safe_load(TOPICS_FILE.read_text(encoding="utf-8"))["connections"]
    return found


def partitions_read(service: str) -> int:
    """So many workers of a service can have something to read, in production: more of them would only wait."""
    partitions = {topic.name: topic.partitions for topic in declared_topics(where="production")}
    return max(partitions[topic] for topic in _topics_read(service))


def _topics_read(service: str) -> Iterator[str]:
    parts = parts_of(service)
    yield from parts.topics
    for handlers in parts.handlers_apart.values():
        yield from (event.TOPIC for event in handlers.events())


def _need(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "worker" if name in WORKERS_SECRETS else "sasl" if name in SASL_SECRETS else "optional"


def _service(service: str) -> dict[str, Any]:
    fields = settings_of(service).model_fields
    ports = {kind: DEFAULT_PORTS[f"{service}.{kind}"] for kind in ("api", "ops", "worker")}
    return {
        "ports": ports,
        "secrets": secrets(service),
        "given": sorted(OF_THE_CHART & fields.keys()),
        "settings": sorted(free_settings(service)),
        "partitions": partitions_read(service),
        "groups": [*parts_of(service).groups],
        "is_in_cells": parts_of(service).is_in_cells,
    }
