"""The PostgreSQL server and the Kafka cluster a stack stands on: started here, in containers, or given."""

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from deploy.local.databases import close_server
from deploy.local.errors import StackError
from deploy.local.kafka.client import client_options, require_broker
from deploy.local.kafka.listeners import LISTENERS, NODES, BrokerAccess, admin_options
from deploy.local.parts import Broker, Database, Part
from deploy.local.principals import SaslListener
from deploy.local.processes import Child, in_parallel
from deploy.local.replicated import SERVERS, STANDBY, ReplicatedPostgres
from deploy.local.state import Home

Kind = Literal["embedded", "containers", "cluster"]
"""A cluster is embedded too: of a PostgreSQL with a synchronous standby, and three brokers."""

BROKER_PORTS: Final = [NODES[1] + listener for listener in LISTENERS]
PORTS: Final = (SERVERS[0], *BROKER_PORTS)


def ports_needed(kind: Kind, *, postgres_admin_url: str | None, kafka_bootstrap: str | None) -> list[str]:
    """Name what is listened on, by what is not given."""
    more = kind == "cluster"
    servers = () if postgres_admin_url else SERVERS if more else SERVERS[:1]
    nodes = () if kafka_bootstrap else NODES.values() if more else [NODES[1]]
    return [*servers, *(node + listener for node in nodes for listener in LISTENERS)]


class Infrastructure:
    """One server of each, whoever runs it."""

    def __init__(
        self,
        home: Home,
        ports: dict[str, int],
        *,
        kind: Kind = "embedded",
        postgres_admin_url: str | None = None,
        kafka_bootstrap: str | None = None,
        access: BrokerAccess = "publishers",
        say: Callable[[str], None] = lambda _: None,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Describe both; a given address means that nothing is started for it."""
        self._postgres_admin_url, self._kafka_bootstrap, self._say = postgres_admin_url, kafka_bootstrap, say
        self._database: Database | None = None
        self._broker: Broker | None = None
        if not postgres_admin_url:
            self._database = _database(kind, home, ports, say, on_exit)
        if not kafka_bootstrap:
            self._broker = _broker(kind, home, ports, access, say, on_exit)

    @property
    def admin_url(self) -> str:
        """Where PostgreSQL's administrator connects."""
        return self._database.admin_url if self._database else self._postgres_admin_url or ""

    @property
    def bootstrap_servers(self) -> str:
        """Where Kafka's clients connect first."""
        return self._broker.bootstrap_servers if self._broker else self._kafka_bootstrap or ""

    @property
    def sasl(self) -> SaslListener | None:
        """Where they do with credentials of ours; None when the cluster, and who is known there, is the user's."""
        return self._broker.sasl if self._broker else None

    def broker_admin(self) -> dict[str, Any]:
        """Return the arguments of an aiokafka client that may create topics."""
        return admin_options(self.sasl) if self.sasl else {"bootstrap_servers": self.bootstrap_servers, **client_options()}

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Name what is started here."""
        if self._database:
            yield "postgres", self._database
        if self._broker:
            yield "kafka", self._broker

    async def start(self) -> None:
        """Start both at once."""
        await in_parallel(self.start_database(), self.start_broker())

    async def start_database(self) -> None:
        """Have a PostgreSQL server that accepts connections."""
        if self._database:
            await self._database.start()
            await close_server(self.admin_url)
            self._say(f"postgres is ready on {self._database.admin_url.rpartition('@')[2].partition('/')[0]}")

    async def start_broker(self) -> None:
        """Have a Kafka cluster that answers."""
        if self._broker:
            await self._broker.start()
            self._say(f"kafka is ready on {self._broker.bootstrap_servers}")
        else:
            await require_broker(self.bootstrap_servers)

    async def stop(self) -> None:
        """Stop what was started here."""
        if self._broker:
            await self._broker.stop()
        if self._database:
            await self._database.stop()


def _database(
    kind: Kind, home: Home, ports: dict[str, int], say: Callable[[str], None], on_exit: Callable[[Child], None] | None
) -> Database:
    if kind == "containers":
        from deploy.local.containers import PostgresInContainer

        return PostgresInContainer(ports["postgres"], home.secret("postgres-admin"))
    if kind == "cluster":
        return ReplicatedPostgres(home, ports, say=say, on_exit=on_exit)
    if (home.path / STANDBY).exists():  # which of the two is the newer one, only the pair knows
        raise StackError(f"what lies in {home.path} is a cluster's: ./cartwright up --cluster, or down --purge first")
    from deploy.local.postgres import EmbeddedPostgres

    return EmbeddedPostgres(home, ports["postgres"], on_exit=on_exit)


def _broker(
    kind: Kind,
    home: Home,
    ports: dict[str, int],
    access: BrokerAccess,
    say: Callable[[str], None],
    on_exit: Callable[[Child], None] | None,
) -> Broker:
    if kind == "containers":
        from deploy.local.containers import KafkaInContainer

        return KafkaInContainer(home, ports, access)
    if kind == "cluster":
        from deploy.local.kafka.brokers import KafkaCluster

        return KafkaCluster(home, ports, access=access, say=say, on_exit=on_exit)
    from deploy.local.kafka.broker import EmbeddedKafka

    return EmbeddedKafka(home, ports, access=access, say=say, on_exit=on_exit)
