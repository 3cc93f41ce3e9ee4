"""A group that divides its partitions anew, while its members go on telling how far they are."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from itertools import count

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from deploy.local.topics import Topic, create_topics
from libs.common.messaging.reading import Consumer

PARTITIONS = 6
SESSION_MS = 1_200_000
"""Longer than a test has time: nobody is given up by the broker."""
QUICK_SECONDS, SLOW_SECONDS = 0.2, 3.0
"""So late may a member hear that partitions are divided anew, while those who have heard wait for it."""


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Counts how often it was given partitions."""

    def __init__(self, bootstrap_servers: str, topic: str, heartbeat_seconds: float = SLOW_SECONDS, name: str = "toy") -> None:
        self.consumer = Consumer(
            bootstrap_servers=bootstrap_servers,
            group_id=topic,
            client_id=name,
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=int(heartbeat_seconds * 1_000),
        )
        self.consumer.subscribe([topic], listener=self)
        self.given = list[int]()
        """How many partitions, each time."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.given.append(len([*assigned]))

    async def on_partitions_revoked(self, _: Iterable[TopicPartition]) -> None:
        pass

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say all the time how far it is, and something new every time."""
        task = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            task.cancel()

    async def _tell(self) -> None:
        for offset in count():
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(2):
                    await self.consumer.commit(dict.fromkeys(self.consumer.assignment(), offset))
            await asyncio.sleep(0.05)

    async def until_it_has(self, partitions: int) -> None:
        while self.given[-1:] != [partitions]:
            await asyncio.sleep(0.05)


async def test_whoever_joins_has_the_partitions_divided_once_though_a_member_commits_while_it_waits_for_a_slower_one(
    bootstrap_servers: str, fresh_prefix: Callable[[str], str]
) -> None:
    topic = fresh_prefix("rebalancing")
    await create_topics(bootstrap_servers, [Topic(topic, "toy", PARTITIONS, 1, {})])
    async with AsyncExitStack() as stack:
        busy, slow, late = members = [
            Member(bootstrap_servers, topic, seconds) for seconds in (QUICK_SECONDS, SLOW_SECONDS, SLOW_SECONDS)
        ]
        for member in members:
            stack.push_async_callback(member.consumer.stop)
        for member in (busy, slow):
            await member.consumer.start()
        await busy.until_it_has(PARTITIONS // 2)
        await slow.until_it_has(PARTITIONS // 2)
        for member in members:
            member.given.clear()
        with busy.telling():
            await late.consumer.start()
            for member in members:
                await member.until_it_has(PARTITIONS // 3)
            await asyncio.sleep(2 * SLOW_SECONDS)
        assert [member.given for member in members] == [[PARTITIONS // 3]] * 3


async def test_whoever_is_found_dead_is_expelled_and_its_partitions_are_those_of_the_living(
    bootstrap_servers: str, fresh_prefix: Callable[[str], str]
) -> None:
    topic = fresh_prefix("expelling")
    await create_topics(bootstrap_servers, [Topic(topic, "toy", PARTITIONS, 1, {})])
    async with AsyncExitStack() as stack:
        first, second, dead = members = [Member(bootstrap_servers, topic, name=name) for name in ("first", "second", "dead")]
        for member in members:
            stack.push_async_callback(member.consumer.stop)
            await member.consumer.start()
        for member in members:
            await member.until_it_has(PARTITIONS // 3)
        await dead.consumer._coordinator._stop_heartbeat_task()  # and no word of leaving
        await first.consumer.expel(["nobody"])
        await asyncio.gather(first.consumer.expel(["dead"]), second.consumer.expel(["dead"]))
        for member in (first, second):
            await member.until_it_has(PARTITIONS // 2)
