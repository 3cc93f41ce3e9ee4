"""What a stack looks like from outside: where everything listens, and how it is. `status --json` prints it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from deploy.local.kafka.listeners import BrokerAccess
from deploy.local.principals import SaslListener

StackState = Literal["running", "degraded", "stopped"]


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """One service: its public address, its processes, and where each of them answers operators."""

    url: str | None = None
    api: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()
    ops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CellAddress:
    """A cell's workers, by service, and where each of them answers operators."""

    workers: dict[str, tuple[int, ...]]
    ops: dict[str, tuple[str, ...]]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `status --json` prints."""
        return {
            "workers": {service: list(pids) for service, pids in self.workers.items()},
            "ops": {service: list(urls) for service, urls in self.ops.items()},
        }

    @classmethod
    def from_json(cls, recorded: dict[str, Any]) -> "CellAddress":
        """Read what `as_json` wrote."""
        pids = {service: tuple(pids) for service, pids in recorded["workers"].items()}
        return cls(pids, {service: tuple(urls) for service, urls in recorded["ops"].items()})


@dataclass(frozen=True, slots=True)
class StackDescription:
    """A stack's addresses, its processes, and the credentials of the platform operator."""

    state: StackState
    home: Path
    services: dict[str, ServiceAddress]
    postgres_host: str | None
    postgres_port: int | None
    kafka_bootstrap_servers: str | None
    stripe_api_base: str | None
    stripe_api_key: str | None
    platform_client_id: str
    platform_secret_file: Path
    topic_prefix: str = ""
    gateway_url: str | None = None
    """Where customers come in; None where there is no gateway, and each service has its own door only."""
    kafka_sasl: SaslListener | None = None
    kafka_access: BrokerAccess | None = None
    """None for a cluster that is the user's."""
    cells: dict[str, CellAddress] = field(default_factory=dict)
    """All but the main one."""
    database_prefix: str = ""

    def url(self, service: str) -> str:
        """Return a service's public base address."""
        address = self.services[service].url
        if address is None:
            raise LookupError(service)
        return address

    def door(self, service: str) -> str:
        """Return where customers find a service: at the gateway, if there is one."""
        return self.gateway_url or self.url(service)

    def platform_client_secret(self) -> str:
        """Read the platform operator's secret."""
        return self.platform_secret_file.read_text().strip()

    def as_json(self) -> dict[str, Any]:
        """Return the object that `status --json` prints."""
        return {
            "state": self.state,
            "home": str(self.home),
            "services": {
                name: {"url": it.url, "api": list(it.api), "workers": list(it.workers), "ops": list(it.ops)}
                for name, it in self.services.items()
            },
            "cells": {name: it.as_json() for name, it in self.cells.items()},
            "gateway": {"url": self.gateway_url},
            "postgres": {"host": self.postgres_host, "port": self.postgres_port},
            "kafka": {
                "bootstrap_servers": self.kafka_bootstrap_servers,
                "access": self.kafka_access,
                "sasl": self.kafka_sasl.as_json() if self.kafka_sasl else None,
            },
            "stripe": {"api_base": self.stripe_api_base, "api_key": self.stripe_api_key},
            "platform_client": {
                "client_id": self.platform_client_id,
                "secret_file": str(self.platform_secret_file),
            },
        }

    @classmethod
    def from_json(cls, recorded: dict[str, Any], *, topic_prefix: str = "", database_prefix: str = "") -> "StackDescription":
        """Read what `as_json` wrote."""
        return cls(
            state=recorded["state"],
            home=Path(recorded["home"]),
            services={
                name: ServiceAddress(it["url"], tuple(it["api"]), tuple(it["workers"]), tuple(it["ops"]))
                for name, it in recorded["services"].items()
            },
            postgres_host=recorded["postgres"]["host"],
            postgres_port=recorded["postgres"]["port"],
            kafka_bootstrap_servers=recorded["kafka"]["bootstrap_servers"],
            stripe_api_base=recorded["stripe"]["api_base"],
            stripe_api_key=recorded["stripe"]["api_key"],
            platform_client_id=recorded["platform_client"]["client_id"],
            platform_secret_file=Path(recorded["platform_client"]["secret_file"]),
            topic_prefix=topic_prefix,
            gateway_url=(recorded.get("gateway") or {}).get("url"),
            kafka_sasl=SaslListener.from_json(sasl) if (sasl := recorded["kafka"].get("sasl")) else None,
            kafka_access=recorded["kafka"].get("access"),
            cells={name: CellAddress.from_json(it) for name, it in recorded.get("cells", {}).items()},
            database_prefix=database_prefix,
        )

    def stopped(self) -> "StackDescription":
        """Return the same stack with nothing running: an address nobody listens on is not shown."""
        return replace(
            self,
            state="stopped",
            services={name: ServiceAddress() for name in self.services},
            cells={name: CellAddress({}, {}) for name in self.cells},
            postgres_host=None,
            postgres_port=None,
            kafka_bootstrap_servers=None,
            gateway_url=None,
            kafka_sasl=None,
            kafka_access=None,
            stripe_api_base=None,
            stripe_api_key=None,
        )


def server_of(url: str) -> tuple[str | None, int | None]:
    """Return host and port of a database's address; of several, the first."""
    address = urlsplit(f"//{urlsplit(url).netloc.rpartition('@')[2].partition(',')[0]}")
    return address.hostname, address.port or 5432
