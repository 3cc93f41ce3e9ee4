"""One consumer group of a service in one process: its members, what it sets aside, and what waits in it."""

import asyncio
from collections import Counter as Counts
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import asyncpg
import structlog
from faststream.kafka import KafkaBroker

from libs.common.cells import MAIN, in_cell
from libs.common.contracts import EXTERNAL_TOPICS
from libs.common.database import PASSING
from libs.common.messaging.batch import Applied, Batch
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import KafkaRecord, Reader
from libs.common.messaging.inbox.member import Course, Member
from libs.common.messaging.inbox.pace import PACE
from libs.common.messaging.inbox.resuming import Resuming
from libs.common.messaging.inbox.stored import StoredPositions
from libs.common.messaging.parked import Refusal
from libs.common.messaging.reading import UNREADABLE as UNREADABLE_BATCH
from libs.common.messaging.shell import Shell
from libs.common.messaging.sources import BUDGET
from libs.common.messaging.waiting import GRACE_SECONDS, Waiting
from libs.common.telemetry import Counter, Gauge
from libs.common.telemetry.traces import trace_id_of

FEED_RECORDS = 250
"""A transaction of a feed is short: our own messages are decided in the same process."""
PARK_SHARE = 0.5
REMEMBERED_DAYS = 14
"""How long the ids of foreign deltas are kept; an older one cannot be told from a repetition."""
ROTATE_SECONDS = 3_600.0

APPLIED = Counter("cartwright_inbox_applied_total", "Messages whose decision was committed", ["group", "topic"])
REFUSED = Counter("cartwright_inbox_refused_total", "Messages rejected, parked or queued", ["topic", "state", "reason"])
UNREADABLE = Counter("cartwright_inbox_unreadable_total", "Batches that nobody can read, passed over", ["group", "topic"])
HALTED = Gauge("cartwright_inbox_halted", "1 while a topic stands still because most tenants fail on it", ["group"])
HELD_BACK = Counter("cartwright_inbox_held_back_total", "Messages passed over because their source is paused", ["topic"])

log = structlog.get_logger(__name__)


class _Cause(NamedTuple):
    """Why messages are refused: those of one batch with the same cause are one line."""

    topic: str
    state: str
    reason: str
    tenant_id: str


