"""From a frozen cart to an order under a tenant's own terms, and what many such carts do to one product at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from libs.common.contracts.cart import FrozenLine
from libs.common.contracts.inventory import StockAdjusted
from libs.common.messaging.shell import Failure, Shell
from services.checkout.domain.quote import Address
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.shipping import ShippingKind, ShippingRate
from services.checkout.domain.stock import StockPolicy
from services.checkout.domain.tax import TaxRate
from services.checkout.handlers import StartCheckout
from services.checkout.handlers.quoting import DeleteShippingMethod, PutShippingMethod, PutTaxRate
from services.checkout.handlers.stock import PutStockPolicy
from tests.shared.callers import count, message, onboard, shell_of
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, tenant_updated
from tests.shared.places import Places

MANY = 40
LONDON = Address(name="A", line1="1 Street", city="London", postal_code="N1", country="GB")


@pytest.fixture
async def shell(shared: Places) -> AsyncIterator[Shell]:
    async with shell_of(shared("checkout")) as shell:
        yield shell


def _start(method: str | None = None, address: Address | None = None) -> StartCheckout:
    return StartCheckout(
        checkout_id=uuid4(),
        cart_id=uuid4(),
        subject_id=uuid4(),
        method="pm_card_visa",
        email=None,
        body_digest="body",
        ttl_seconds=900,
        shipping_method=method,
        shipping_address=address,
    )


def _line(sku: str, quantity: int, unit_minor: int, category: str = "things", grams: int | None = None) -> FrozenLine:
    return frozen_line(sku, quantity, unit_minor, category=category, weight_grams=grams)


async def _fetch(shell: Shell, tenant_id: UUID, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    async with shell.database.transaction([tenant_id]) as connection:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]


async def _do(shell: Shell, tenant_id: UUID, *commands: Any) -> None:
    for command in commands:
        await shell.execute(message(command, tenant_id))


VAT = PutTaxRate(country="GB", category="*", rate=TaxRate(name="VAT", rate=Decimal(20)))
BOOKS = PutTaxRate(country="GB", category="books", rate=TaxRate(name="zero", rate=Decimal(0)))
POST = PutShippingMethod(
    code="post",
    name="Post",
    kind=ShippingKind.WEIGHT,
    currency="GBP",
    rates=(ShippingRate(countries=("GB",), up_to=1_000, amount_minor=300), ShippingRate(countries=("GB",), amount_minor=700)),
)


@pytest.mark.parametrize(("included", "tax", "total"), [(False, 590, 3_840), (True, 492, 3_250)])
async def test_the_quote_the_request_for_money_and_the_order_say_the_same(
    shared: Places, shell: Shell, included: bool, tax: int, total: int
) -> None:
    tenant_id = await onboard(shell)
    settings = {"prices_include_tax": included}
    update = tenant_updated(tenant_id, version=2, settings=settings)
    await _do(shell, tenant_id, update, VAT, BOOKS, POST)
    await count(shell, tenant_id, "pot", 10)
    await count(shell, tenant_id, "atlas", 10)
    started: Checkout = await shell.execute(message(_start("post", LONDON), tenant_id))
    lines = (_line("pot", 2, 1_125, grams=500), _line("atlas", 1, 300, category="books", grams=1))
    await _do(shell, tenant_id, cart_frozen_for(started, *lines))
    # Terms that change now are not this checkout's.
    await _do(shell, tenant_id, replace(VAT, rate=TaxRate(name="VAT", rate=Decimal(99))), DeleteShippingMethod(code="post"))
    [(paying,)] = await _fetch(shell, tenant_id, "SELECT total_minor FROM checkout WHERE id = $1", started.id)
    await _do(shell, tenant_id, payment_authorized(started, amount_minor=paying))
    [order] = await _fetch(
        shell,
        tenant_id,
        "SELECT subtotal_minor, shipping_minor, tax_minor, total_minor, tax_included, quote_hash FROM customer_order",
    )
    assert order[:5] == (2_550, 700, tax, total, included)
    admin = await shared("checkout").as_admin()
    try:
        events = await admin.fetch("SELECT topic, payload FROM outbox_event WHERE tenant_id = $1 ORDER BY id", tenant_id)
    finally:
        await admin.close()
    payloads = [orjson.loads(event["payload"]) for event in events]
    [requested] = [each for each in payloads if "quote_hash" in each]
    [confirmed] = [each for each in payloads if "totals" in each]
    assert (requested["amount_minor"], requested["quote_hash"]) == (total, order[5])
    assert (confirmed["totals"]["total_minor"], confirmed["totals"]["tax_included"]) == (total, included)
    assert not any("Street" in str(each) for each in payloads), "no event ever carries an address"


async def test_a_cart_that_cannot_be_sent_as_asked_ends_its_checkout_and_holds_nothing(shell: Shell) -> None:
    tenant_id = await onboard(shell)
    light = replace(POST, rates=POST.rates[:1])
    await _do(shell, tenant_id, light)
    await count(shell, tenant_id, "anvil", 10)
    started: Checkout = await shell.execute(message(_start("post", LONDON), tenant_id))
    await _do(shell, tenant_id, cart_frozen_for(started, _line("anvil", 1, 100, grams=1_001)))
    assert await _fetch(shell, tenant_id, "SELECT state, reason FROM checkout") == [("failed", "cart-unavailable")]
    assert await _fetch(shell, tenant_id, "SELECT on_hand, reserved FROM stock") == [(10, 0)]


async def _started(shell: Shell, tenant_id: UUID, how_many: int = MANY) -> list[Checkout]:
    return list(await asyncio.gather(*(shell.execute(message(_start(), tenant_id)) for _ in range(how_many))))


COUNT_UPDATES = """CREATE TABLE updated (statement boolean);
GRANT INSERT ON updated TO checkout_app;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO updated VALUES (TG_LEVEL = 'STATEMENT'); RETURN NULL; END $$;
CREATE TRIGGER by_statement AFTER UPDATE ON stock FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER by_row AFTER UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION note()"""


async def test_many_checkouts_of_one_product_in_one_batch_are_one_update_of_its_stock(empty: Places) -> None:
    place = empty("checkout")
    admin = await place.as_admin()
    try:
        async with shell_of(place) as shell:
            tenant_id = await onboard(shell)
            await count(shell, tenant_id, "hot", MANY - 1)
            started = await _started(shell, tenant_id)
            await admin.execute(COUNT_UPDATES)
            batch = [message(cart_frozen_for(each, _line("hot", 1, 100)), tenant_id) for each in started]
            assert not any(isinstance(answer, Failure) for answer in await shell.execute_many(batch))
            assert await admin.fetchrow("SELECT count(*) FILTER (WHERE statement), count(*) FROM updated") == (1, 2)
            assert await _fetch(shell, tenant_id, "SELECT on_hand, reserved FROM stock") == [(0, MANY - 1)]
            states = await _fetch(shell, tenant_id, "SELECT state, count(*) FROM checkout GROUP BY 1 ORDER BY 1")
            assert states == [("failed", 1), ("paying", MANY - 1)]
    finally:
        await admin.close()


async def test_a_product_on_backorder_is_sold_to_all_and_every_delivery_goes_to_whom_it_is_owed(shell: Shell) -> None:
    tenant_id = await onboard(shell)
    await count(shell, tenant_id, "rare", 10)
    await _do(shell, tenant_id, PutStockPolicy(sku="rare", policy=StockPolicy.BACKORDER))
    started = await _started(shell, tenant_id)

    async def buy(each: Checkout) -> None:
        await shell.execute(message(cart_frozen_for(each, _line("rare", 1, 100)), tenant_id))
        await shell.execute(message(payment_authorized(each, amount_minor=100), tenant_id))

    async def deliver() -> None:
        for sequence in range(2, 6):
            delivery = StockAdjusted(sku="rare", location=f"dock-{sequence % 2}", delta=5, reason="delivery")
            await shell.execute(message(delivery, tenant_id, sequence=sequence))

    await asyncio.gather(deliver(), *map(buy, started))
    [row] = await _fetch(shell, tenant_id, "SELECT on_hand, reserved, sold, promised, owed, adjusted FROM stock")
    assert row == (0, 0, 30, 0, MANY - 30, 30)
    assert await _fetch(shell, tenant_id, "SELECT state, count(*) FROM checkout GROUP BY 1") == [("confirmed", MANY)]


async def test_an_untracked_product_is_sold_without_a_row_being_touched(shell: Shell) -> None:
    tenant_id = await onboard(shell)
    await _do(shell, tenant_id, PutStockPolicy(sku="ebook", policy=StockPolicy.UNTRACKED))
    started = await _started(shell, tenant_id, 5)
    await asyncio.gather(
        *(shell.execute(message(cart_frozen_for(each, _line("ebook", 1_000_000, 1)), tenant_id)) for each in started)
    )
    states = await _fetch(shell, tenant_id, "SELECT state FROM checkout")
    assert states == [(CheckoutState.PAYING,)] * 5
    assert await _fetch(shell, tenant_id, "SELECT version, on_hand, reserved, sold FROM stock") == [(1, 0, 0, 0)]
