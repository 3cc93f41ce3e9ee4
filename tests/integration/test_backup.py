"""A cluster is backed up and put back, by itself: any second of it, sealed, and never half."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from deploy.backup.errors import BackupError
from deploy.backup.keeping import Keeper, Wanted
from deploy.backup.restoring import planned, replaced_ones, restore
from deploy.backup.store import Store, segment_file
from deploy.local.ports import spare_port
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.state import Home
from libs.common.sealing import MasterKey, MasterKeys

WANTED = Wanted(every=timedelta(hours=1), keep=timedelta(days=1))
SECRET = "4000-0000-0000-0002 of Ms Buyer"
KEYS = MasterKeys(MasterKey(bytes(range(32))))


class Cluster:
    """A server of its own, with its backups."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.home.prepare()
        self.store = Store(folder / "backups", KEYS)
        self.port = spare_port()
        self.server = EmbeddedPostgres(self.home, self.port)
        self.said: list[str] = []

    async def backed_up(self) -> None:
        await Keeper(self.store, self.home, lambda: self.server.admin_url, WANTED, self.said.append).take()

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
    await cluster.server.start()
    yield cluster
    await cluster.server.stop()


async def test_every_moment_since_the_backup_comes_back_and_nothing_of_it_can_be_read_without_the_key(cluster: Cluster) -> None:
    early = await cluster.write("0")
    await cluster.write(SECRET)
    await cluster.backed_up()
    first = await cluster.write("1")
    await cluster.write("2")
    keeping, leave = Keeper(cluster.store, cluster.home, lambda: cluster.server.admin_url, WANTED, cluster.said.append), asyncio.Event()
    running = asyncio.create_task(keeping.run(leave))
    await cluster.write("3")
    leave.set()
    await running
    assert cluster.said
    assert await cluster.restored(None) == ["0", "1", "2", "3", SECRET]
