"""Who takes up what: an operation or a notice is one worker's at a time, nobody waits for it, and a late word changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from libs.common.clock import now
from libs.common.messaging.shell import Shell
from libs.common.processes.parts import Worker
from libs.common.telemetry import REGISTRY
from services.payments.domain.provider.operation import Operation
from services.payments.domain.provider.webhook import Notice, Result, Subject, TakenNotice
from services.payments.jobs.provider.webhooks import WAITING, settle_webhooks
from services.payments.repository.provider.operations import OPERATIONS, claim_operations, give_back_operations
from services.payments.repository.provider.webhooks import Settled, settle_notices, store, take_notices
from tests.shared.callers import message, onboard, shell_of
from tests.shared.events import payment_requested
from tests.shared.places import Place, Places

LEASE = timedelta(seconds=30)
SOON = 2.0
"""Seconds within which it is answered who does not wait."""


@pytest.fixture
def place(shared: Places) -> Place:
    return shared("payments")


@pytest.fixture
async def shell(place: Place) -> AsyncIterator[Shell]:
    async with shell_of(place) as shell:
        yield shell


class Operations:
    """One tenant's operations, as a worker has them."""

    def __init__(self, shell: Shell, tenant_id: UUID) -> None:
        self.shell, self.tenant_id = shell, tenant_id

    async def known(self) -> Operation:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            [row] = await connection.fetch("SELECT * FROM operation WHERE tenant_id = $1", self.tenant_id)
        return OPERATIONS.decode(row)

    async def change(self, assignments: str) -> Operation:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            await connection.execute(f"UPDATE operation SET {assignments} WHERE tenant_id = $1", self.tenant_id)
        return await self.known()

    async def claim(self, *own: Operation, due: bool = False) -> list[Operation]:
        keys = [(self.tenant_id, (await self.known()).id)] if due else []
        async with self.shell.database.transaction([self.tenant_id]) as connection, asyncio.timeout(SOON):
            return [*await claim_operations(connection, keys, own, LEASE)]

    async def give_back(self, *operations: Operation) -> Operation:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            await give_back_operations(connection, operations)
        return await self.known()


@pytest.fixture
async def operations(shell: Shell) -> Operations:
    tenant_id = await onboard(shell)
    await shell.execute(message(payment_requested(), tenant_id))
    return Operations(shell, tenant_id)


async def test_what_is_due_is_taken_up_once_for_as_long_as_a_lease(operations: Operations) -> None:
    planned = await operations.known()
    assert (planned.tries, await operations.claim(due=True)) == (1, []), "whoever planned it has it"
    await operations.change("due_at = now() - interval '1 millisecond'")
    begun = now()
    [claimed] = await operations.claim(due=True)
    assert (claimed.id, claimed.tries, claimed.version) == (planned.id, 2, planned.version + 1)
    assert claimed.due_at is not None
    assert begun <= claimed.due_at - LEASE <= now()
    assert await operations.known() == claimed
    assert await operations.claim(due=True) == []


async def test_who_has_it_takes_it_up_again_and_nobody_does_on_a_word_that_is_out_of_date(operations: Operations) -> None:
    planned = await operations.known()
    [again] = await operations.claim(planned)
    assert again.tries == 2
    assert await operations.claim(planned) == [], "somebody has taken it up since"
    assert (await operations.known()) == again
    over = await operations.change("state = 'succeeded', outcome = '{}', due_at = NULL")
    assert await operations.claim(over, due=True) == []


async def test_nobody_waits_for_one_that_is_in_other_hands_just_now(operations: Operations, place: Place) -> None:
    planned = await operations.change("due_at = now()")
    other = await asyncpg.connect(place.url("app"))
    await other.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{operations.tenant_id}'")
    await other.execute("SELECT FROM operation WHERE tenant_id = $1 FOR UPDATE", operations.tenant_id)
    try:
        assert await operations.claim(planned, due=True) == []
    finally:
        await other.close()
    [claimed] = await operations.claim(due=True)
    assert claimed.tries == 2


