"""A stack whose service processes notice their steps, and what is done to them."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest

from deploy.local.services import HttpProcess
from deploy.local.stack import Stack
from deploy.local.state import ROOT
from tests.faults.crash.points import FOLDER, PROCESS, STRUCK, Step, order

STARTUP = Path(__file__).parent / "startup"
QUIET_SECONDS = 0.4
LEASES = {
    "outbox_cursor": "UPDATE outbox_cursor SET lease_until = clock_timestamp()",
    "timer": "UPDATE timer SET free_at = due_at WHERE free_at > now() AND due_at <= now()",
    "operation": "UPDATE operation SET due_at = now() WHERE due_at > now()",
    "webhook_event": "UPDATE webhook_event SET due_at = now() WHERE due_at > now()",
    "refund": "UPDATE refund SET look_at = now() WHERE look_at > now()",
}
"""What a process holds until a time, by its table, and how that time comes at once."""


@dataclass(frozen=True, order=True, slots=True)
class Point:
    """A place to die: a step of a process."""

    process: str
    step: Step

    def __str__(self) -> str:
        kind, moment, name, number = self.step
        return f"{self.process} {moment} {kind} {number} of {name}"


class WatchedStack(Stack):
    """A stack like any other, but for what Python loads first in its service processes."""

    async def _describe_services(self) -> None:
        await super()._describe_services()
        self.steps = self.home.path / "steps"
        self.steps.mkdir(exist_ok=True)
        for name in self._service_names():
            environment = self.child(name).environment
            environment |= {FOLDER: str(self.steps), PROCESS: name, "PYTHONPATH": f"{STARTUP}:{ROOT}"}

    def child(self, name: str) -> Any:
        """The process of this name."""
        part = self._parts[name]
        assert isinstance(part, HttpProcess)
        return part._child

    @property
    def service_names(self) -> Sequence[str]:
        return self._service_names()


class Stage:
    """Gives the orders to the processes of a stack, reads what they noted, and raises the dead."""

    def __init__(self, stack: WatchedStack, admin_url: str) -> None:
        self.stack = stack
        self.run = 0
        self.background: frozenset[tuple[str, str]] = frozenset()
        """What happens also while nobody asks for anything, by process and name."""
        self._admin_url = admin_url
        self._noted: list[Point] = []
        self._struck = False
        self._is_reviving = False
        self._read: dict[str, int] = {}

    def begin(self, fatal: Point | None = None) -> None:
        """Begin a run, in which a process may have to die."""
        self.run += 1
        self._noted, self._struck = [], False
        order(self.stack.steps, self.run, fatal.process if fatal else None, fatal.step if fatal else None)

    def noted(self) -> list[Point]:
        """The steps of the run under way."""
        self._read_on()
        return list(self._noted)

    def struck(self) -> bool:
        """Whether the process has died of the order of this run."""
        self._read_on()
        return self._struck

    def _read_on(self) -> None:
        """What was written since the last time; a line that is not all there yet is left for the next."""
        for file in sorted(self.stack.steps.glob("*.steps")):
            with file.open("rb") as steps:
                steps.seek(self._read.get(file.stem, 0))
                lines, _, _ = steps.read().rpartition(b"\n")
            self._read[file.stem] = self._read.get(file.stem, 0) + len(lines) + bool(lines)
            for run, kind, *rest in map(json.loads, lines.splitlines()):
                if run == self.run and kind == STRUCK:
                    self._struck = True
                elif run == self.run and (file.stem, rest[1]) not in self.background:
                    self._noted.append(Point(file.stem, (kind, *rest)))

    async def learn_background(self, seconds: float) -> None:
        """Note what happens while nobody asks for anything."""
        await self.quiet()
        self.begin()
        await asyncio.sleep(seconds)
        self.background = frozenset((point.process, point.step[2]) for point in self.noted())

    async def quiet(self) -> None:
        """Wait until everybody lives and nothing happens any more."""
        count, since = -1, 0.0
        loop = asyncio.get_running_loop()
        while count != (now := len(self.noted())) or loop.time() - since < QUIET_SECONDS or self._dead() or self._is_reviving:
            if count != now:
                count, since = now, loop.time()
            await asyncio.sleep(0.05)

    async def revive(self) -> None:
        """Start whoever died, as soon as nothing is theirs any more: nobody has to wait for leases to end."""
        while True:
            if dead := self._dead():
                self._is_reviving = True
                for name in dead:
                    await self._time_passes(name)
                    await self.stack.start_process(name)
                self._is_reviving = False
            await asyncio.sleep(0.05)

    def _dead(self) -> list[str]:
        return [name for name in self.stack.service_names if self.stack.child(name).pid is None]

    async def _time_passes(self, name: str) -> None:
        """As if all that a dead process held had run out: leases, and its places in consumer groups."""
        service, _, kind = name.partition(".")
        if kind == "worker":
            await asyncio.gather(self._leases_end(service), self._sessions_end(service))

    async def _leases_end(self, service: str) -> None:
        database, _ = self.stack._prefixes
        admin = await asyncpg.connect(f"{self._admin_url.rpartition('/')[0]}/{database}{service}")
        try:
            tables = {row["table_name"] for row in await admin.fetch("SELECT table_name FROM information_schema.tables")}
            looks = await admin.fetch("SELECT table_name FROM information_schema.columns WHERE column_name = 'look_at'")
            for table in tables & LEASES.keys():
                if table != "refund" or "refund" in {row["table_name"] for row in looks}:
                    await admin.execute(LEASES[table])
        finally:
            await admin.close()

    async def _sessions_end(self, service: str) -> None:
        description = self.stack.description()
        admin = AIOKafkaAdminClient(bootstrap_servers=description.kafka_bootstrap_servers)
        await admin.start()
        try:
            own = description.topic_prefix + service
            groups = [name for name, _ in await admin.list_consumer_groups() if name == own or name.startswith(f"{own}.")]
            for name in groups:
                # One at a time: of several, aiokafka reads the broker's answer wrongly.
                [response] = await admin.describe_consumer_groups([name])
                coordinator = await admin.find_coordinator(name)
                for member in response.groups[0][5]:
                    await admin._send_request(LeaveGroupRequest(name, member[0]), coordinator)
        finally:
            await admin.close()


def common(recordings: Sequence[Sequence[Point]]) -> list[Point]:
    """The steps of every recording: what a background job happened to do meanwhile is in one and not in the next."""
    return [point for point in dict.fromkeys(recordings[0]) if all(point in recording for recording in recordings[1:])]


def sample(points: Sequence[Point], chance: random.Random, count: int) -> list[Point]:
    """So many of them, spread over processes, kinds and moments: of each combination one first, chosen by chance."""
    shuffled = chance.sample(points, len(points))
    nth: Counter[tuple[str, str, str]] = Counter()
    ranks = []
    for point in shuffled:
        nth[point.process, *point.step[:2]] += 1
        ranks.append(nth[point.process, *point.step[:2]])
    return [point for _, point in sorted(zip(ranks, shuffled, strict=True), key=lambda each: each[0])][:count]
