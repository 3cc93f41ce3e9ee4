"""Three brokers as one cluster: each topic on all of them, and an event is acknowledged when two have it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.kafka.listeners import LISTENERS, NODES, BrokerAccess
from deploy.local.kafka.tls import Tls
from deploy.local.principals import SaslListener
from deploy.local.processes import Child, in_parallel
from deploy.local.state import Home


class KafkaCluster:
    """Three nodes of KRaft on the loopback, each broker and controller."""

    def __init__(
        self,
        home: Home,
        ports: Mapping[str, int],
        *,
        access: BrokerAccess,
        say: Callable[[str], None] = lambda _: None,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Describe the brokers; nothing but the secrets is made before `start`."""
        voters, tls = {node: ports[f"{name}.controller"] for node, name in NODES.items()}, Tls.of(home)
        self.nodes = {
            name: EmbeddedKafka(
                home,
                {f"kafka{listener}": ports[name + listener] for listener in LISTENERS},
                access=access,
                say=say,
                on_exit=on_exit,
                name=name,
                node=node,
                voters=voters,
                tls=tls,
            )
            for node, name in NODES.items()
        }

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect first: to any."""
        return ",".join(node.bootstrap_servers for node in self.nodes.values())

    @property
    def sasl(self) -> SaslListener:
        """Where those do who have credentials."""
        everywhere = ",".join(node.sasl.bootstrap_servers for node in self.nodes.values())
        return replace(self.nodes["kafka"].sasl, bootstrap_servers=everywhere)

    @property
    def pid(self) -> int | None:
        """The first broker's process id, while it runs."""
        return self.nodes["kafka"].pid

    @property
    def running(self) -> bool:
        """Whether all run."""
        return all(node.running for node in self.nodes.values())

    async def start(self) -> None:
        """Start those that do not run; return when all serve requests."""
        await in_parallel(*(node.start() for node in self.nodes.values() if not node.running))

    async def stop(self) -> None:
        """Shut down in order."""
        await in_parallel(*(node.stop() for node in self.nodes.values()))

    async def kill(self) -> None:
        """End the first as a crash would."""
        await self.nodes["kafka"].kill()
