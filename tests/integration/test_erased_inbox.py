"""What comes out of Kafka for an erased tenant is dropped, whatever it is: no row is made of it, and nobody else is held up."""

from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.shared.places import drop
from tests.shared.toy import SERVICE, TOPIC, Toy
from tests.shared.ward import Ward

WITH_TENANTS = ("tally", "counter", "inbox_parked", "inbox_source", "inbox_source_range", "idempotency_key", "outbox_event")
POISON, TOO_EARLY, UNBELIEVABLE, OVERFLOWING = 101, 102, 103, 104


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Toy]:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("erased"))
    await toy.prepare()
    yield toy
    await drop(admin_url, [toy.prefix + SERVICE])


async def _rows(toy: Toy, tenant_id: UUID) -> dict[str, int]:
    admin = await toy.as_admin()
    counts = {
        table: await admin.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", tenant_id) for table in WITH_TENANTS
    }
    counts["named nowhere"] = await admin.fetchval(
        "SELECT count(*) FROM inbox_parked WHERE position($1 in key) > 0", str(tenant_id).encode()
    )
    await admin.close()
    return counts


async def _unreadable(toy: Toy, tenant_id: UUID) -> None:
    """A record that names the tenant, and that nobody can read."""
    headers = [("ce_tenantid", str(tenant_id).encode()), ("ce_type", b"toy.bumped"), ("ce_id", b"1"), ("ce_source", b"/x")]
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    await producer.start()
    await producer.send_and_wait(toy.prefix + TOPIC, b"{", f"{tenant_id}:{uuid4()}".encode(), partition=0, headers=headers)
    await producer.stop()


async def test_facts_before_during_and_after_leave_no_row_of_an_erased_tenant_and_its_neighbours_are_decided(toy: Toy) -> None:
    ward = Ward(toy, uuid4())
    ward.poisonous, ward.too_early, ward.unbelievable, ward.overflowing = {POISON}, {TOO_EARLY}, {UNBELIEVABLE}, {OVERFLOWING}
    erased, neighbour, kinds = ward.tenant_id, uuid4(), (POISON, TOO_EARLY, UNBELIEVABLE, OVERFLOWING)

    async def decided(tenant_id: UUID, counter_id: UUID) -> bool:
        ward.tenant_id = tenant_id
        return counter_id in await ward.tallies()

    async def passed() -> None:
        """What came before is decided once what comes after it is."""
        ward.tenant_id, last = neighbour, uuid4()
        await ward.send((last, 1))
        await ward.until(lambda: decided(neighbour, last))

    async def everything() -> None:
        ward.tenant_id = erased
        await ward.send((uuid4(), 1), *((uuid4(), kind) for kind in kinds), (uuid4(), 2))
        await _unreadable(toy, erased)
        await passed()

    async with ward.open():
        await everything()
        before = await _rows(toy, erased)
        assert (before["tally"], before["inbox_parked"]) == (2, 5), "each of them makes rows while it lives"
        admin = await toy.as_admin()
        await admin.execute("INSERT INTO erasure (tenant_id) VALUES ($1)", erased)
        await everything()
        assert await _rows(toy, erased) == before, "sealed"
        for table in WITH_TENANTS:
            await admin.execute(f"DELETE FROM {table} WHERE tenant_id = $1", erased)
        await admin.execute("UPDATE erasure SET row_count = 2, sha256 = '', erased_at = now()")
        await admin.close()
        await everything()
        await passed()
    assert set((await _rows(toy, erased)).values()) == {0}
