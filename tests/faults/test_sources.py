"""One source may have only so much refused; then it is paused for its tenant, nobody else notices, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import structlog
from aiokafka import AIOKafkaProducer

from libs.common.errors import NotFoundError
from tests.shared.acting import by
from tests.shared.toy import TOPIC, Toy
from tests.shared.ward import SOMEBODY_WAITS, Ward

BUDGET = 5
ERP, OTHER = "/erp", "/wms"
BOTH_WAIT = "SELECT count(*) > 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
Bump = tuple[UUID, int]


class Feeds:
    """A consumer, and what sources of several tenants send it."""

    def __init__(self, ward: Ward) -> None:
        self.ward = ward
        self._position = 0
        ward.source_budget = BUDGET

    async def send(
        self, tenant_id: UUID | None, bumps: Sequence[Bump], source: str = ERP, *, positions: Sequence[int] | None = None
    ) -> list[int]:
        """Messages of one tenant in one partition; None: unreadable ones that name nobody. Answers their positions."""
        producer = AIOKafkaProducer(bootstrap_servers=self.ward.toy.settings.kafka_bootstrap_servers)
        await producer.start()
        used = []
        for index, (counter_id, value) in enumerate(bumps):
            self._position += 1
            used.append(positions[index] if positions else self._position)
            headers = {
                "ce_id": str(uuid4()),
                "ce_source": source,
                "ce_type": "toy.bumped",
                "ce_tenantid": str(tenant_id or "nobody"),
                "ce_sequence": str(value + 1),
                "ce_time": "2026-01-01T00:00:00Z",
                "ce_relayposition": f"{source.strip('/')}/1.1.{used[-1]}",
            }
            body, key = f'{{"counter_id":"{counter_id}","value":{value}}}'.encode(), f"{tenant_id}:{counter_id}".encode()
            topic, encoded = self.ward.toy.prefix + TOPIC, [(name, text.encode()) for name, text in headers.items()]
            await producer.send(topic, body, key, partition=0, headers=encoded)
        await producer.stop()
        return used

    async def applied(self, tenant_id: UUID) -> dict[UUID, tuple[int, int, int]]:
        """By counter: how many were applied, the last of them, and how many out of order."""
        connection = await asyncpg.connect(self.ward.toy.url("app"))
        await connection.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant_id}'")
        rows = await connection.fetch("SELECT id, applied, last_sequence, violations FROM tally")
        await connection.close()
        return {row["id"]: (row["applied"], row["last_sequence"], row["violations"]) for row in rows}

    async def until_applied(self, tenant_id: UUID, expected: dict[UUID, tuple[int, int, int]]) -> None:
        try:
            async with asyncio.timeout(120):
                while await self.applied(tenant_id) != expected:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{await self.applied(tenant_id)}, {await self.paused()}, {await self.rows(tenant_id)}")

    async def paused(self) -> list[tuple[str, str | None, str, int]]:
        found = await self.ward.inbox.sources.listing()
        return [(each["state"], each["tenant_id"], each["source"], each["held_back"]) for each in found]

    async def until_paused(self, expected: list[tuple[str, str | None, str, int]]) -> None:
        async with asyncio.timeout(120):
            while await self.paused() != expected:
                await asyncio.sleep(0.05)

    async def rows(self, tenant_id: UUID | None) -> list[dict[str, Any]]:
        found = await self.ward.parked.search(limit=200)
        return [each for each in found if each["tenant_id"] == (str(tenant_id) if tenant_id else None)]

    async def resume(self, tenant_id: UUID | None, *, skip: bool = False) -> None:
        await self.ward.inbox.sources.resume(tenant_id, ERP, actor=by("tester"), reason="it is cured", skip=skip)


@asynccontextmanager
async def _resuming(feeds: Feeds) -> AsyncIterator[None]:
    task = asyncio.create_task(feeds.ward.inbox.sources.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def feeds(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Feeds]:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("feeds"))
    await toy.prepare()
    feeds = Feeds(Ward(toy, uuid4()))
    async with feeds.ward.open(), _resuming(feeds):
        yield feeds


def _rising(counters: Sequence[UUID], values: Sequence[int]) -> list[Bump]:
    return [(counter_id, value) for value in values for counter_id in counters]


async def test_a_source_that_has_too_much_refused_is_paused_alone_and_what_it_sent_meanwhile_is_decided_in_order_later(
    feeds: Feeds,
) -> None:
    ill, well, a, b, c = uuid4(), uuid4(), uuid4(), uuid4(), uuid4()
    feeds.ward.poisonous = {*range(1, 21)}
    with structlog.testing.capture_logs() as logs:
        await feeds.send(ill, _rising([a, b], range(1, 21)))
        await feeds.send(well, _rising([c], range(101, 121)))
        await feeds.send(ill, _rising([c], range(201, 211)), OTHER)
        await feeds.until_applied(well, {c: (20, 120, 0)})
        await feeds.until_applied(ill, {c: (10, 210, 0)})
        await feeds.until_paused([("paused", str(ill), ERP, 40 - BUDGET)])
    assert [each["state"] for each in await feeds.rows(ill)] == ["parked", "parked", "queued", "queued", "queued"]
    assert [each["log_level"] for each in logs if each["event"] == "inbox.source_paused"] == ["critical"]

    feeds.ward.poisonous = set()
    used = await feeds.send(ill, _rising([a, b], [21]))
    await feeds.until_paused([("paused", str(ill), ERP, 42 - BUDGET)])
    for parked in await feeds.rows(ill):
        if parked["state"] == "parked":
            await feeds.ward.parked.replay(parked["id"], actor=by("tester"))
    assert await feeds.rows(ill) == []
    await feeds.send(ill, _rising([a, b], [21]), positions=used)  # as a relay repeats what it had sent
    await feeds.resume(ill)
    await feeds.send(ill, _rising([a, b], [22]))
    await feeds.until_applied(ill, {a: (22, 22, 0), b: (22, 22, 0), c: (10, 210, 0)})
    await feeds.until_paused([])
    await feeds.send(ill, _rising([a, b], [23]))
    await feeds.until_applied(ill, {a: (23, 23, 0), b: (23, 23, 0), c: (10, 210, 0)})


async def test_what_is_not_cured_is_paused_again_and_no_row_more_than_the_budget_is_kept(feeds: Feeds) -> None:
    ill, counters = uuid4(), [uuid4() for _ in range(30)]
    feeds.ward.poisonous = {7}
    for well in (uuid4(), uuid4(), uuid4()):  # else all that are heard of would fail, which is ours to mend
        await feeds.send(well, [(counters[0], 1)])
        await feeds.until_applied(well, {counters[0]: (1, 1, 0)})
    await feeds.send(ill, _rising(counters, [7]))
    await feeds.until_paused([("paused", str(ill), ERP, 30 - BUDGET)])
    for parked in await feeds.rows(ill):
        await feeds.ward.parked.discard(parked["id"], actor=by("tester"), reason="of no use")
    await feeds.resume(ill)
    await feeds.until_paused([("paused", str(ill), ERP, 30 - 2 * BUDGET)])
    assert len(await feeds.rows(ill)) == BUDGET
    await feeds.resume(ill, skip=True)
    await feeds.until_paused([])
    fresh = uuid4()
    await feeds.send(ill, [(fresh, 8)])
    await feeds.until_applied(ill, {fresh: (1, 8, 0)})
    assert len(await feeds.rows(ill)) == BUDGET
    with pytest.raises(NotFoundError):
        await feeds.resume(ill)


async def test_what_names_nobody_counts_for_its_source_and_stops_nobody(feeds: Feeds) -> None:
    well, counter_id = uuid4(), uuid4()
    await feeds.send(None, [(uuid4(), 1) for _ in range(30)])
    await feeds.send(well, _rising([counter_id], range(1, 11)))
    await feeds.until_applied(well, {counter_id: (10, 10, 0)})
    await feeds.until_paused([("paused", None, ERP, 30 - BUDGET)])
    assert [each["state"] for each in await feeds.rows(None)] == ["rejected"] * BUDGET
    await feeds.resume(None, skip=True)
    await feeds.until_paused([])


async def test_what_the_database_refuses_counts_too(feeds: Feeds) -> None:
    ill, well, counter_id = uuid4(), uuid4(), uuid4()
    feeds.ward.overflowing = {9}
    await feeds.send(ill, [(uuid4(), 9) for _ in range(2 * BUDGET)])
    await feeds.send(well, [(counter_id, 1)])
    await feeds.until_applied(well, {counter_id: (1, 1, 0)})
    await feeds.until_paused([("paused", str(ill), ERP, BUDGET)])
    feeds.ward.overflowing = set()
    await feeds.resume(ill)
    async with asyncio.timeout(120):
        while len(await feeds.applied(ill)) < BUDGET:
            await asyncio.sleep(0.05)
    assert len(await feeds.rows(ill)) == BUDGET
    await feeds.until_paused([])


async def test_a_tenant_that_is_not_here_yet_is_waited_for_however_much_is_sent_of_it(feeds: Feeds) -> None:
    early, well, counters = uuid4(), uuid4(), [uuid4() for _ in range(3 * BUDGET)]
    feeds.ward.too_early = {1}
    await feeds.send(early, _rising(counters, [1, 2]))
    await feeds.send(well, [(counters[0], 3)])
    await feeds.until_applied(well, {counters[0]: (1, 3, 0)})
    assert await feeds.paused() == []
    feeds.ward.too_early = set()
    await feeds.ward.inbox.waiting.look()
    await feeds.until_applied(early, dict.fromkeys(counters, (2, 2, 0)))


async def test_what_is_held_back_at_the_moment_a_source_has_caught_up_is_decided_too(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]
) -> None:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("caught"))
    await toy.prepare()
    async with Ward(toy, uuid4()).open() as ward:
        place = ward.inbox.group, ward.tenant_id, ERP
        consumer = await toy.as_admin()
        await consumer.execute("INSERT INTO inbox_source VALUES ($1, $2, $3, 'resuming', 'it is cured', 'tester')", *place)
        async with consumer.transaction():
            await consumer.execute("SELECT FROM inbox_source FOR SHARE")
            looking = asyncio.create_task(ward.inbox.sources.look())
            await ward.until(lambda: consumer.fetchval(SOMEBODY_WAITS))
            await consumer.execute(
                "INSERT INTO inbox_source_range VALUES ($1, $2, $3, $4, 0, 7, 9, 3, '{}')", *place, toy.prefix + TOPIC
            )
        await looking
        assert await consumer.fetchval("SELECT state FROM inbox_source") == "resuming", "what lies there is still to be decided"
        await consumer.close()


async def test_what_was_read_beyond_what_was_held_back_and_is_then_held_back_too_is_not_passed_over(feeds: Feeds) -> None:
    tenant, counter_id, position = uuid4(), uuid4(), "SELECT FROM inbox_position FOR UPDATE"
    await feeds.send(tenant, [(counter_id, 1)])
    await feeds.until_applied(tenant, {counter_id: (1, 1, 0)})
    await feeds.ward.inbox.sources.pause(tenant, ERP, actor=by("tester"), reason="their prices are wrong")
    await feeds.send(tenant, _rising([counter_id], range(2, 30)))
    await feeds.until_paused([("paused", str(tenant), ERP, 28)])
    nobody = await feeds.ward.toy.as_admin()
    async with nobody.transaction():
        await nobody.execute(position)
        await feeds.send(tenant, _rising([counter_id], range(30, 60)))
        await feeds.ward.until(lambda: nobody.fetchval(SOMEBODY_WAITS))  # the consumer is the first to go on
        await feeds.resume(tenant)
        await feeds.ward.until(lambda: nobody.fetchval(BOTH_WAIT))  # and who catches up has read all there is
    await nobody.close()
    await feeds.until_applied(tenant, {counter_id: (59, 59, 0)})


async def test_a_source_paused_by_hand_holds_back_what_comes_until_it_is_resumed(feeds: Feeds) -> None:
    tenant, counter_id = uuid4(), uuid4()
    await feeds.send(tenant, [(counter_id, 1)])
    await feeds.until_applied(tenant, {counter_id: (1, 1, 0)})
    await feeds.ward.inbox.sources.pause(tenant, ERP, actor=by("tester"), reason="their prices are wrong")
    await feeds.send(tenant, _rising([counter_id], range(2, 300)))
    await feeds.until_paused([("paused", str(tenant), ERP, 298)])
    assert await feeds.applied(tenant) == {counter_id: (1, 1, 0)}
    await feeds.resume(tenant)
    await feeds.send(tenant, _rising([counter_id], range(300, 400)))
    await feeds.until_applied(tenant, {counter_id: (399, 399, 0)})
    await feeds.until_paused([])
    actions = [each["action"] for each in await feeds.ward.parked.actions(limit=10)]
    assert actions == ["source.resume", "source.pause"]
