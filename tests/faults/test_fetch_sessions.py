"""Fetch sessions with a real broker: pauses, records that nobody takes, sessions that are lost, a broker that goes away."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.protocol.fetch import FetchRequest_v11

from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.topics import Topic, create_topics
from libs.common.messaging.reading import Consumer
from libs.common.messaging.reading.consumer import QUIET_SECONDS, RESTING_MS
from libs.common.messaging.reading.sessions import Part, SessionFetch
from tests.shared.feeding import own_kafka

__all__ = ["own_kafka"]

TOPICS, PARTITIONS = 2, 24
UNKNOWN_SESSION, WRONG_EPOCH = 70, 71


class Log:
    """A consumer of many partitions, who writes into them, and what goes over the wire in between."""

    def __init__(self, consumer: Consumer, producer: AIOKafkaProducer, places: Collection[TopicPartition]) -> None:
        self.consumer, self._producer, self.places = consumer, producer, [*places]
        self.sent: dict[TopicPartition, list[int]] = {place: [] for place in places}
        self.read: dict[TopicPartition, list[int]] = {place: [] for place in places}
        self.errors: list[int] = []
        self.named: list[int] = []
        self.forgotten: set[Part] = set()
        self.given: Counter[Part] = Counter()
        self.waits: list[tuple[int, int, bool]] = []
        """Of each answer: how long, and for how many bytes, it might be waited with, and whether there was anything in it."""
        self.soon: set[tuple[int, int]] = set()
        """The first two of those that were asked for before it had been quiet for long."""
        self._ask = consumer._sessions._ask
        consumer._sessions._ask = self._overhear

    async def _overhear(self, node: int, request: Any) -> Any:
        is_soon = time.monotonic() - self.consumer._heard_at < QUIET_SECONDS
        answer = await self._ask(node, request)
        if isinstance(request, SessionFetch):
            told = request.build(FetchRequest_v11)
            self.soon.update([(told.max_wait_time, told.min_bytes)] if is_soon else [])
            self.errors.append(answer.error_code)
            self.named.append(sum(len(parts) for _, parts in told.topics))
            self.forgotten.update((topic, part) for topic, parts in told.forgotten_topics_data for part in parts)
            self.waits.append((told.max_wait_time, told.min_bytes, any(part[-1] for _, parts in answer.topics for part in parts)))
            self.given.update((topic, part[0]) for topic, parts in answer.topics for part in parts if part[-1])
        return answer

    async def write(self, place: TopicPartition) -> None:
        """Write the next number into a partition, in a batch of its own."""
        number = len(self.sent[place])
        await self._producer.send_and_wait(place.topic, str(number).encode(), partition=place.partition)
        self.sent[place].append(number)

    async def poll(self, **how: Any) -> None:
        """Take what there is."""
        for place, records in (await self.consumer.getmany(timeout_ms=200, **how)).items():
            self.read[place] += [int(record.value) for record in records]

    async def until_read(self, **how: Any) -> None:
        """Poll until all is read that was written, in its order and nothing twice."""
        while self._count(self.read) < self._count(self.sent):
            await self.poll(**how)
        await self.poll()
        assert self.read == self.sent

    @property
    def session(self) -> Any:
        """What is known of the only broker."""
        [session] = self.consumer._sessions._known.values()
        return session

    async def until_in_session(self) -> None:
        """Wait until a fetch is answered: while one is under way nothing is known for certain."""
        while not self.consumer._sessions._known:
            await asyncio.sleep(0)

    def _count(self, numbers: dict[TopicPartition, list[int]]) -> int:
        return sum(map(len, numbers.values()))


@asynccontextmanager
async def log_at(bootstrap_servers: str, prefix: str) -> AsyncIterator[Log]:
    names = [f"{prefix}{number}" for number in range(TOPICS)]
    await create_topics(bootstrap_servers, [Topic(name, "toy", PARTITIONS, 1, {}) for name in names])
    places = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True)
    consumer = Consumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    await producer.start()
    await consumer.start()
    try:
        log = Log(consumer, producer, places)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        yield log
    finally:
        await consumer.stop()
        await producer.stop()


@pytest.fixture
async def log(bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Log]:
    async with log_at(bootstrap_servers, fresh_prefix("sessions")) as log:
        yield log


async def test_of_many_partitions_with_pauses_all_is_read_in_order_and_nothing_twice(log: Log) -> None:
    chance, paused = random.Random(7), set[TopicPartition]()
    for _ in range(60):
        await asyncio.gather(*(log.write(place) for place in chance.sample(log.places, 3)))
        if chance.random() < 0.3:
            paused = {*chance.sample(log.places, 12)}
            log.consumer.resume(*log.places)
            log.consumer.pause(*paused)
        before = {place: len(log.read[place]) for place in paused}
        await log.poll()
        assert before == {place: len(log.read[place]) for place in paused}, "who is paused gets nothing"
    log.consumer.resume(*log.places)
    await log.until_read()
    assert set(log.errors) == {0}
    whole = [named for named in log.named if named == len(log.places)]
    assert len(whole) < len(log.named) / 2, "most fetches name what has changed"
    assert log.forgotten


async def test_what_nobody_takes_is_not_sent_again_while_others_are_read(log: Log) -> None:
    slow, quick = log.places[0], log.places[1:3]
    await log.until_in_session()
    for _ in range(5):
        await log.write(slow)
    while slow not in log.consumer._fetcher._records:
        await asyncio.sleep(0.01)
    for _ in range(5):
        for place in quick:
            await log.write(place)
        while not all(len(log.read[place]) == len(log.sent[place]) for place in quick):
            found = await log.consumer.getmany(*quick, timeout_ms=200)
            for place, records in found.items():
                log.read[place] += [int(record.value) for record in records]
    assert log.read[slow] == []
    assert slow in log.forgotten
    assert log.given[slow] == 1
    await log.until_read(max_records=1)


async def test_a_session_that_the_broker_does_not_know_or_counts_otherwise_is_begun_anew(log: Log) -> None:
    for lost in ("number", "epoch"):
        await log.until_in_session()
        setattr(log.session, lost, getattr(log.session, lost) + 5)
        for place in log.places[:4]:
            await log.write(place)
        await log.until_read()
    assert {UNKNOWN_SESSION, WRONG_EPOCH} <= {*log.errors}
    assert log.errors[-1] == 0


async def test_whoever_goes_back_reads_again_from_there(log: Log) -> None:
    place = log.places[-1]
    for _ in range(3):
        await log.write(place)
    await log.until_read()
    log.consumer.seek(place, 1)
    log.read[place] = log.read[place][:1]
    await log.until_read()


async def test_while_nothing_comes_a_fetch_rests_at_the_broker_and_the_first_record_ends_that(log: Log) -> None:
    usual, resting = (500, 1), (RESTING_MS, 1)
    await log.write(log.places[0])
    await log.until_read()
    for _ in range(20):  # whoever is slow to write on a busy machine may meet no fetch that rests
        log.waits.clear()
        while (*resting, False) not in log.waits:
            await log.poll()
        await log.write(log.places[5])
        await log.until_read()
        if (*resting, True) in log.waits:
            break
    assert (*resting, True) in log.waits, "it was answered while it rested"
    while not log.soon:
        await log.write(log.places[5])
        await log.until_read()
    assert log.soon == {usual}, "whoever came a moment ago may be in a hurry"


@pytest.mark.long("a broker of its own; that the inbox reads on after one went away is in every build, in test_reading")
async def test_a_broker_that_went_away_has_no_session_of_ours_and_nothing_is_lost(
    own_kafka: EmbeddedKafka, fresh_prefix: Callable[[str], str]
) -> None:
    async with log_at(own_kafka.bootstrap_servers, fresh_prefix("away")) as log:
        for _ in range(2):
            for place in log.places[::5]:
                await log.write(place)
            await log.until_read()
            await own_kafka.kill()
            await own_kafka.start()
        for place in log.places:
            await log.write(place)
        await log.until_read()
        await log.until_in_session()
        assert {(place.topic, place.partition) for place in log.places} == log.session.known.keys()