async def test_what_is_given_back_is_anybodys_at_once_unless_somebody_has_it_or_it_is_due_already(operations: Operations) -> None:
    planned = await operations.known()
    [claimed] = await operations.claim(planned)
    assert await operations.give_back(planned) == claimed, "it is not theirs any more"
    given = await operations.give_back(claimed)
    assert (given.tries, given.version) == (claimed.tries, claimed.version + 1)
    assert given.due_at is not None
    assert given.due_at <= now()
    assert await operations.give_back(given) == given
    [taken] = await operations.claim(due=True)
    assert taken.tries == claimed.tries + 1


async def test_one_tenants_operations_are_claimed_by_their_own_keys_alone(operations: Operations, shell: Shell) -> None:
    await operations.change("due_at = now()")
    stranger = await onboard(shell)
    await shell.execute(message(payment_requested(), stranger))
    theirs = Operations(shell, stranger)
    await theirs.change("due_at = now()")
    assert len(await operations.claim(due=True)) == 1
    assert (await theirs.known()).tries == 1


# Notices.


def notice(key: str, subject: Subject = Subject.INTENT) -> Notice:
    facts: dict[str, Any] = {"type": "payment_intent.succeeded", "object_id": "pi_1", "intent_id": "pi_1", "payment_id": None}
    about: dict[str, Any] = {"status": "succeeded", "amount_minor": 5, "livemode": False, "account": None, "occurred_at": now()}
    return Notice(id=key, subject=subject, **facts, **about)


async def test_a_notice_is_stored_once_taken_up_once_and_settled_by_whoever_took_it_up_last(shell: Shell, place: Place) -> None:
    tenant_id = await onboard(shell)

    async def take() -> list[TakenNotice]:
        async with shell.database.transaction([tenant_id]) as connection, asyncio.timeout(SOON):
            return [*await take_notices(connection, [(tenant_id, "evt_1"), (tenant_id, "evt_2")])]

    async def settle(*settled: Settled) -> None:
        async with shell.database.transaction([tenant_id]) as connection:
            await settle_notices(connection, settled)

    async with shell.database.transaction([tenant_id]) as connection:
        stored = [await store(connection, tenant_id, notice(key)) for key in ("evt_1", "evt_1")]
        assert [*stored, await store(connection, tenant_id, notice("evt_2", Subject.OTHER))] == [True, False, True]
    [first] = await take()
    assert (first.id, first.tries, first.amount_minor) == ("evt_1", 1, 5)
    other = await asyncpg.connect(place.url("app"))
    await other.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant_id}'")
    await other.execute("SELECT FROM webhook_event WHERE tenant_id = $1 FOR UPDATE", tenant_id)
    assert await take() == [], "nobody waits for one that is in other hands"
    await other.close()
    await settle(Settled(first, wait=timedelta(hours=1)))
    assert await take() == [], "it has a lease"
    await settle(Settled(first, wait=timedelta(0)))
    [second] = await take()
    await settle(Settled(second, wait=timedelta(0)))
    await settle(Settled(first, Result.OF_NO_INTEREST))
    [third] = await take()
    assert third.tries == 3, "the first one's word came too late"
    await settle(Settled(third, Result.OF_NO_INTEREST))
    await settle(Settled(third, wait=timedelta(0)))
    assert await take() == [], "what is over is not taken up again"


async def test_a_worker_that_settles_also_shows_what_waits(shell: Shell) -> None:
    tenant_id = await onboard(shell)
    async with shell.database.transaction([tenant_id]) as connection:
        await store(connection, tenant_id, notice("evt_1"))
        await connection.execute("UPDATE webhook_event SET due_at = now() + interval '1 hour' WHERE tenant_id = $1", tenant_id)
    WAITING.set(0)
    worker = SimpleNamespace(shell=shell, shared=lambda _kind: SimpleNamespace(gateways=None))
    settling = asyncio.create_task(settle_webhooks(cast("Worker", worker)))
    try:
        async with asyncio.timeout(120):
            while (REGISTRY.get_sample_value("cartwright_webhooks_waiting") or 0) < 1:
                await asyncio.sleep(0.05)
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
