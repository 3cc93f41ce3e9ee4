"""Many at once: no update is lost, nothing is sold twice, numbers have no gaps."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.cart import CartFrozen
from libs.common.contracts.payments import PaymentDeclined
from libs.common.decision import Viewer
from libs.common.messaging.shell import Failure, Shell
from services.cart.handlers import AddQuantity, CreateCart
from services.checkout.domain.saga import Checkout
from services.checkout.handlers import StartCheckout
from tests.shared.callers import count, message, onboard, sell, shell_of
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized
from tests.shared.places import Places

MANY = 50


@pytest.fixture
async def checkout(shared: Places) -> AsyncIterator[Shell]:
    async with shell_of(shared("checkout")) as shell:
        yield shell


async def test_concurrent_commands_on_one_cart_lose_no_update(shared: Places) -> None:
    caller = Viewer(subject_id=uuid4(), sees_all=False)
    cart_id = uuid4()
    async with shell_of(shared("cart")) as shell:
        tenant_id = await onboard(shell)
        await sell(shell, tenant_id, "tea", 250)
        # The cart itself is made by all at once, too.
        made = await asyncio.gather(
            *(shell.execute(message(CreateCart(cart_id=cart_id, caller=caller, currency=None), tenant_id)) for _ in range(MANY))
        )
        assert sum(is_new for _, is_new in made) == 1
        add = AddQuantity(cart_id=cart_id, caller=caller, sku="tea", quantity=1)
        written = await asyncio.gather(*(shell.execute(message(add, tenant_id)) for _ in range(MANY)))
    carts = [each.cart for each in written]
    assert sorted(cart.lines[0].quantity for cart in carts) == list(range(1, MANY + 1))
    assert sorted(cart.version for cart in carts) == list(range(2, MANY + 2))


def _start(cart_id: UUID, subject_id: UUID, body: str = "body") -> StartCheckout:
    return StartCheckout(
        checkout_id=uuid4(),
        cart_id=cart_id,
        subject_id=subject_id,
        method="pm_card_visa",
        email=None,
        body_digest=body,
        ttl_seconds=900,
    )


def _frozen(checkout: Checkout, **lines: int) -> CartFrozen:
    """The cart's answer: these SKUs, at 100 each."""
    return cart_frozen_for(checkout, *(frozen_line(sku, quantity, 100) for sku, quantity in lines.items()))


async def _fetch(shell: Shell, tenant_id: UUID, query: str) -> list[tuple[Any, ...]]:
    async with shell.database.transaction([tenant_id]) as connection:
        return [tuple(row) for row in await connection.fetch(query)]


STOCK = "SELECT sku, on_hand, reserved, sold FROM stock ORDER BY sku"


async def test_a_cart_bought_many_times_at_once_has_one_checkout(checkout: Shell) -> None:
    tenant_id, cart_id, subject_id = await onboard(checkout), uuid4(), uuid4()
    started = await asyncio.gather(
        *(checkout.execute(message(_start(cart_id, subject_id), tenant_id)) for _ in range(MANY)),
        *(checkout.execute(message(_start(cart_id, uuid4()), tenant_id)) for _ in range(5)),
    )
    assert len({each.id for each in started[:MANY]}) == 1
    assert len({each.id for each in started}) == 6, "another subject's claim is another claim"
    requested = await _fetch(checkout, tenant_id, "SELECT state FROM checkout")
    assert requested == [("started",)] * 6


async def test_the_last_unit_is_sold_once_and_what_fails_holds_nothing(checkout: Shell) -> None:
    tenant_id = await onboard(checkout)
    await count(checkout, tenant_id, "last", 1)
    await count(checkout, tenant_id, "plenty", 1_000)
    starts = [message(_start(uuid4(), uuid4()), tenant_id) for _ in range(MANY)]
    started: list[Checkout] = list(await asyncio.gather(*map(checkout.execute, starts)))
    # Each wants both, half of them named the other way round: no deadlock, all or nothing.
    wanted = [{"last": 1, "plenty": 2}, {"plenty": 2, "last": 1}]
    await asyncio.gather(
        *(checkout.execute(message(_frozen(each, **wanted[n % 2]), tenant_id)) for n, each in enumerate(started))
    )
    assert await _fetch(checkout, tenant_id, STOCK) == [("last", 0, 1, 0), ("plenty", 998, 2, 0)]
    outcomes = await _fetch(checkout, tenant_id, "SELECT state, reason, count(*) FROM checkout GROUP BY 1, 2 ORDER BY 1")
    assert outcomes == [("failed", "out-of-stock", MANY - 1), ("paying", None, 1)]


async def test_orders_confirmed_at_once_and_twice_are_one_each_with_numbers_without_a_gap(checkout: Shell) -> None:
    tenant_id, units = await onboard(checkout), 30
    await count(checkout, tenant_id, "unit", units)
    starts = [message(_start(uuid4(), uuid4()), tenant_id) for _ in range(MANY)]
    started: list[Checkout] = list(await asyncio.gather(*map(checkout.execute, starts)))
    await asyncio.gather(*(checkout.execute(message(_frozen(each, unit=1), tenant_id)) for each in started))
    answers: list[Any] = []
    for number, each in enumerate(started):
        if number % 5:
            answers.append(payment_authorized(each, amount_minor=100))
        else:
            answers.append(PaymentDeclined(payment_id=each.payment_id, checkout_id=each.id, code="card_declined"))
    # As batches, as workers apply them, several at a time and everything twice.
    batches = [[message(answer, tenant_id) for answer in answers[start::7]] for start in range(7)] * 2
    for applied in await asyncio.gather(*map(checkout.execute_many, batches)):
        assert not any(isinstance(answer, Failure) for answer in applied)
    orders = await _fetch(checkout, tenant_id, "SELECT number, checkout_id FROM customer_order ORDER BY number")
    confirmed = await _fetch(checkout, tenant_id, "SELECT id FROM checkout WHERE state = 'confirmed'")
    assert [number for number, _ in orders] == list(range(1, len(orders) + 1))
    assert {checkout_id for _, checkout_id in orders} == {id_ for (id_,) in confirmed}
    assert await _fetch(checkout, tenant_id, STOCK) == [("unit", units - len(orders), 0, len(orders))]
    assert await _fetch(checkout, tenant_id, "SELECT count(*) FROM checkout WHERE state = 'paying'") == [(0,)]
