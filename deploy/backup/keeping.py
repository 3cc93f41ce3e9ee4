"""Keeping backups of a server: its log as it is written, and a base backup now and then.

`pg_receivewal` fetches the log into a folder beside the database, by a replication slot, so that nothing is missing when this
process was away. Every few seconds what there is of it is sealed and stored, the segment that is still being written too.
"""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.backup.errors import BackupError
from deploy.backup.sealed import file_pieces
from deploy.backup.segments import PARTIAL, Base, is_segment, run_from
from deploy.backup.server import SLOT, Position, client, is_received, keep_log, position
from deploy.backup.store import Store, base_file
from deploy.local.processes import Child
from deploy.local.state import Home, appending

if TYPE_CHECKING:
    import asyncpg

LOOK_SECONDS: Final = 10.0
"""So often what was written is stored: what a lost server takes with it is little more than that, well within a minute."""
BEHIND: Final = timedelta(seconds=60)
_RECEIVE_SECONDS: Final = 10.0
_LOG_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.2
_BEFORE_ALL: Final = datetime.fromtimestamp(0, UTC)
_UNFLUSHED: Final = timedelta(seconds=1)
"""A commit bears a time, and a moment later it is on the disk."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be kept."""

    every: timedelta
    """Between one base backup and the next."""
    keep: timedelta
    """So far back every moment can be gone back to."""
    look_seconds: float = LOOK_SECONDS


