"""Where the chaos is played: the toy service with gates in its database, its actors, and the one who counts at the end."""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.state import ROOT
from libs.common.messaging.shell import Shell
from tests.shared.toy import PARTITIONS, SERVICE, TOPIC, Toy, command

CURSOR_GATE, TALLY_GATE = 1, 2

GATES = f"""
CREATE FUNCTION stop_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
    RETURN NEW;
END $$;
CREATE TRIGGER gate BEFORE UPDATE ON outbox_cursor FOR EACH ROW
    WHEN (OLD.hi IS NOT NULL AND (NEW.hi IS NULL OR NEW.win <> OLD.win OR NEW.last_n <> OLD.last_n))
    EXECUTE FUNCTION stop_at_gate({CURSOR_GATE});
CREATE TRIGGER gate BEFORE INSERT OR UPDATE ON tally FOR EACH ROW EXECUTE FUNCTION stop_at_gate({TALLY_GATE});
"""
"""What a relay does between sending and moving its cursor, or a consumer between its fence and its effects, waits there."""

WAITING = """SELECT a.pid, a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.objid = $1 AND NOT l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

COUNT = """SELECT coalesce(sum(c.value), 0)::bigint AS committed, coalesce(sum(t.applied), 0)::bigint AS applied,
    coalesce(sum(greatest(coalesce(c.value, 0) - coalesce(t.applied, 0), 0)), 0)::bigint AS lost,
    coalesce(sum(greatest(coalesce(t.applied, 0) - coalesce(c.value, 0), 0)), 0)::bigint AS surplus,
    coalesce(sum(t.violations), 0)::bigint AS violations,
    count(*) FILTER (WHERE coalesce(t.last_sequence, 0) < c.sequence) AS keys_behind,
    (SELECT count(*) FROM inbox_parked WHERE state IN ('rejected', 'parked', 'queued'))
        + (SELECT count(*) FROM outbox_parked) AS set_aside
FROM counter c FULL JOIN tally t USING (tenant_id, id)"""

Key = tuple[UUID, UUID]
"""A tenant and one of its counters."""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What the writers committed, and what the consumers made of it."""

    committed: int
    applied: int
    lost: int
    surplus: int
    """Effects of what nobody committed, or of what had been applied before."""
    violations: int
    """Messages that did not follow the last one of their key."""
    keys_behind: int
    set_aside: int

    @property
    def is_clean(self) -> bool:
        return self.committed == self.applied and not (
            self.lost or self.surplus or self.violations or self.keys_behind or self.set_aside
        )

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(self).items())


@dataclass(frozen=True, slots=True)
class Waiter:
    """A database session that waits at a gate, and the port of the process it belongs to."""

    session: int
    port: int


