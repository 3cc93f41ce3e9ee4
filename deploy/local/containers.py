"""PostgreSQL and Kafka in containers, behind the same interface as the embedded ones; needs a Docker engine.

Their data lives as long as the containers do, which is until `down`.
"""

import asyncio
from typing import Any, Final

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from deploy.local.errors import StackError
from deploy.local.kafka.client import ready
from deploy.local.ports import HOST
from deploy.local.postgres import SUPERUSER

_POSTGRES_IMAGE: Final = "postgres:18"
_KAFKA_IMAGE: Final = "apache/kafka:4.4.0"
_START_SECONDS: Final = 120


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

    def __init__(self, port: int) -> None:
        """Describe the broker; clients are told to come back to the port they came by."""
        self._port = port
        container = _published(DockerContainer(_KAFKA_IMAGE), "9092/tcp", port)
        for name, value in _kafka_settings(port).items():
            container = container.with_env(name, value)
        super().__init__(container)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect first."""
        return f"{HOST}:{self._port}"

    async def start(self) -> None:
        """Start the container and wait until the broker serves requests."""
        await super().start()
        try:
            await ready(self.bootstrap_servers, seconds=_START_SECONDS)
        except TimeoutError as error:
            raise StackError(f"Kafka's container was not ready after {_START_SECONDS} s: see docker logs") from error


def _published(container: DockerContainer, inside: str, port: int) -> DockerContainer:
    # `with_bind_ports` would publish on every interface; Docker's client takes an address as well, untyped here.
    ports: dict[str, Any] = container.ports
    ports[inside] = (HOST, port)
    return container


def _kafka_settings(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    }