class Keeper:
    """Keeps backups of one server in a store. `find` tells where its administrator connects, while there is a server."""

    def __init__(
        self, store: Store, home: Home, find: Callable[[], str | None], wanted: Wanted, say: Callable[[str], None]
    ) -> None:
        """Touch nothing yet."""
        self._store, self._home, self._find, self._wanted, self._say = store, home, find, wanted, say
        self._series = self._url = self._told = ""
        self._reached = _BEFORE_ALL
        self._receiver: Child | None = None
        self._base: asyncio.Task[None] | None = None
        self._copying: subprocess.Popen[bytes] | None = None
        self._stored: dict[str, int] = {}
        """Of the files that are still written to, when they were changed last."""

    async def run(self, leave: asyncio.Event) -> None:
        """Keep backups until told to leave. A server that is away is waited for."""
        with self._store.hold():
            try:
                while not leave.is_set():
                    await self._look_or_say_why_not()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(leave.wait(), self._wanted.look_seconds)
                await self._look_or_say_why_not(bases=False)
            finally:
                await self._end()

    async def take(self) -> Base:
        """Take one base backup now, with the log up to its end, and what was not fetched before. Raises BackupError."""
        import asyncpg

        with self._store.hold():
            try:
                return await self._take_one()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                raise BackupError(f"no backup was taken: {str(error) or type(error).__name__}") from error
            finally:
                await self._end()

    async def _take_one(self) -> Base:
        before = self._store.bases()
        await self._look(bases=False)
        await self._take_base()
        [base] = [each for each in self._store.bases() if each not in before]
        async with asyncio.timeout(_LOG_SECONDS):
            while self._reached < base.ended_at:
                await asyncio.sleep(_POLL_SECONDS)
                await self._look(bases=False)
        return base

    async def _look_or_say_why_not(self, *, bases: bool = True) -> None:
        import asyncpg

        try:
            await self._look(bases=bases)
        except (BackupError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            self._say_once(f"nothing is stored at the moment: {str(error) or type(error).__name__}; it is tried again")

    async def _look(self, *, bases: bool = True) -> None:
        """See where the log stands, have it here up to there, and store it."""
        import asyncpg

        url = self._find()
        if url is None:
            raise BackupError("no stack is running: ./cartwright up")
        connection = await asyncpg.connect(url, timeout=10)
        try:
            where = await position(connection)
            if (where.series, url) != (self._series, self._url) or not where.is_kept:
                await self._begin(connection, where, url)
            await self._receive(url)
            is_here = await self._is_here(connection, where.flushed)
        finally:
            await connection.close()
        await asyncio.to_thread(self._store_log)
        if is_here:
            self._reached = max(self._reached, where.at - _UNFLUSHED)
            self._store.note_reached(self._series, self._reached, where.segment)
            self._told = ""
        elif where.at - self._reached > BEHIND:
            self._say_once(f"what is stored is behind: it reaches until {self._reached:%F %T} UTC; see {self._log}")
        if bases and self._is_due(where):
            self._base = asyncio.create_task(self._base_or_say_why_not())

    async def _begin(self, connection: "asyncpg.Connection", where: Position, url: str) -> None:
        """Follow a history that was not followed up to now."""
        await self._end()
        if where.series != self._series:
            self._reached = self._store.reached(where.series) or _BEFORE_ALL
        self._series, self._url = where.series, url
        for other in self._spools.glob("*") if self._spools.is_dir() else ():
            if other != self._spool:
                shutil.rmtree(other)
        self._spools.mkdir(mode=0o700, exist_ok=True)
        self._spool.mkdir(mode=0o700, exist_ok=True)
        if not where.is_kept:
            shutil.rmtree(self._spool)
            self._spool.mkdir(mode=0o700)
            await keep_log(connection, where)

    async def _receive(self, url: str) -> None:
        """Have the log fetched as it is written."""
        if self._receiver is None or self._receiver.pid is None:
            options = (f"--directory={self._spool}", f"--slot={SLOT}", "--status-interval=1")
            command, environment = client("pg_receivewal", url, *options)
            self._receiver = Child("backup", command, environment=environment, log=self._log, stop_signal=signal.SIGINT)
            await self._receiver.start()

    async def _is_here(self, connection: "asyncpg.Connection", lsn: str) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECEIVE_SECONDS):
                while not await is_received(connection, lsn):  # noqa: ASYNC110 - the server calls nobody for that
                    await asyncio.sleep(_POLL_SECONDS)
                return True
        return False

    def _store_log(self) -> None:
        """Store what was fetched, in its order. Which names there are changes meanwhile."""
        is_whole = False
        while not is_whole:
            is_whole = True
            for file in sorted(each for each in self._spool.iterdir() if is_segment(each.name)):
                is_whole = self._store_segment(file) and is_whole

    def _store_segment(self, file: Path) -> bool:
        """False when it has another name by now. It bears until when what was stored before it reaches."""
        try:
            with file.open("rb") as source:
                changed = file.stat().st_mtime_ns
                if self._stored.get(file.name) != changed:
                    self._store.put_segment(self._series, file, file_pieces(source), self._reached)
        except FileNotFoundError:
            return False
        if file.name.endswith(PARTIAL):
            self._stored = {file.name: changed}
        else:
            file.unlink()
        return True

    def _is_due(self, where: Position) -> bool:
        """Whether it is time for a base backup, or the log behind the last one has a gap."""
        if self._base is not None and not self._base.done():
            return False
        last = max((base for base in self._store.bases() if base.series == self._series), default=None)
        if last is None or where.at - last.ended_at >= self._wanted.every:
            return True
        behind = [name for name in self._store.segments(self._series) if name >= last.first_segment]
        return len(behind) != len([*run_from(last.first_segment, behind, last.segment_bytes)])

    async def _base_or_say_why_not(self) -> None:
        import asyncpg

        try:
            await self._take_base()
        except (BackupError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            self._say(f"no base backup was taken: {error}; it is tried again")

    async def _take_base(self) -> None:
        """Copy the whole cluster, and let go of what is not needed any more."""
        before = await self._where()
        base = Base(
            ended_at=before.at,
            series=before.series,
            name=f"{before.at:%Y%m%dT%H%M%SZ}",
            first_segment=before.segment,
            segment_bytes=before.segment_bytes,
            server_version=before.server_version,
        )
        options = ("--pgdata=-", "--format=tar", "--wal-method=none", "--checkpoint=fast")
        size = await asyncio.to_thread(self._copy, base, *client("pg_basebackup", self._url, *options))
        after = await self._where()
        self._store.note_base(replace(base, ended_at=after.at))
        self._say(f"a base backup is stored: {size >> 20} MiB in {(after.at - before.at).total_seconds():.1f} s")
        for gone in self._store.prune(after.at, self._wanted.keep):
            self._say(f"the base backup of {gone.ended_at:%F %T} UTC is deleted")

    async def _where(self) -> Position:
        import asyncpg

        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            return await position(connection)
        finally:
            await connection.close()

    def _copy(self, base: Base, command: Sequence[str], environment: Mapping[str, str]) -> int:
        with (
            appending(self._log) as log,
            subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as copying,
        ):
            self._copying = copying
            try:
                return self._store.vault.seal(base_file(base), _to_its_end(copying, self._log), base.ended_at)
            finally:
                copying.kill()
                self._copying = None

    async def _end(self) -> None:
        if self._copying:
            self._copying.kill()
        if self._base:
            await self._base
        if self._receiver:
            await self._receiver.stop()
        self._receiver, self._base, self._stored = None, None, {}

    def _say_once(self, message: str) -> None:
        """What stays as it is, is not said every few seconds."""
        if message != self._told:
            self._say(message)
        self._told = message

    @property
    def _log(self) -> Path:
        return self._home.log("backup")

    @property
    def _spools(self) -> Path:
        return self._home.path / "backup"

    @property
    def _spool(self) -> Path:
        return self._spools / self._series


def _to_its_end(copying: subprocess.Popen[bytes], log: Path) -> Iterator[bytes]:
    """What a program gives, if it was all."""
    assert copying.stdout
    yield from file_pieces(copying.stdout)
    if copying.wait():
        lines = log.read_text(errors="replace").splitlines()
        raise BackupError(f"pg_basebackup: {lines[-1] if lines else f'exit code {copying.returncode}'}")
