"""Apache Kafka as a child process: one KRaft node on the loopback, on the Java runtime that comes as a wheel."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from deploy.local.errors import ProcessError
from deploy.local.kafka.client import ready
from deploy.local.kafka.cluster import Installation, java_environment, write_cluster
from deploy.local.kafka.install import installed
from deploy.local.kafka.listeners import BrokerAccess, Listeners, admin_options, listeners, sasl_listener
from deploy.local.kafka.tls import Tls
from deploy.local.ports import HOST
from deploy.local.processes import Child, dying_with_parent, in_full_slices
from deploy.local.state import Home

_START_SECONDS: Final = 180
_POLL_SECONDS: Final = 0.05


class EmbeddedKafka:
    """One broker whose log lies in the state directory."""

    def __init__(
        self,
        home: Home,
        ports: Mapping[str, int],
        *,
        access: BrokerAccess,
        say: Callable[[str], None] = lambda _: None,
        on_exit: Callable[[Child], None] | None = None,
        name: str = "kafka",
        node: int = 1,
        voters: Mapping[int, int] = MappingProxyType({}),
        tls: Tls | None = None,
    ) -> None:
        """Describe the broker, by itself or one of several `voters`; nothing but the secrets is made before `start`."""
        self._name, self._node, self._voters, self._tls = name, node, voters, tls
        self.sasl = sasl_listener(home, ports["kafka.sasl"], tls)
        self._home, self._ports, self._access, self._say, self._on_exit = home, ports, access, say, on_exit
        self._child: Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect first: without credentials wherever that leads anywhere."""
        return self.sasl.bootstrap_servers if self._access == "closed" else f"{HOST}:{self._ports['kafka']}"

    @property
    def pid(self) -> int | None:
        """Java's process id while it runs."""
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        """Whether Java runs."""
        return self.pid is not None

    async def start(self) -> None:
        """Start the broker, installing Kafka on first use, and return when it serves requests."""
        kafka = await asyncio.to_thread(installed, self._say)
        configuration = write_cluster(kafka, self._home.path / self._name, self._listeners())
        self._child = Child(
            self._name,
            self._command(kafka, configuration),
            environment=java_environment(),
            log=self._home.log(self._name),
            on_exit=self._on_exit,
        )
        await self._child.start()
        await self._until_ready(self._child)

    async def stop(self) -> None:
        """Shut down in order, so that the next start has nothing to recover."""
        if self._child:
            await self._child.stop()

    async def kill(self) -> None:
        """End the broker as a crash would."""
        if self._child:
            await self._child.kill()

    def _listeners(self) -> Listeners:
        return replace(listeners(self._home, self._ports, self._access), node=self._node, voters=self._voters, tls=self._tls)

    def _command(self, kafka: Installation, configuration: Path) -> list[str]:
        return [*dying_with_parent("TERM"), *in_full_slices(), *kafka.broker(configuration)]

    async def _until_ready(self, broker: Child) -> None:
        answering = asyncio.create_task(ready(**admin_options(self.sasl), seconds=_START_SECONDS))
        try:
            while not answering.done():
                if broker.pid is None:
                    raise broker.ended()
                await asyncio.wait({answering}, timeout=_POLL_SECONDS)
            await answering
        except TimeoutError:
            raise ProcessError(self._name, f"was not ready after {_START_SECONDS} s", broker.log_tail()) from None
        finally:
            answering.cancel()
