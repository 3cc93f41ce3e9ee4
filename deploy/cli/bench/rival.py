"""`faststream-outbox` as its documentation sets it up, publishing the same events to the same topic.

Two settings of it are measured: as documented for a relay to Kafka, and with every throughput lever that its page on
performance names. The second gives up the order of a key (several workers) and redelivers more after a crash; ours does
neither, so the comparison favours the rival.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

import orjson
from faststream.kafka import KafkaBroker, KafkaResponse
from faststream_outbox import OutboxBroker, make_outbox_table, outbox_autovacuum_ddl
from faststream_outbox.annotations import OutboxMessage
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from deploy.cli.bench.place import Place
from deploy.cli.bench.subject import TOPIC
from libs.common.database import Connection
from libs.common.messaging.envelope import Row
from libs.common.messaging.headers import unpack

SETTINGS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "faststream_outbox": {},
        "faststream_outbox_all_levers": {"max_workers": 16, "fetch_batch_size": 1_000, "terminal_flush_batch_size": 100},
    }
)

_QUEUE: Final = "readings"
_TABLE: Final = make_outbox_table(MetaData(), table_name="rival_outbox")


async def prepare(connection: Connection) -> None:
    """Make its table, with the vacuum settings it recommends."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    elements: list[CreateTable | CreateIndex] = [CreateTable(_TABLE), *(CreateIndex(index) for index in _TABLE.indexes)]
    for element in elements:
        await connection.execute(str(element.compile(dialect=dialect)))
    await connection.execute(outbox_autovacuum_ddl(_TABLE.name))
    await connection.execute(f"ALTER TABLE {_TABLE.name} OWNER TO bench_owner")


async def copy_into_outbox(connection: Connection, rows: Sequence[Row]) -> None:
    """Put the same events, with the same headers, into its table."""
    records = ((_QUEUE, row.payload, _headers(row)) for row in rows)
    await connection.copy_records_to_table(_TABLE.name, records=records, columns=("queue", "payload", "headers"))


def _headers(row: Row) -> str:
    """An event's headers as the JSON object that its column wants."""
    return orjson.dumps({name: value.decode() for name, value in unpack(row.headers)}).decode()


async def wake(connection: Connection) -> None:
    """Notify it, as its own `publish` would within the transaction."""
    await connection.execute("SELECT pg_notify($1, $2)", f"outbox_{_TABLE.name}", _QUEUE)


@asynccontextmanager
async def relaying(place: Place, settings: Mapping[str, int]) -> AsyncIterator[None]:
    """Relay to Kafka for as long as the context lasts, through a producer with the settings of ours."""
    engine = create_async_engine(place.url("owner").replace("postgresql://", "postgresql+asyncpg://"), pool_size=20)
    kafka = KafkaBroker(
        place.bootstrap_servers,
        logger=None,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_batch_size=950_000,
        max_request_size=1_000_000,
    )
    outbox = OutboxBroker(engine, outbox_table=_TABLE, logger=None)

    @kafka.publisher(TOPIC)
    @outbox.subscriber(_QUEUE, **settings)  # type: ignore[untyped-decorator]  # it has no types
    async def relay(message: OutboxMessage) -> Any:
        key = message.headers["ce_partitionkey"].encode()
        return KafkaResponse(message.body, headers=message.headers, key=key)

    await kafka.connect()
    await outbox.start()
    try:
        yield
    finally:
        await outbox.stop()
        await kafka.stop()
        await engine.dispose()
