"""PostgreSQL and Kafka in containers, behind the same interface as the embedded ones; needs a Docker engine.

Their data lives as long as the containers do, which is until `down`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from deploy.local.errors import StackError
from deploy.local.kafka.client import ready
from deploy.local.kafka.cluster import cluster_properties
from deploy.local.kafka.listeners import BrokerAccess, Listeners, admin_options, listeners, sasl_listener
from deploy.local.ports import HOST
from deploy.local.postgres import SUPERUSER
from deploy.local.state import Home

_POSTGRES_IMAGE: Final = "postgres:18"
_KAFKA_IMAGE: Final = "apache/kafka:4.4.0"
_START_SECONDS: Final = 120
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - in the container; only two ports of the loopback lead there


class _InContainer:
    """One container on a loopback port of our choice."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self._running = False

    @property
    def pid(self) -> int | None:
        """None: the process is the engine's."""
        return None

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._running

    async def start(self) -> None:
        """Start the container, fetching its image on first use."""
        try:
            await asyncio.to_thread(self._container.start)
        except Exception as error:  # the engine's client raises its own, urllib3's and requests' errors
            raise StackError(f"the container cannot be started ({error}): is Docker running?") from error
        self._running = True

    async def stop(self) -> None:
        """Stop and remove the container."""
        if self._running:
            self._running = False
            await asyncio.to_thread(self._container.stop)

    async def kill(self) -> None:
        """End the container as a crash would."""
        self._running = False
        await asyncio.to_thread(self._container.get_wrapped_container().kill)


class PostgresInContainer(_InContainer):
    """PostgreSQL's official image."""

    def __init__(self, port: int, password: str) -> None:
        """Describe the server."""
        self._port, self._password = port, password
        super().__init__(
            _published(DockerContainer(_POSTGRES_IMAGE), "5432/tcp", port)
            .with_env("POSTGRES_PASSWORD", password)
            .with_command("postgres -c max_connections=300 -c shared_buffers=256MB")
            # Once for its initialization, once for good.
            .waiting_for(LogMessageWaitStrategy("ready to accept connections", times=2))
        )

    @property
    def admin_url(self) -> str:
        """Where the superuser connects."""
        return f"postgresql://{SUPERUSER}:{self._password}@{HOST}:{self._port}/postgres"


class KafkaInContainer(_InContainer):
    """Apache Kafka's official image, one KRaft node."""

    def __init__(self, home: Home, ports: Mapping[str, int], access: BrokerAccess) -> None:
        """Describe the broker; clients are told to come back to the port they came by."""
        self.sasl = sasl_listener(home, ports["kafka.sasl"])
        self._port, self._access = ports["kafka"], access
        # The same ports inside and outside: the node speaks with itself where it tells its clients to come.
        container = DockerContainer(_KAFKA_IMAGE)
        for port in (ports["kafka"], ports["kafka.sasl"]):
            container = _published(container, f"{port}/tcp", port)
        for name, value in kafka_settings(replace(listeners(home, ports, access), bind=_EVERYWHERE)).items():
            container = container.with_env(name, value)
        super().__init__(container)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect first: without credentials wherever that leads anywhere."""
        return self.sasl.bootstrap_servers if self._access == "closed" else f"{HOST}:{self._port}"

    async def start(self) -> None:
        """Start the container and wait until the broker serves requests."""
        await super().start()
        try:
            await ready(**admin_options(self.sasl), seconds=_START_SECONDS)
        except TimeoutError as error:
            raise StackError(f"Kafka's container was not ready after {_START_SECONDS} s: see docker logs") from error


def _published(container: DockerContainer, inside: str, port: int) -> DockerContainer:
    # `with_bind_ports` would publish on every interface; Docker's client takes an address as well, untyped here.
    ports: dict[str, Any] = container.ports
    ports[inside] = (HOST, port)
    return container


def kafka_settings(listening: Listeners) -> dict[str, str]:
    """Write properties as the image's environment has them: `_` for a dot, `___` for a dash."""
    properties = cluster_properties(listening)
    return {f"KAFKA_{name.upper().replace('-', '___').replace('.', '_')}": value for name, value in properties.items()}