class Gate:
    """A place that nobody passes for now."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> None:
        self._connection, self._number = connection, number

    async def waiter(self, seconds: float = 90) -> Waiter:
        """Whoever comes first. Raises TimeoutError when nobody does."""
        async with asyncio.timeout(seconds):
            while (row := await self._connection.fetchrow(WAITING, self._number)) is None:
                await asyncio.sleep(0.01)
        return Waiter(row["pid"], row["client_port"])

    async def cut(self, waiter: Waiter) -> None:
        """End that session as if its process had died before it sent the statement."""
        await self._connection.execute("SELECT pg_terminate_backend($1)", waiter.session)
        while await self._connection.fetchval("SELECT true FROM pg_stat_activity WHERE pid = $1", waiter.session):
            await asyncio.sleep(0.01)


class Stage(Toy):
    """The toy service, its gates, and the count."""

    async def build_gates(self) -> None:
        owner = await asyncpg.connect(self.url("owner"))
        await owner.execute(GATES)
        await owner.close()

    @asynccontextmanager
    async def administrator(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A superuser's session in the toy's database: the one who counts sees everything."""
        server = urlsplit(self.admin_url)
        path = f"/{self.prefix}{SERVICE}"
        connection = await asyncpg.connect(urlunsplit((server.scheme, server.netloc, path, server.query, "")))
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def closed(self, gate: int) -> AsyncIterator[Gate]:
        """Nobody passes this gate inside the context."""
        async with self.administrator() as connection:
            await connection.execute("SELECT pg_advisory_lock($1)", gate)
            yield Gate(connection, gate)  # the lock ends with the connection

    async def reckoning(self) -> Reckoning:
        async with self.administrator() as connection:
            return Reckoning(**await connection.fetchrow(COUNT))

    async def settled(self, keys: Sequence[Key], *, patience: float, within: float = math.inf) -> Reckoning:
        """Bump every key once more, so that what is missing before that is lost, not late; then wait for those bumps.

        For as long as it goes on, however slowly: whether it stands still is asked here, not how fast the machine is.
        """
        async with self.shell() as shell:
            await self.bump(shell, *keys)
        reckoning = await self.reckoning()
        moved_at = started = time.monotonic()
        while reckoning.keys_behind and time.monotonic() < min(started + within, moved_at + patience):
            await asyncio.sleep(0.1)
            before, reckoning = reckoning, await self.reckoning()
            moved_at = time.monotonic() if reckoning != before else moved_at
        return reckoning

    async def bump(self, shell: Shell, *keys: Key) -> None:
        """In one transaction."""
        await shell.execute_many([command(*key) for key in keys])

    async def until(self, condition: str, seconds: float = 90) -> None:
        """Wait until this is true in the database."""
        async with self.administrator() as connection, asyncio.timeout(seconds):
            while not await connection.fetchval(f"SELECT {condition}"):
                await asyncio.sleep(0.02)

    async def value(self, sql: str) -> Any:
        async with self.administrator() as connection:
            return await connection.fetchval(f"SELECT {sql}")

    async def record_count(self) -> int:
        """Everything that was ever sent, with all that was sent again."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka_bootstrap_servers)
        await consumer.start()
        try:
            partitions = [TopicPartition(self.prefix + TOPIC, part) for part in range(PARTITIONS)]
            return sum((await consumer.end_offsets(partitions)).values())
        finally:
            await consumer.stop()


class Troupe:
    """The actors of one stage, and the nursery they come from."""

    def __init__(self, stage: Stage, log: Path) -> None:
        self._stage, self._log = stage, log
        self._nursery: asyncio.subprocess.Process
        self.on_stage: dict[int, dict[str, Any]] = {}
        """Process id and part of those who should be alive."""

    @classmethod
    @asynccontextmanager
    async def hired(cls, stage: Stage, log: Path, *module: str) -> AsyncIterator["Troupe"]:
        """Actors of this module; all are gone when the context ends."""
        troupe = cls(stage, log)
        pipe = asyncio.subprocess.PIPE
        with log.open("ab") as output:
            troupe._nursery = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *(module or ("tests.faults.chaos.actors",))),
                stdin=pipe,
                stdout=pipe,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
            )
        try:
            yield troupe
        finally:
            if troupe._nursery.stdin:
                troupe._nursery.stdin.close()
            await troupe._nursery.wait()

    async def enter(self, role: str, **part: Any) -> int:
        """Send one on stage; answers its process id."""
        stage = self._stage
        address = {"admin_url": stage.admin_url, "bootstrap_servers": stage.settings.kafka_bootstrap_servers}
        cue = {"role": role, **address, "prefix": stage.prefix, **part}
        if self._nursery.stdin is None or self._nursery.stdout is None:
            raise RuntimeError("the nursery has no pipes")
        self._nursery.stdin.write(json.dumps(cue, default=str).encode() + b"\n")
        answer = await self._nursery.stdout.readline()
        if not answer:
            raise RuntimeError(f"the nursery is gone:\n{self.last_words()}")
        self.on_stage[int(answer)] = {"role": role, **part}
        return int(answer)

    async def finished(self, pid: int, seconds: float = 90) -> None:
        """Wait until one has left by itself."""
        async with asyncio.timeout(seconds):
            while _is_alive(pid):
                await asyncio.sleep(0.02)
        self.on_stage.pop(pid, None)

    def of(self, role: str) -> list[int]:
        return [pid for pid, part in self.on_stage.items() if part["role"] == role]

    async def kill(self, pid: int) -> dict[str, Any]:
        """As by kill -9; answers the part it played."""
        part = self.on_stage.pop(pid)
        os.kill(pid, signal.SIGKILL)
        while _is_alive(pid):
            await asyncio.sleep(0.005)
        return part

    async def leave(self, *pids: int) -> None:
        """Ask them to finish what they are at."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in pids:
            await self.finished(pid)

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def resume(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def whose(self, waiter: Waiter) -> int | None:
        """The actor that a waiting session belongs to, if it is still there."""
        for pid in self.on_stage:
            with suppress(psutil.NoSuchProcess):
                if waiter.port in [found.laddr.port for found in psutil.Process(pid).net_connections("tcp")]:
                    return pid
        return None

    def deserters(self) -> list[dict[str, Any]]:
        """The parts of those who are gone though nobody ended them."""
        return [part for pid, part in self.on_stage.items() if not _is_alive(pid)]

    def last_words(self, lines: int = 40) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


Scenario = Callable[[Stage, Troupe], Awaitable[Sequence[Key]]]
"""Plays a few faults; answers the keys that were written to."""
