"""A cluster is backed up and put back, by itself: any second of it, sealed, and never half."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from deploy.backup.errors import BackupError
from deploy.backup.keeping import Keeper, Wanted
from deploy.backup.restoring import planned, replaced_ones, restore
from deploy.backup.store import Store, base_file, segment_file
from deploy.local.ports import spare_port
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.replicated import SERVERS, ReplicatedPostgres
from deploy.local.state import Home
from libs.common.sealing import MasterKey, MasterKeys

REPLICATOR = "replicator"
WANTED = Wanted(every=timedelta(hours=1), keep=timedelta(days=1), look_seconds=0.2)
KEYS, OTHER_KEYS = (MasterKeys(MasterKey(bytes([number]) * 32)) for number in (1, 2))


class Cluster:
    """A server of its own, with its backups."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.home.prepare()
        self.store = Store(folder / "backups", KEYS)
        self.server = EmbeddedPostgres(self.home, spare_port())
        self.said: list[str] = []

    def keeper(self) -> Keeper:
        """By a role that may replicate and watch, and nothing else."""
        url = self.server.admin_url
        login = f"{REPLICATOR}:{self.home.secret('postgres-admin')}"
        return Keeper(self.store, self.home, lambda: f"postgresql://{login}@{url.rpartition('@')[2]}", WANTED, self.said.append)

    async def start(self) -> None:
        await self.server.start()
        connection = await asyncpg.connect(self.server.admin_url)
        try:
            password = self.home.secret("postgres-admin")
            await connection.execute(f"CREATE ROLE {REPLICATOR} LOGIN REPLICATION IN ROLE pg_monitor PASSWORD '{password}'")
        finally:
            await connection.close()

    async def write(self, note: str) -> datetime:
        """Commit a row; answers a moment after that, and before the next."""
        connection = await asyncpg.connect(self.server.admin_url)
        try:
            await connection.execute("CREATE TABLE IF NOT EXISTS note (it text)")
            await connection.execute("INSERT INTO note VALUES ($1)", note)
            at: datetime = await connection.fetchval("SELECT clock_timestamp()")
        finally:
            await connection.close()
        await asyncio.sleep(0.01)
        return at

    async def new_segment(self) -> None:
        """Have the log go on in another file."""
        connection = await asyncpg.connect(self.server.admin_url)
        try:
            await connection.fetchval("SELECT pg_switch_wal()")
        finally:
            await connection.close()

    async def notes(self) -> list[str]:
        connection = await asyncpg.connect(self.server.admin_url)
        try:
            return [row["it"] for row in await connection.fetch("SELECT it FROM note ORDER BY it")]
        finally:
            await connection.close()

    async def restored(self, to: datetime | None) -> list[str]:
        """What there is after it was put back."""
        await self.server.stop()
        await restore(self.store, self.home, planned(self.store, to), self.said.append)
        await self.server.start()
        return await self.notes()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    await cluster.start()
    yield cluster
    await cluster.server.stop()


@asynccontextmanager
async def _kept(cluster: Cluster) -> AsyncIterator[Callable[[datetime], Awaitable[None]]]:
    """Keep backups meanwhile; gives what waits until all of a moment is stored."""
    leave = asyncio.Event()
    keeping = asyncio.create_task(cluster.keeper().run(leave))
    begun = len(cluster.store.bases())

    async def until(at: datetime) -> None:
        async with asyncio.timeout(120):
            while not keeping.done():
                bases = cluster.store.bases()
                if len(bases) > begun and (cluster.store.reached(bases[-1].series) or at) > max(at, bases[-1].ended_at):
                    return
                await asyncio.sleep(0.05)
        await keeping

    try:
        yield until
    finally:
        leave.set()
        await keeping


