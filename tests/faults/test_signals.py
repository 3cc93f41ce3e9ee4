"""What a process tells of itself is so when something is wrong: that is when somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from libs.common.messaging.inbox.member import LAG
from libs.common.messaging.relay.backlog import UNTOLD_SECONDS, Backlog
from libs.common.processes.running import DatabaseReady
from tests.faults.outbox import Writer, connected, until
from tests.shared.feeding import applied, bump, partitions, producer_at, send, toy_at
from tests.shared.toy import Toy

WAITING = 40


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Toy]:
    async with toy_at(admin_url, bootstrap_servers, fresh_prefix("signals")) as toy:
        yield toy


@asynccontextmanager
async def _locked(toy: Toy, table: str) -> AsyncIterator[None]:
    """Nobody reads or writes it meanwhile."""
    async with connected(toy, "owner") as owner, owner.transaction():
        await owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def _watched(url: str) -> AsyncIterator[Backlog]:
    """A backlog as a process sees it that publishes nothing itself."""
    backlog = Backlog(url)
    watching = asyncio.create_task(backlog.watch())
    try:
        yield backlog
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_lag_is_what_is_not_committed_and_not_what_was_not_polled_and_nothing_once_it_is_anothers(toy: Toy) -> None:
    tenant, counter, place = uuid4(), uuid4(), partitions(toy)[0]
    async with toy.shell() as shell, toy.member(shell) as inbox, producer_at(toy) as producer:
        reporting = asyncio.create_task(inbox.report())
        await send(producer, place, [bump(tenant, counter)])
        assert await applied(toy, tenant, 1) == 1
        lag = LAG.labels(inbox.group, place.topic, place.partition)

        async def is_behind(records: int) -> bool:
            return int(lag._value.get()) == records

        async with _locked(toy, "tally"):
            await send(producer, place, [bump(tenant, counter) for _ in range(WAITING)])
            await until(lambda: is_behind(WAITING))
        assert await applied(toy, tenant, 1 + WAITING) == 1 + WAITING
        await until(lambda: is_behind(0))

        async def is_told_of(told: bool) -> bool:
            mine = {"group": inbox.group, "topic": place.topic}
            return told == any(mine.items() <= sample.labels.items() for metric in LAG.collect() for sample in metric.samples)

        await until(lambda: is_told_of(True))
        for member in inbox.members:
            member._subscriber.consumer.unsubscribe()  # as after a rebalance: its partitions are another's now
        await until(lambda: is_told_of(False))
        reporting.cancel()


async def test_partitions_that_go_to_another_while_their_logs_are_compared_are_passed_over(toy: Toy) -> None:
    tenant, counter, place = uuid4(), uuid4(), partitions(toy)[0]
    async with toy.shell() as shell, toy.member(shell) as inbox, producer_at(toy) as producer:
        await send(producer, place, [bump(tenant, counter)])
        assert await applied(toy, tenant, 1) == 1
        [reading] = [member for member in inbox.members if place in member._positions.stored]
        consumer = reading._subscriber.consumer
        asked = consumer.logs

        async def logs(topics: Any) -> Any:
            found = await asked(topics)
            consumer.unsubscribe()
            return found

        consumer.logs = logs
        assert await reading._positions.changed() == []


async def test_the_age_of_what_is_not_published_is_so_on_a_standby_and_grows_where_nobody_can_tell(toy: Toy) -> None:
    async def is_zero(backlog: Backlog) -> bool:
        return backlog.age() == 0

    async def is_beyond(backlog: Backlog, seconds: float) -> bool:
        return backlog.age() > seconds

    wrong = f"postgresql://nobody:wrong@{toy.url('relay').rpartition('@')[2]}"
    async with connected(toy, "app") as app, _watched(toy.url("relay")) as standby, _watched(wrong) as kept_out:
        await Writer(app).write((uuid4(), "a"))
        await until(lambda: is_beyond(standby, 1))
        async with toy.relay("one"):
            await until(lambda: is_zero(standby))
        async with _locked(toy, "outbox_cursor"):
            await until(lambda: is_beyond(standby, UNTOLD_SECONDS))
        await until(lambda: is_zero(standby))
        assert kept_out.age() > UNTOLD_SECONDS


async def test_a_database_that_was_never_migrated_or_is_away_is_not_ready(toy: Toy) -> None:
    async def missing(url: str) -> Any:
        ready = DatabaseReady(url, "toy")
        try:
            return await ready()
        finally:
            ready.close()

    assert await missing(toy.url("app")) == "database: it was never migrated; run ./cartwright migrate"
    async with connected(toy, "owner") as owner:
        await owner.execute("CREATE TABLE alembic_version (version_num text)")
    assert await missing(toy.url("app")) is None
    assert str(await missing("postgresql://nobody@127.0.0.1:1/nothing")).startswith("database: ")
    ready = DatabaseReady(toy.url("app"), "toy")
    assert await ready() is None
    admin = await toy.as_admin()
    killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'toy-ready'"
    assert await admin.fetchval(killed) == 1
    await admin.close()
    await ready()  # which may have heard of it already, or hears of it now
    assert await ready() is None, "it connects anew"
    ready.close()
