"""Two lanes of transactions: while the database works for one, the other reads and decides.

All of a partition that is in hand is in one lane, so a partition's transactions follow one another. Those of different
partitions may go side by side, as they do when two members of the group have them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import structlog
from aiokafka import TopicPartition

from libs.common.database import never_passes, passes_by_itself
from libs.common.messaging.batch import Applied, Batch, FencedError, halved
from libs.common.messaging.brake import TooManyFailuresError
from libs.common.messaging.inbox.positions import Positions
from libs.common.messaging.ordering import Found, Read
from libs.common.pulse import PULSE
from libs.common.telemetry import Counter, Histogram

LANES = 2
TRIES = 2
"""How often a batch that fails is tried whole before it is taken apart; once, if trying again is in vain."""
HALT_SECONDS = 10.0

FENCED = Counter("cartwright_inbox_fenced_total", "Batches given up because another member had moved the offset")
RETRIED = Counter("cartwright_inbox_retried_total", "Batches tried again for what passes by itself")
BATCH_SIZE = Histogram("cartwright_inbox_batch_size", "Messages in one transaction", buckets=(1, 4, 16, 64, 256, 1024))
BATCH_SECONDS = Histogram("cartwright_inbox_batch_seconds", "One transaction of the inbox")

HeldOpen = Callable[[], AbstractContextManager[object]]

log = structlog.get_logger(__name__)


class Lane:
    """One transaction after the other, each on what was put in during the one before."""

    def __init__(self, lanes: "Lanes", batch: Batch, positions: Positions, name: str) -> None:
        self._lanes = lanes
        self._name = name
        self._batch = batch
        self._positions = positions
        self._in_hand: Read = {}
        self._waiting: dict[TopicPartition, list[Found]] = {}
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many records wait for the transaction under way."""
        return sum(map(len, self._waiting.values()))

    @property
    def load(self) -> int:
        """How many records are in here."""
        return self.waiting + sum(map(len, self._in_hand.values()))

    def holds(self, partition: TopicPartition) -> bool:
        """Whether anything of this partition is in here: then what follows belongs here too."""
        return partition in self._in_hand or partition in self._waiting

    def put(self, partition: TopicPartition, run: Iterable[Found]) -> None:
        """Add what follows in this partition."""
        self._waiting.setdefault(partition, []).extend(run)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="inbox-lane")

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget what waits of these: it will be polled again."""
        for partition in partitions:
            self._waiting.pop(partition, None)
        self._lanes.make_room()

    async def _work(self) -> None:
        with self._lanes.held_open():
            while self._waiting:
                self._in_hand, self._waiting = self._waiting, {}
                self._lanes.make_room()
                began = time.perf_counter()
                with PULSE.during(self._name):
                    await self._carry_out(self._in_hand)
                self._in_hand = {}
                await self._lanes.rest(time.perf_counter() - began)

    async def _carry_out(self, read: Read) -> None:
        """Apply what was read, and move on only past what is committed.

        Whatever happens, the partitions go back to where the database says they stand: no error may skip a record.
        """
        try:
            await self._apply(_not_stored_yet(read, self._positions.stored))
        except FencedError as error:
            FENCED.inc()
            log.warning("inbox.fenced", reason=str(error), action="reading the stored positions again")
            await self._go_back(read, 0)
        except TooManyFailuresError as error:
            await self._halt(error, read)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch must not be lost
            await self._back_off(error, read)
        else:
            self._failures = 0

    async def _halt(self, error: TooManyFailuresError, read: Read) -> None:
        """Let one topic stand still for a while, and go on with the others."""
        concerned = {partition: run for partition, run in read.items() if partition.topic == error.topic}
        ours = {partition: run for partition, run in concerned.items() if partition in self._positions.stored}
        log.critical("inbox.halted", reason=str(error), action="fix and deploy; nothing is lost, other topics go on")
        self._lanes.halt(_not_stored_yet(ours, self._positions.stored), str(error))
        await self._go_back(concerned, 0)
        self._positions.rest(concerned, HALT_SECONDS)  # going back would end it
        others = {partition: run for partition, run in read.items() if partition.topic != error.topic}
        if others:
            await self._carry_out(others)

    async def _apply(self, read: Read) -> None:
        """One transaction; what is refused for good is halved until the culprit is alone, which is set aside."""
        if not read:
            return
        started = time.perf_counter()
        try:
            applied = await self._batch.apply(read, self._positions.stored)
        except (FencedError, TooManyFailuresError):
            raise
        except Exception as error:
            if passes_by_itself(error) or (self._failures + 1 < TRIES and not never_passes(error)):
                raise
            halves = halved(read)
            for half in halves:
                await self._apply(half)
            if halves:
                return
            applied = await self._batch.give_up(read, self._positions.stored, error)
        self._positions.moved(applied.offsets)
        self._lanes.committed(applied)
        BATCH_SECONDS.observe(time.perf_counter() - started)
        BATCH_SIZE.observe(len(applied.applied))

    async def _back_off(self, error: Exception, read: Read) -> None:
        self._failures += 1
        RETRIED.inc()
        wait = min(0.05 * 2 ** min(self._failures, 7), 5)
        say = log.warning if passes_by_itself(error) else log.exception
        say("inbox.retrying", error=str(error), in_seconds=wait, action="nothing is lost or parked")
        await self._go_back(read, wait)

    async def _go_back(self, read: Collection[TopicPartition], seconds: float) -> None:
        """Forget what was polled after this, and poll it all again; nothing is polled meanwhile."""
        self._positions.forget(read)
        self.drop(read)
        async with self._lanes.going_back:
            await asyncio.sleep(seconds)
            await self._positions.seek(list(read))


class Lanes:
    """The lanes of one member."""

    def __init__(
        self,
        batch: Batch,
        positions: Positions,
        *,
        count: int,
        room: int,
        committed: Callable[[Applied], None],
        rest: Callable[[float], Awaitable[None]],
        held_open: HeldOpen,
        name: str,
    ) -> None:
        self._positions = positions
        self._halted: dict[TopicPartition, tuple[int, str]] = {}
        """Where a partition stood when it was halted, and why. It stands still until it has come further."""
        self.going_back = asyncio.Lock()
        """Held while a lane finds its way back after a failure."""
        self.committed = committed
        self.rest = rest
        """What follows a transaction that took so many seconds."""
        self.held_open = held_open
        """Entered while a lane is at work, so that nobody ends the process under it."""
        self._room = room
        self._has_room = asyncio.Event()
        self._lanes = [Lane(self, batch, positions, f"lane {number} of {name}") for number in range(count)]

    @property
    def halted(self) -> str | None:
        """Why a topic stands still, if one does."""
        return next((reason for partition, (at, reason) in self._halted.items() if self._is_at(partition, at)), None)

    def halt(self, read: Read, reason: str) -> None:
        """Say that these stand still."""
        self._halted |= {partition: (run[0][0].offset, reason) for partition, run in read.items()}

    def forget_halts(self) -> None:
        """Nothing is known of what has just been assigned."""
        self._halted.clear()

    def _is_at(self, partition: TopicPartition, offset: int) -> bool:
        done = self._positions.done_with(partition, self.holds)
        return done is None or done <= offset

    def put(self, read: Read) -> None:
        """Spread a poll: what follows something in hand goes behind it, and all else together to the emptier lane."""
        emptier = min(self._lanes, key=lambda lane: lane.load)
        for partition, run in read.items():
            next((lane for lane in self._lanes if lane.holds(partition)), emptier).put(partition, run)
        self.make_room()

    def holds(self, partition: TopicPartition) -> bool:
        """Whether anything of this partition is in a lane."""
        return any(lane.holds(partition) for lane in self._lanes)

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what waits of these partitions."""
        for lane in self._lanes:
            lane.drop(partitions)

    async def room(self) -> None:
        """Wait until another poll may be put in."""
        await self._has_room.wait()

    def make_room(self) -> None:
        """Look whether there is room."""
        if sum(lane.waiting for lane in self._lanes) < self._room:
            self._has_room.set()
        else:
            self._has_room.clear()


def _not_stored_yet(read: Read, stored: Mapping[TopicPartition, int]) -> Read:
    """Without what was stored since it was polled: a rebalance may put the consumer back behind a transaction under way."""
    rest: dict[TopicPartition, Sequence[Found]] = {}
    for partition, run in read.items():
        if partition not in stored:
            raise FencedError(f"{partition.topic}[{partition.partition}] has been taken from us")
        if run[0][0].offset < stored[partition]:
            run = [found for found in run if found[0].offset >= stored[partition]]  # noqa: PLW2901 - the rest of it
        if run:
            rest[partition] = run
    return rest
