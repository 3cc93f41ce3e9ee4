"""The shell on a real database: many commands in one transaction, each for itself, and whom a service knows."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.decision import Viewer
from libs.common.errors import NotFoundError
from libs.common.messaging.shell import Failure, Shell
from services.cart.handlers import AddQuantity, CreateCart, Written
from services.cart.repository import CARTS
from tests.shared.callers import message, onboard, sell, shell_of
from tests.shared.places import Places

SHOPPER = uuid4()
CALLER = Viewer(subject_id=SHOPPER, sees_all=False)


@pytest.fixture
async def shell(shared: Places) -> AsyncIterator[Shell]:
    async with shell_of(shared("cart")) as shell:
        yield shell


async def _carts(shell: Shell, tenant_id: UUID) -> dict[UUID, int]:
    """How many of the first thing are in each."""
    async with shell.database.transaction([tenant_id]) as connection:
        rows = await connection.fetch("SELECT * FROM cart WHERE tenant_id = $1", tenant_id)
    return {cart.id: sum(line.quantity for line in cart.lines) for cart in map(CARTS.decode, rows)}


async def test_of_many_commands_each_is_carried_out_after_those_before_it_and_one_that_fails_changes_nothing(
    shell: Shell,
) -> None:
    tenant_id, cart_id = await onboard(shell), uuid4()
    await sell(shell, tenant_id, "tea", 250)

    def add(cart: UUID) -> Any:
        return message(AddQuantity(cart_id=cart, caller=CALLER, sku="tea", quantity=2), tenant_id)

    made = message(CreateCart(cart_id=cart_id, caller=CALLER, currency=None), tenant_id)
    answers = await shell.execute_many([made, add(cart_id), add(uuid4()), add(cart_id)])
    assert [type(answer) for answer in answers] == [tuple, Written, Failure, Written]
    assert isinstance(answers[2].error, NotFoundError)
    assert await _carts(shell, tenant_id) == {cart_id: 4}
    with pytest.raises(NotFoundError):
        await shell.execute(add(uuid4()))
    assert [type(answer) for answer in await shell.execute_each([add(uuid4()), add(cart_id)])] == [Failure, Written]
    assert await _carts(shell, tenant_id) == {cart_id: 6}


async def test_one_batch_is_of_many_tenants_and_each_has_what_is_its_own(shell: Shell) -> None:
    tenants = [await onboard(shell) for _ in range(3)]
    ids = [uuid4() for _ in tenants]
    commands = [
        message(CreateCart(cart_id=cart_id, caller=CALLER, currency=None), tenant_id)
        for tenant_id, cart_id in zip(tenants, ids, strict=True)
    ]
    await shell.execute_many(commands)
    assert [await _carts(shell, tenant_id) for tenant_id in tenants] == [{cart_id: 0} for cart_id in ids]


async def test_a_service_says_of_tenants_which_it_does_not_know(shell: Shell) -> None:
    known, stranger = await onboard(shell), uuid4()
    async with shell.database.transaction([known, stranger]) as connection:
        assert await shell.unknown(connection, [known, stranger]) == {stranger}
        assert await shell.unknown(connection, [known]) == set()
        assert await shell.unknown(connection, []) == set()


async def test_a_command_of_its_own_accord_names_its_service_and_one_of_somebodys_names_them(shell: Shell) -> None:
    own, theirs = shell.command("what", SHOPPER), shell.command("what", SHOPPER, id="m", actor="somebody", correlation_id="c")
    assert (own.actor, own.source, own.correlation_id) == ("/cartwright/cart", "/cartwright/cart", "")
    assert own.id != shell.command("what", SHOPPER).id
    assert (theirs.id, theirs.actor, theirs.correlation_id, theirs.tenant_id) == ("m", "somebody", "c", SHOPPER)
