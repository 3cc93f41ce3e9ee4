"""What the stack needs of a part, however it is run: embedded, in a container, or already there."""

from typing import Protocol

from deploy.local.principals import SaslListener


class Part(Protocol):
    """Something the stack starts, watches, and stops in reverse order."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs; None for what runs in a container too."""

    @property
    def running(self) -> bool:
        """Whether it is there."""

    async def start(self) -> None:
        """Start it and return when it is ready."""

    async def stop(self) -> None:
        """End it in an orderly way."""

    async def kill(self) -> None:
        """End it as a crash would."""


class Database(Part, Protocol):
    """A PostgreSQL server."""

    @property
    def admin_url(self) -> str:
        """Where its superuser connects."""


class Broker(Part, Protocol):
    """A Kafka cluster."""

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect first."""

    @property
    def sasl(self) -> SaslListener:
        """Where those do who have credentials."""
