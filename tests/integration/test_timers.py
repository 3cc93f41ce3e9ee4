"""Timers on a real database: each fires, when it is due and not before, to one effect, whoever dies on the way."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.common.clock import now
from libs.common.database import write
from libs.common.decision import Viewer
from libs.common.messaging import outgoing, timers
from libs.common.messaging.shell import Shell
from libs.common.messaging.timers import fire_due
from services.checkout.handlers import CancelCheckout, StartCheckout
from services.checkout.jobs.clockwork import COMMANDS
from tests.shared.callers import message, onboard, shell_of
from tests.shared.places import Place, Places

MANY = 60


@pytest.fixture
def place(empty: Places) -> Place:
    return empty("checkout")


@pytest.fixture
async def shell(place: Place) -> AsyncIterator[Shell]:
    async with shell_of(place) as shell:
        yield shell


@pytest.fixture
async def admin(place: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await place.as_admin()
    yield connection
    await connection.close()


async def _start(shell: Shell, tenant_id: UUID, ttl_seconds: int = 0) -> UUID:
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=uuid4(),
        subject_id=uuid4(),
        method="m",
        email=None,
        body_digest="",
        ttl_seconds=ttl_seconds,
    )
    await shell.execute(message(command, tenant_id))
    return command.checkout_id


async def _events(admin: asyncpg.Connection, kind: bytes) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM outbox_event WHERE position($1::bytea in headers) > 0", kind)
    return count


async def test_each_of_many_timers_fires_once_though_several_workers_look_at_them_at_once(
    shell: Shell, admin: asyncpg.Connection
) -> None:
    tenants = [await onboard(shell) for _ in range(3)]
    for number in range(MANY):
        await _start(shell, tenants[number % 3])
    fired = await asyncio.gather(*(fire_due(shell, COMMANDS) for _ in range(6)))
    while any(fired):
        fired = await asyncio.gather(*(fire_due(shell, COMMANDS) for _ in range(2)))
    assert await _events(admin, b"checkout.expired") == MANY
    assert await admin.fetchval("SELECT count(*) FROM timer") == 0
    assert await admin.fetchval("SELECT count(*) FROM checkout WHERE state = 'expired'") == MANY


async def test_a_timer_is_kept_with_the_state_that_needs_it_and_does_not_fire_before_its_time(
    shell: Shell, admin: asyncpg.Connection
) -> None:
    tenant_id = await onboard(shell)
    checkout_id = await _start(shell, tenant_id, ttl_seconds=600)
    assert await fire_due(shell, COMMANDS) == 0
    rows = await admin.fetch("SELECT t.key, t.due_at = c.expires_at AS fits FROM timer t JOIN checkout c ON c.id = t.key")
    assert [(row["key"], row["fits"]) for row in rows] == [(checkout_id, True)]


async def test_a_timer_whose_worker_died_is_left_alone_for_its_lease_and_then_fires(
    shell: Shell, admin: asyncpg.Connection
) -> None:
    tenant_id = await onboard(shell)
    await _start(shell, tenant_id)
    due = await admin.fetchrow("SELECT tenant_id, name, key, due_at FROM timer")
    assert due is not None
    async with shell.database.transaction([tenant_id]) as connection:
        claimed = await connection.fetch(timers.CLAIM, *([value] for value in due), timers.LEASE)
    assert len(claimed) == 1
    assert await fire_due(shell, COMMANDS) == 0, "it is in somebody's hands"
    await admin.execute("UPDATE timer SET free_at = now()")  # the lease has ended
    assert await fire_due(shell, COMMANDS) == 1
    assert await _events(admin, b"checkout.expired") == 1


async def test_a_worker_that_died_between_acting_and_saying_so_makes_it_fire_again_to_no_effect(
    shell: Shell, admin: asyncpg.Connection
) -> None:
    tenant_id = await onboard(shell)
    await _start(shell, tenant_id)
    due = await admin.fetchrow("SELECT * FROM timer")
    assert due is not None
    assert await fire_due(shell, COMMANDS) == 1
    before = await admin.fetchrow("SELECT * FROM checkout")
    await admin.execute("INSERT INTO timer VALUES ($1, $2, $3, $4, $5)", *due.values())
    assert await fire_due(shell, COMMANDS) == 1
    assert await admin.fetchrow("SELECT * FROM checkout") == before
    assert await _events(admin, b"checkout.expired") == 1
    assert await admin.fetchval("SELECT count(*) FROM timer") == 0


async def test_a_command_that_fails_leaves_its_timer_for_later_and_holds_no_other_up(
    shell: Shell, admin: asyncpg.Connection
) -> None:
    tenant_id = await onboard(shell)
    bad, good = await _start(shell, tenant_id), await _start(shell, tenant_id)
    stranger = Viewer(subject_id=uuid4(), sees_all=False)

    def command(timer: timers.Timer) -> Any:
        if timer.key == bad:
            return CancelCheckout(checkout_id=timer.key, caller=stranger)
        return COMMANDS["checkout"](timer)

    assert await fire_due(shell, {"checkout": command}) == 2
    left = await admin.fetch("SELECT key, free_at > now() AS later FROM timer")
    assert [(row["key"], row["later"]) for row in left] == [(bad, True)]
    assert await admin.fetchval("SELECT state FROM checkout WHERE id = $1", good) == "expired"


async def test_what_was_set_anew_meanwhile_stays_set_and_nobody_forgets_another_tenants_timers(
    shell: Shell, admin: asyncpg.Connection
) -> None:
    tenant_id, stranger = await onboard(shell), await onboard(shell)
    checkout_id = await _start(shell, tenant_id)
    due_at = await admin.fetchval("SELECT due_at FROM timer")
    key = ([tenant_id], ["checkout"], [checkout_id])
    for tenants, moment in (([stranger], due_at), ([tenant_id], due_at - timedelta(seconds=1))):
        async with shell.database.transaction(tenants) as connection:
            await connection.execute(timers.FORGET, *key, [moment])
    assert await admin.fetchval("SELECT count(*) FROM timer") == 1
    async with shell.database.transaction([tenant_id]) as connection:
        await write(connection, [outgoing.timers({(tenant_id, "checkout", checkout_id): now() + timedelta(hours=1)})])
        await connection.execute(timers.FORGET, *key, [due_at])
    assert await admin.fetchval("SELECT due_at > now() FROM timer")
