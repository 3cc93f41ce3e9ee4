"""How far the relays of a database have ever come, by what lies in Kafka. One that was restored knows less of it than that.

Its windows would begin again with numbers that are used, and every consumer would take what is in them for what it has had.
So whoever takes the lease looks, and lets the database begin a timeline of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from libs.common.messaging.attributes import parse_position
from libs.common.messaging.broker import START_SECONDS, Broker
from libs.common.messaging.reading import Consumer

LAST: Final = (50, 5_000)
"""So many records at the end of a partition are looked at, and so many where none of those was ours: others write there too."""
HIGHEST: Final = 1 << 62
"""Nobody's timeline has come so far; what says so was made up, and would leave no room for the next."""
POSITION: Final = "ce_relayposition"

Reached = tuple[int, int]
"""Timeline and window."""
NOWHERE: Final[Reached] = (-1, -1)


async def furthest(broker: Broker, origin: str, topics: Iterable[str]) -> Reached:
    """The highest window that a database's relay has in these topics; NOWHERE when there is none."""
    async with asyncio.timeout(START_SECONDS):
        async with _reading(broker) as anybody:
            there = await anybody.topics() & {broker.topic(topic) for topic in topics}
        if not there:
            return NOWHERE
        async with _reading(broker, *sorted(there)) as consumer:
            return await _furthest(consumer, origin)


@asynccontextmanager
async def _reading(broker: Broker, *topics: str) -> AsyncIterator[Consumer]:
    """Of a topic that is not there yet a consumer would wait for news, so its topics must be."""
    consumer = broker.reader(*topics)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _furthest(consumer: Consumer, origin: str) -> Reached:
    partitions = consumer.assignment()
    begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    found = dict.fromkeys(partitions, NOWHERE)
    for last in LAST:
        unseen = [each for each in partitions if found[each] == NOWHERE]
        for each in unseen:
            consumer.seek(each, max(begins[each], ends[each] - last))
        while behind := [each for each in unseen if await consumer.position(each) < ends[each]]:
            for partition, records in (await consumer.getmany(*behind, timeout_ms=500)).items():
                found[partition] = max([found[partition], *(_reached(record.headers, origin) for record in records)])
    return max([NOWHERE, *found.values()])


def _reached(headers: Iterable[tuple[str, bytes]], origin: str) -> Reached:
    written = next((value for name, value in headers if name == POSITION), b"")
    try:
        whose, position = parse_position((written or b"").decode())
    except ValueError:
        return NOWHERE
    is_ours = whose == origin and position is not None and position[0] < HIGHEST
    return position[:2] if is_ours and position is not None else NOWHERE