class Inbox:
    """One consumer group of a service, in one process."""

    def __init__(
        self,
        shell: Shell,
        broker: Broker,
        *,
        group: str,
        topics: Sequence[str],
        park_share: float = PARK_SHARE,
        remembered_days: int = REMEMBERED_DAYS,
        grace_seconds: float = GRACE_SECONDS,
        source_budget: int = BUDGET,
        patient: bool = False,
        adopts_new_logs: bool = False,
    ) -> None:
        self.reader = Reader(shell.handlers.events(), topic_prefix=broker.prefix)
        self.group = broker.prefix + group
        self._shell = shell
        self._remembered_days = remembered_days
        foreign = frozenset(map(broker.topic, EXTERNAL_TOPICS))
        batch = Batch(
            shell,
            self.reader,
            self.group,
            park_share=park_share,
            remembered_days=remembered_days,
            foreign=foreign,
            budget=source_budget,
        )
        self.sources = Resuming(shell, batch, self.reader, broker, self.group, committed=self._committed)
        self.waiting = Waiting(shell, self.reader, self.group, grace_seconds=grace_seconds)
        group_there = in_cell(self.group, shell.cell or MAIN)  # each cell's workers read everything
        courses = self._courses(group_there, [broker.topic(topic) for topic in topics], foreign, patient=patient)
        self.members = [
            Member(
                each,
                self.group,
                shell.database,
                self.reader,
                batch,
                committed=self._committed,
                adopts_new_logs=adopts_new_logs,
            )
            for each in courses
        ]
        HALTED.labels(self.group).set_function(lambda: self.halted is not None)

    @staticmethod
    def _courses(group: str, topics: Sequence[str], foreign: frozenset[str], *, patient: bool) -> list[Course]:
        """Our own topics and those of others apart. Who is in no hurry reads them as they come, and gives way too."""
        own, others = [each for each in topics if each not in foreign], [each for each in topics if each in foreign]
        giving_way = partial(Course, lanes=1, max_records=FEED_RECORDS, rest=PACE.rest)
        if patient:
            return [giving_way(topics=topics, kafka_group=group, patient=True)]
        if not own or not others:
            return [Course(topics=topics, kafka_group=group)]
        return [
            Course(topics=own, kafka_group=group, concerned=PACE.own),
            giving_way(topics=others, kafka_group=f"{group}.feeds"),
        ]

    @property
    def refused(self) -> str | None:
        """Why the broker does not let us read, while it does not."""
        return next((member.refused for member in self.members if member.refused), None)

    @property
    def halted(self) -> str | None:
        """Why a topic stands still, while one does."""
        return next((member.halted for member in self.members if member.halted), None)

    @property
    def replaced(self) -> str | None:
        """Which partitions are not read because their log is not the one we knew, and why, if there are any."""
        return next((member.replaced for member in self.members if member.replaced), None)

    @property
    def stored(self) -> list[StoredPositions]:
        """Where each member stands."""
        return [member.stored for member in self.members]

    def subscribe(self, kafka: KafkaBroker) -> None:
        """Register every member with FastStream."""
        for member in self.members:
            member.subscribe(kafka)

    async def expel(self, clients: Collection[str]) -> None:
        """Have these clients leave the group: they are dead."""
        await asyncio.gather(*(member.expel(clients) for member in self.members))

    async def report(self) -> None:
        """Tell Kafka now and then where we are, and let go of message ids that are past their retention."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(member.report())
            while True:
                await self._rotate()
                await asyncio.sleep(ROTATE_SECONDS)

    def _committed(self, applied: Applied) -> None:
        for topic, count in Counts(found.record.topic for found in applied.applied).items():
            APPLIED.labels(self.group, topic).inc(count)
        alike: dict[_Cause, list[Refusal]] = {}
        for refusal in applied.refusals:
            cause = _Cause(refusal.record.topic, refusal.state, refusal.reason, str(refusal.tenant_id or ""))
            alike.setdefault(cause, []).append(refusal)
        for cause, refusals in alike.items():
            self._refused(cause, refusals)
        for stretch in applied.held_back:
            HELD_BACK.labels(stretch.partition.topic).inc(stretch.records)
        for source in applied.paused:
            log.critical(
                "inbox.source_paused",
                group=self.group,
                source=source.name,
                tenant_id=str(source.tenant_id),
                reason="it has more messages refused than it may",
                action="./cartwright sources list; everybody else goes on",
            )
        self._shell.committed(applied.aggregates)

    def _refused(self, cause: _Cause, refusals: Sequence[Refusal]) -> None:
        first = refusals[0]
        record = first.record
        REFUSED.labels(record.topic, cause.state, cause.reason).inc(len(refusals))
        if cause.state == "waiting" and first.tenant_id is not None:
            self.waiting.noted(first.tenant_id)
        say, what = log.error if cause.state in ("parked", "rejected") else log.info, "inbox.refused"
        if cause.reason == UNREADABLE_BATCH:
            UNREADABLE.labels(self.group, record.topic).inc(len(refusals))
            say, what = log.critical, "inbox.unreadable"
        say(
            what,
            state=cause.state,
            reason=cause.reason,
            messages=len(refusals),
            detail=first.detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            tenant_id=cause.tenant_id,
            **trace_id_of(_traceparent(record)),
            action="./cartwright parked list; other keys go on",
        )

    async def _rotate(self) -> None:
        """Make tomorrow's partition of the message ids, and drop those past their retention."""
        try:
            async with self._shell.database.acquire() as connection:
                await connection.execute("SELECT inbox_message_rotate($1)", self._remembered_days)
        except (*PASSING, asyncpg.PostgresError) as error:
            log.warning("inbox.rotation_failed", error=str(error), action="ids go to the default partition until it works")


def _traceparent(record: KafkaRecord) -> str | None:
    value = dict(record.headers).get("traceparent")
    return value.decode(errors="replace") if value else None
