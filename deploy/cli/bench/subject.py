"""The service that is measured: meters publish readings, and a tally a meter is kept. As small as a service can be.

Everything around it is the kernel itself: tables, roles and policies, envelope, relay, inbox and shell.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, MetaData, PrimaryKeyConstraint, Table, Uuid

from libs.common.clock import new_id, now
from libs.common.contracts import Event, Text, event
from libs.common.database import Rows
from libs.common.decision import Aggregate, Handlers, Message, Published, Ref, World
from libs.common.messaging.envelope import Row, encode

SERVICE: Final = "bench"
TOPIC: Final = "bench.v1"
PARTITIONS: Final = 6
TENANTS: Final = 10
METERS: Final = 20_000
EVENT_BYTES: Final = 300


@event(TOPIC, "bench.measured", aggregate="meter_id", publisher=SERVICE)
class Measured(Event):
    """A meter was read."""

    meter_id: UUID
    value: int
    note: Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally(Aggregate):
    """What was made of a meter's readings: the one effect of a message."""

    id: UUID
    applied: int = 0
    total: int = 0
    last_sequence: int = 0


_COUNTS: Final = ("version", "sequence", "applied", "total", "last_sequence")

TALLIES = Rows(
    Table(
        "tally",
        MetaData(),
        *(Column(name, Uuid, nullable=False) for name in ("tenant_id", "id")),
        *(Column(name, BigInteger, nullable=False) for name in _COUNTS),
        PrimaryKeyConstraint("tenant_id", "id", name="tally_pkey"),
    ),
    Tally,
)
HANDLERS = Handlers()


@HANDLERS.on(Measured, lambda message: [Ref(Tally, message.data.meter_id)])
def count_reading(world: World, message: Message[Measured]) -> None:
    """A reading adds to its meter's tally."""
    reading = message.data
    known = world.get(Tally, reading.meter_id) or Tally(tenant_id=world.tenant_id, id=reading.meter_id)
    applied, total = known.applied + 1, known.total + reading.value
    world.save(replace(known, applied=applied, total=total, last_sequence=message.sequence))


def readings(count: int) -> Iterator[Row]:
    """This many events as the shell would put them into the outbox: METERS keys in turn, payloads of EVENT_BYTES."""
    tenants = [new_id() for _ in range(TENANTS)]
    meters = [new_id() for _ in range(METERS)]
    moment = now()
    bare = len(_row(tenants[0], meters[0], 0, "", moment).payload) - len("0")
    for n in range(count):
        meter = n % METERS
        yield _row(tenants[meter % TENANTS], meters[meter], n, "x" * (EVENT_BYTES - bare - len(str(n))), moment)


def _row(tenant_id: UUID, meter_id: UUID, n: int, note: str, moment: datetime) -> Row:
    flow = str(meter_id)
    cause = Message(data=None, tenant_id=tenant_id, id=flow, time=moment, actor="client:bench", correlation_id=flow)
    reading = Published(Measured(meter_id=meter_id, value=n, note=note), flow, n // METERS + 1, cause)
    return encode(reading, source=f"/cartwright/{SERVICE}", event_id=new_id(), time=moment)
