"""The one consumer that everything of ours reads with: what others write into a topic cannot stop, starve or fell it.

aiokafka's own does not survive a batch that it cannot read, unpacks whatever it is given, and looks up five times a second
when there is nothing. Three places are changed:

- `AIOKafkaClient.send`, of this consumer's own client: a fetch goes out as what is new of it (`sessions.py`), and its answer is
  looked through (`batches.py`) as it comes in, while it still can be asked for again;
- `MemoryRecords`, as the fetcher's module knows it: batches that were looked through pass as they are. Other consumers of
  this process, which have bytes there, notice nothing;
- `AIOKafkaClient._md_synchronizer`, of this consumer's own client: it goes on after whatever ends it.

Only committed transactions are read. What cannot be read comes as a note in its own place (`notes.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.record.memory_records import MemoryRecords

from libs.common.messaging.reading.batches import Batch, Batches, NoteBatch, taken
from libs.common.messaging.reading.damage import CORRUPT, asked, rest_after
from libs.common.messaging.reading.identity import Log, LogRequest, logs_in
from libs.common.messaging.reading.notes import Unreadable, noted
from libs.common.messaging.reading.sessions import Sessions

HELD_BYTES: Final = 33_554_432
"""What may be unpacked and not yet taken, of all partitions together, beside the one batch that is always let through."""
FETCH_BYTES: Final = 8_388_608
PARTITION_BYTES: Final = 1_048_576
QUIET_SECONDS: Final = 2.0
"""After so long without a record a fetch may rest at the broker: the first record that comes ends it."""
RESTING_MS: Final = 2_000
STUCK_SECONDS: Final = 15.0
"""So long Kafka is asked again before it is believed that it cannot read its own log: a disk may hesitate."""
STUCK_PAUSE_SECONDS: Final = 0.5
LEARN_SECONDS: Final = 0.5
"""After so long it is asked again where partitions are, if that failed."""
WITHHELD: Final = "Kafka cannot read its own log here"

Send = Callable[..., Awaitable[Any]]

log = structlog.get_logger(__name__)


def _records(found: Any) -> Any:
    return found if isinstance(found, Batches) else MemoryRecords(found)


fetcher.MemoryRecords = _records


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """A consumer of committed records that no batch can stop."""

    def __init__(self, *topics: str, **options: Any) -> None:
        """Take what an aiokafka consumer takes, except for what is decided here."""
        super().__init__(
            *topics,
            **options
            | {
                "fetch_max_bytes": FETCH_BYTES,
                "max_partition_fetch_bytes": PARTITION_BYTES,
                "isolation_level": "read_committed",
                "check_crcs": False,  # it is done here
                "consumer_timeout_ms": RESTING_MS,  # whatever there is to do for the fetcher also wakes it
            },
        )
        self._ask: Send = self._client.send
        self._sessions = Sessions(self._ask)
        self._client.send = self._send
        self._learn_layout: Callable[[], Awaitable[None]] = self._client._md_synchronizer  # noqa: SLF001 - it has no word for it
        self._client._md_synchronizer = self._keep_learning  # noqa: SLF001
        self._heard_at = time.monotonic()
        self._polls = 0
        self._served: dict[TopicPartition, int] = {}
        """With which poll each partition last gave something."""
        self._log_starts: dict[TopicPartition, int] = {}
        self._held: dict[TopicPartition, int] = {}
        self._stuck: dict[TopicPartition, tuple[int, float]] = {}
        """Where Kafka gives nothing although there is something, and since when."""

    async def getmany(self, *partitions: TopicPartition, **options: Any) -> dict[TopicPartition, list[Any]]:
        """Poll, so that no partition stands behind all that another one has."""
        self._line_up()
        found: dict[TopicPartition, list[Any]] = await super().getmany(*partitions, **options)
        self._polls += 1
        self._served |= dict.fromkeys(found, self._polls)
        return found

    async def commit(self, offsets: Any = None) -> None:
        """Commit. Raises CommitFailedError while the group is dividing its partitions anew.

        The broker reads no further behind a request to join until that is answered, and what it then finds is of a time that is
        over. aiokafka takes the refusal for an expulsion and joins as somebody else, so that all divide anew, and again find it.
        """
        coordinator = self._coordinator
        if coordinator is not None and (coordinator._performed_join_prepare or coordinator._rejoin_needed_fut.done()):  # noqa: SLF001
            raise CommitFailedError("the group divides its partitions anew")
        await super().commit(offsets)

    async def expel(self, clients: Collection[str]) -> None:
        """Have these clients' members leave our group, and the rest divide it anew: they are dead, and the broker waits for them.

        Whatever does not work is left to the broker, which gives them up when their sessions are over.
        """
        group = self._coordinator
        if group is None:
            return
        try:
            described = await group._send_req(DescribeGroupsRequest([group.group_id]))  # noqa: SLF001 - it has no words
            members = [(each[0], each[1]) for found in described.groups for each in found[5]]
            for member_id in [member_id for member_id, client_id in members if client_id in clients]:
                await group._send_req(LeaveGroupRequest(group.group_id, member_id))  # noqa: SLF001
                group.request_rejoin()
        except KafkaError as error:
            log.warning("consumer.not_expelled", error=repr(error), action="the broker gives them up by itself")

    def _line_up(self) -> None:
        """Who was served last comes last.

        aiokafka gives all that it has of one partition before it begins with the next: thousands of records.
        """
        waiting = self._fetcher._records  # noqa: SLF001 - as below
        for partition in sorted(waiting, key=lambda it: self._served.get(it, 0)):
            waiting.move_to_end(partition)

    async def stop(self) -> None:
        """Stop. What was under way may end as canceled, which is nothing that we were told to do."""
        stopping = asyncio.ensure_future(super().stop())
        await asyncio.wait({stopping})
        if not stopping.cancelled() and (error := stopping.exception()):
            log.warning("consumer.not_stopped", error=repr(error), action="left behind; it holds nothing")

    def log_start(self, partition: TopicPartition) -> int:
        """Where a partition began when it was last fetched."""
        return self._log_starts.get(partition, 0)

    async def logs(self, topics: Collection[str]) -> dict[TopicPartition, Log]:
        """Which logs the partitions of these topics are. Raises a KafkaError when nobody says so."""
        try:
            return logs_in(await self._ask(self._client.get_random_node(), LogRequest(sorted(topics))))
        except NotImplementedError:  # a broker of before topic ids: only the offsets tell
            partitions = {topic: await self._client._wait_on_metadata(topic) for topic in topics}  # noqa: SLF001
            return {TopicPartition(topic, each): Log(None, -1) for topic, found in partitions.items() for each in found}

    async def look_for(self, topics: Collection[str]) -> None:
        """Learn whether topics are there that were not; by itself aiokafka looks again after five minutes."""
        if not self._client.cluster.topics().issuperset(topics):
            await self._client.force_metadata_update()

    async def topic_ids(self, topics: Collection[str]) -> dict[str, UUID | None]:
        """The id of each topic, which is another one once it was made anew."""
        return {partition.topic: log.topic_id for partition, log in (await self.logs(topics)).items()}

    async def _keep_learning(self) -> None:
        """Learn where partitions are for as long as the client lives.

        aiokafka's own task for it ends with whatever it does not expect, a cancellation among that which nobody asked for;
        then all who want to know wait for ever.
        """
        while True:
            try:
                await self._learn_layout()
            except (Exception, asyncio.CancelledError) as error:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                log.warning("consumer.layout_not_learned", error=repr(error), action="nothing is lost; it is asked for again")
                if not self._client._md_update_waiter.done():  # noqa: SLF001
                    self._client._md_update_waiter.set_result(None)  # noqa: SLF001 - at once, not when the layout has aged
                await asyncio.sleep(LEARN_SECONDS)

    async def _send(self, node: int, request: Any, **options: Any) -> Any:
        """Ask a broker, and look through what it has fetched."""
        if not isinstance(request, FetchRequest):
            return await self._ask(node, request, **options)
        self._let_rest(request)
        answer = await self._sessions.fetch(node, request, doubted=self._stuck)
        if answer.API_VERSION >= 5:
            await self._look_through(node, request, answer)
        return answer

    def _let_rest(self, request: Any) -> None:
        """Where nothing has come for a while, have the broker answer when there is something, and seldom before.

        A fetch that rests is in the way of whatever else this consumer asks of that broker, a seek to begin with; so none does
        while there is work.
        """
        if time.monotonic() - self._heard_at > QUIET_SECONDS:
            request._min_bytes, request._max_wait_ms = 1, max(request._max_wait_ms, RESTING_MS)  # noqa: SLF001 - it has no words

    async def _look_through(self, node: int, request: Any, answer: Any) -> None:
        positions = {(topic, each[0]): each[1] for topic, parts in request.topics for each in parts}
        waiting = self._fetcher._records if self._fetcher else {}  # noqa: SLF001 - what nobody has polled yet
        self._held = {partition: size for partition, size in self._held.items() if partition in waiting}
        answer.topics = [
            (topic, [await self._part(node, topic, positions[topic, each[0]], each) for each in parts])
            for topic, parts in answer.topics
        ]

    async def _part(self, node: int, topic: str, position: int, part: tuple[Any, ...]) -> tuple[Any, ...]:
        """One partition of an answer: its batches, or the note of its damage; as it is when the broker could not answer."""
        partition, error, end, stable_end, log_start, *middle, data = part
        place = TopicPartition(topic, partition)
        if error not in {0, CORRUPT}:
            return part
        if error == CORRUPT or (not data and position < stable_end):
            if not await self._is_stuck(node, place, position, error):
                return part if error else (*part[:-1], Batches([]))
            [end] = (await self._fetcher.end_offsets([place], None)).values()
            batches, log_start = await self._noted(node, place, position, end, b"", WITHHELD), self.log_start(place)
            return (partition, 0, end, end, log_start, *middle, Batches(batches))
        self._stuck.pop(place, None)
        self._log_starts[place] = log_start
        room = HELD_BYTES - sum(self._held.values())
        if room <= 0 or not data:
            return (*part[:-1], Batches([]))
        found = taken(data, position, end, room)
        if found.damage:
            found.batches = await self._noted(node, place, position, end, data, found.damage)
        self._held[place] = found.size
        self._heard_at = time.monotonic()
        return (*part[:-1], Batches(found.batches))

    async def _noted(
        self, node: int, place: TopicPartition, position: int, end: int, data: bytes, why: str
    ) -> list[Batch | NoteBatch]:
        """The note of some damage, and the batch after it where that is the only way to have it."""
        rest = await rest_after(partial(self._ask, node), place, position, end, data)
        notes = [NoteBatch(noted(Unreadable(position, rest.offset - 1, why)))] if rest.offset > position else []
        return [*notes, *taken(rest.batch, rest.offset, end, HELD_BYTES).batches]

    async def _is_stuck(self, node: int, place: TopicPartition, position: int, error: int) -> bool:
        """Whether Kafka has given nothing for some time where there should be something, also when asked for that alone."""
        known, since = self._stuck.get(place, (None, 0.0))
        if known != position:
            self._stuck[place] = position, time.monotonic()
            return False
        if error:
            await asyncio.sleep(STUCK_PAUSE_SECONDS)  # aiokafka asks again at once
        if time.monotonic() - since < STUCK_SECONDS:
            return False
        _, data = await asked(partial(self._ask, node), place, position)
        return not data