async def test_any_moment_comes_back_and_what_cannot_come_back_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    store = cluster.store
    early = await cluster.write("0")
    async with _kept(cluster) as until:
        await until(early)
        first = await cluster.write("1")
        await cluster.new_segment()
        await cluster.write("2")
        await cluster.new_segment()
        last = await cluster.write("3")
        await until(last)
    [base] = store.bases()
    assert {file.stat().st_mode & 0o77 for file in store.folder.rglob("*")} == {0}, "nobody else reads or lists them"

    for to, why in ((early, "before the oldest"), (last + timedelta(days=1), "reaches until")):
        with pytest.raises(BackupError, match=why):
            planned(store, to)
    with pytest.raises(BackupError, match="does not open"):
        planned(Store(store.folder, OTHER_KEYS), first)
    for segment in store.segments(base.series):
        file = store.folder / segment_file(base.series, segment)
        file.rename(file.with_name("hidden"))
        with pytest.raises(BackupError, match=f"gap: .*{segment.partition('.')[0]} is missing"):
            planned(store, None)
        file.with_name("hidden").rename(file)

    archive = store.folder / base_file(base)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupError, match="damaged"):
        await cluster.restored(first)
    archive.write_bytes(whole)
    await cluster.server.start()
    assert (await cluster.notes(), replaced_ones(cluster.home)) == (["0", "1", "2", "3"], []), "it goes on as if nobody had asked"

    password = cluster.home.secret("postgres-admin")
    cluster.home.replace_secret("postgres-admin", "another")
    with pytest.raises(BackupError, match="of another server"):
        await cluster.restored(first)
    cluster.home.replace_secret("postgres-admin", password)

    assert await cluster.restored(first) == ["0", "1"]
    assert len(replaced_ones(cluster.home)) == 1, "what it took the place of is still there"

    await cluster.server.stop()
    await restore(store, cluster.home, planned(store, None), cluster.said.append, tmp_path / "elsewhere")
    assert len(replaced_ones(cluster.home)) == 1
    cluster.server = EmbeddedPostgres(cluster.home, spare_port(), data=tmp_path / "elsewhere")
    await cluster.server.start()
    assert await cluster.notes() == ["0", "1", "2", "3"], "for a server that is run elsewhere"


@pytest.mark.long("three histories of one cluster: half a minute; the second begins in the drill too")
async def test_a_restored_cluster_is_backed_up_as_a_history_of_its_own(cluster: Cluster) -> None:
    early = await cluster.write("0")
    async with _kept(cluster) as until:
        await until(early)
        first = await cluster.write("1")
        await until(await cluster.write("lost"))
    assert await cluster.restored(first) == ["0", "1"]
    async with _kept(cluster) as until:
        await until(await cluster.write("2"))
    assert len(cluster.store.all_series()) == 2
    assert await cluster.restored(None) == ["0", "1", "2"], "the last moment is the last of the newest history"
    assert await cluster.restored(first) == ["0", "1"], "and a moment of the first is still there"
    async with _kept(cluster) as until:
        await until(await cluster.write("3"))
    assert len(cluster.store.all_series()) == 3, "of two histories none is taken for the other"
    assert await cluster.restored(None) == ["0", "1", "3"]


@pytest.mark.long("two servers, of which one takes over from the other: half a minute")
async def test_a_pair_is_backed_up_wherever_it_is_written_to_and_no_commit_waits_for_the_backup(tmp_path: Path) -> None:
    home, store, said = Home(tmp_path / "home"), Store(tmp_path / "backups", KEYS), list[str]()
    home.prepare()
    pair = ReplicatedPostgres(home, {name: spare_port() for name in SERVERS}, say=said.append)

    async def write(note: str) -> datetime:
        connection = await asyncpg.connect(pair.admin_url)
        try:
            await connection.execute("CREATE TABLE IF NOT EXISTS note (it text)")
            await connection.execute("INSERT INTO note VALUES ($1)", note)
            [waited_for] = await connection.fetch(
                "SELECT application_name AS it FROM pg_stat_replication WHERE sync_state = 'sync'"
            )
            assert waited_for["it"] in SERVERS
            at: datetime = await connection.fetchval("SELECT clock_timestamp()")
            return at
        finally:
            await connection.close()

    def keeper() -> Keeper:
        return Keeper(store, home, lambda: pair.admin_url, WANTED, said.append)

    await pair.start()
    try:
        await write("1")
        leave = asyncio.Event()
        keeping = asyncio.create_task(keeper().run(leave))
        async with asyncio.timeout(120):
            while not store.bases():
                await asyncio.sleep(0.1)
            await write("2")
            leave.set()
            await keeping
        await pair.kill()
        await pair.take_over()
        await pair.start()
        await write("3")
        await keeper().take()
    finally:
        await pair.stop()
    assert len(store.all_series()) == 2

    await restore(store, home, planned(store, None), said.append)
    alone = EmbeddedPostgres(home, spare_port())
    await alone.start()
    connection = await asyncpg.connect(alone.admin_url)
    try:
        async with asyncio.timeout(60):
            await connection.execute("INSERT INTO note VALUES ('4')")
        assert [row["it"] for row in await connection.fetch("SELECT it FROM note ORDER BY it")] == ["1", "2", "3", "4"]
    finally:
        await connection.close()
        await alone.stop()
    assert not (home.path / SERVERS[1]).exists(), "whoever stood beside it is made anew"
