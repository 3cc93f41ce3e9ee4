"""The kernel under fire: real processes that are killed, stopped and resumed while a broker dies and partitions turn.

Whatever happens, once it is over everything that was committed has been applied, once, and in the order of its key. The
short form takes a minute; `--long` plays at least 100,000 events and 100 kills.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.infrastructure import PORTS
from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.ports import choose_ports
from deploy.local.state import Home
from tests.faults.chaos.stage import CURSOR_GATE, Key, Stage, Troupe
from tests.shared.toy import seeded

ZOMBIE_SECONDS = 12
"""Longer than the session of a member of the group."""
STOPPED_RELAY_SECONDS = 3
"""Longer than the lease of these relays."""
SLOT_SECONDS = 2
RELAYS = ("twin", "twin", "standby")
"""Twins take each other's lease for their own, so both publish at once; only the compare-and-set stands between them."""


@dataclass(frozen=True, slots=True)
class Form:
    """How much chaos."""

    events: int
    kills: int
    largest: int
    """Commands in the largest transaction."""
    pause_seconds: float
    """At most, between two faults."""
    heal_seconds: float


SHORT = Form(events=5_000, kills=10, largest=20, pause_seconds=0.4, heal_seconds=60)
LONG = Form(events=100_000, kills=100, largest=60, pause_seconds=2, heal_seconds=180)


@dataclass(slots=True)
class Chaos:
    """Everything that can happen to the actors and their broker."""

    stage: Stage
    troupe: Troupe
    kafka: EmbeddedKafka
    chance: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    stopped: set[int] = field(default_factory=set)

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.happened.items() if what.endswith("killed"))

    async def relay_killed_between_send_and_cursor(self) -> None:
        """It has sent a chunk and is about to say so: its session is held at the gate, and cut with it."""
        async with self.stage.closed(CURSOR_GATE) as gate:
            with suppress(TimeoutError):
                waiter = await gate.waiter(2)
                relay = self.troupe.whose(waiter)
                if relay is not None:
                    part = await self.troupe.kill(relay)
                    await gate.cut(waiter)
                    await self.troupe.enter(**part)
                    self.happened["relay with an unsaved chunk killed"] += 1

    async def relay_killed(self) -> None:
        await self._killed("relay")

    async def consumer_killed(self) -> None:
        await self._killed("consume")

    async def writer_killed(self) -> None:
        await self._killed("write", seed=self.chance.getrandbits(32))

    async def relay_stopped_past_its_lease(self) -> None:
        await self._stopped("relay", STOPPED_RELAY_SECONDS)

    async def consumer_stopped_past_its_session(self) -> None:
        await self._stopped("consume", ZOMBIE_SECONDS)

    async def member_joins_and_leaves(self) -> None:
        member = await self.troupe.enter("consume")
        await asyncio.sleep(self.chance.uniform(1, 3))
        await self.troupe.leave(member)
        self.happened["member joined and left"] += 1

    async def broker_killed(self) -> None:
        await self.kafka.kill()
        await asyncio.sleep(self.chance.uniform(0, 1))
        await self.kafka.start()
        self.happened["broker killed"] += 1

    async def _killed(self, role: str, **changes: int) -> None:
        part = await self.troupe.kill(self.chance.choice(self._running(role)))
        await asyncio.sleep(self.chance.uniform(0, 0.3))
        await self.troupe.enter(**{**part, **changes})
        self.happened[f"{role} killed"] += 1

    async def _stopped(self, role: str, seconds: float) -> None:
        actor = self.chance.choice(self._running(role))
        self.troupe.stop(actor)
        self.stopped.add(actor)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.troupe.resume(actor)
            self.stopped.discard(actor)
        self.happened[f"{role} stopped and resumed"] += 1

    def _running(self, role: str) -> Sequence[int]:
        return [pid for pid in self.troupe.of(role) if pid not in self.stopped]

    def deck(self) -> list[Callable[[], Awaitable[None]]]:
        """One round of faults, shuffled; the slow ones first, so that they last through the others."""
        quick = [self.relay_killed_between_send_and_cursor] * 5 + [self.relay_killed] * 2 + [self.writer_killed] * 3
        self.chance.shuffle(quick)
        consumers = [self.consumer_killed] * 2 + [self.relay_stopped_past_its_lease, self.member_joins_and_leaves]
        self.chance.shuffle(consumers)
        return [*consumers, *quick[:4], self.broker_killed, *quick[4:]]


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    """A broker to be killed."""
    home = Home(tmp_path / "home")
    home.prepare()
    ports = choose_ports(PORTS, {}, print, spread=True)
    kafka = EmbeddedKafka(home, ports, access="open")
    await kafka.start()
    yield kafka
    await kafka.kill()


@pytest.mark.timeout(3_600)
async def test_what_is_committed_is_applied_once_and_in_order_whoever_dies(
    admin_url: str,
    kafka: EmbeddedKafka,
    fresh_prefix: Callable[[str], str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    form = LONG if request.config.getoption("--long") else SHORT
    chance = seeded(time.time_ns() % 2**32)
    started = time.monotonic()
    stage = Stage(admin_url, kafka.bootstrap_servers, fresh_prefix("chaos"))
    await stage.prepare(slot_seconds=SLOT_SECONDS)
    await stage.build_gates()
    tenants = [uuid4() for _ in range(5)]
    keys = [(chance.choice(tenants), uuid4()) for _ in range(200)]
    async with Troupe.hired(stage, tmp_path / "actors.log") as troupe:
        chaos = Chaos(stage, troupe, kafka, chance)
        await _begin(chaos, keys, form)
        await _play(chaos, form)
        await troupe.leave(*troupe.of("write"))
        healed = time.monotonic()
        reckoning = await stage.settled(keys, patience=form.heal_seconds)
        assert not troupe.deserters(), troupe.last_words()
        left = await stage.value("count(*) FROM outbox_event")
        print(f"\n{reckoning}; {chaos.kills} kills: {dict(chaos.happened)}")
        print(f"{await stage.record_count()} records sent, {left} rows left in the outbox", end="; ")
        print(f"{time.monotonic() - started:.0f} s, of which {time.monotonic() - healed:.0f} s to heal")
        assert reckoning.is_clean, f"{reckoning}\n{troupe.last_words()}"
    assert reckoning.committed >= form.events
    assert chaos.kills >= form.kills
    assert left < reckoning.committed


async def _begin(chaos: Chaos, keys: Sequence[Key], form: Form) -> None:
    for owner in RELAYS:
        await chaos.troupe.enter("relay", owner=owner)
    for _ in range(3):
        await chaos.troupe.enter("consume")
    for _ in range(2):
        await chaos.troupe.enter("write", keys=keys, seed=chaos.chance.getrandbits(32), largest=form.largest)
    await chaos.troupe.enter("duplicate")
    await chaos.stage.until("EXISTS (SELECT FROM tally)")


async def _play(chaos: Chaos, form: Form) -> None:
    while True:
        zombie = asyncio.create_task(chaos.consumer_stopped_past_its_session())
        for fault in chaos.deck():
            await fault()
            await asyncio.sleep(chaos.chance.uniform(0, form.pause_seconds))
        await zombie
        reckoning = await chaos.stage.reckoning()
        print(f"{chaos.kills} kills, {reckoning.committed} committed, {reckoning.applied} applied so far")
        if reckoning.committed >= form.events and chaos.kills >= form.kills:
            return
