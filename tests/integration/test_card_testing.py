"""Stolen cards at the checkout's edge: 429 with an honest `Retry-After`, nobody asked, and nothing kept for ever."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from libs.common.auth import GUEST, SHOPPER
from libs.common.contracts.payments import PaymentDeclined
from libs.common.telemetry import metrics
from services.checkout.domain.card_testing import Bounds
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.repository.checkouts import forget_declines
from tests.integration.shop import Shop, frozen, shop_at
from tests.shared.callers import Person, problem
from tests.shared.events import payment_authorized
from tests.shared.places import Places

LATER = timedelta(hours=3)


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with shop_at(shared("checkout")) as shop:
        yield shop


def guest(shop: Shop) -> Person:
    return Person(shop.tenant_id, claims={"roles": [SHOPPER, GUEST]})


async def begun(shop: Shop, who: Person) -> httpx.Response:
    cart = {"cart_id": str(UUID(int=shop.keys + 1)), "payment": {"method": "pm_card_visa"}}
    return await shop.ask("POST", "/v1/checkouts", who, json=cart)


async def refused(shop: Shop, who: Person) -> None:
    checkout = await paying(shop, await begun(shop, who))
    await shop.tell(PaymentDeclined(payment_id=checkout.payment_id, checkout_id=checkout.id, code="card_declined"))


async def paying(shop: Shop, answer: httpx.Response) -> Checkout:
    assert answer.status_code == 202, answer.text
    checkout = await shop.checkout(answer.json()["id"])
    await shop.tell(frozen(checkout, 1))
    return await shop.checkout(str(checkout.id))


async def test_a_thief_waits_and_a_buyer_from_the_same_house_who_is_known_does_not(shop: Shop) -> None:
    thief, buyer = guest(shop), shop.shopper
    for _ in range(Bounds().per_subject):
        await refused(shop, thief)
    answer = await begun(shop, thief)
    assert (answer.status_code, problem(answer)["code"]) == (429, "too-many-declines")
    assert 0 < int(answer.headers["retry-after"]) <= Bounds().window_seconds + 10
    assert "127.0.0.1" not in answer.text
    assert b'cartwright_card_testing_refused_total{by="subject"}' in metrics()
    await refused(shop, buyer)
    good = await paying(shop, await begun(shop, buyer))
    await shop.tell(payment_authorized(good))
    assert (await shop.checkout(str(good.id))).state is CheckoutState.CONFIRMED


async def test_fresh_guests_from_one_address_wait_together_and_the_key_of_who_was_refused_is_good_later(shop: Shop) -> None:
    answers = []
    for _ in range(Bounds().per_address):
        await refused(shop, guest(shop))
    late, headers = guest(shop), {"Idempotency-Key": "the-same"}
    cart = {"cart_id": str(UUID(int=99)), "payment": {"method": "pm_card_visa"}}
    for _ in range(2):
        answers.append(await shop.ask("POST", "/v1/checkouts", late, json=cart, headers=headers))
        await _pass(shop, LATER)
    assert [answer.status_code for answer in answers] == [429, 202]


async def test_counts_that_no_event_told_of_are_forgotten_once_they_are_old_and_no_younger_ones_are(shop: Shop) -> None:
    thief = guest(shop)
    for _ in range(Bounds().per_subject):
        await refused(shop, thief)
    assert await _left(shop) == {"subject", "address", "tenant"}
    await _pass(shop, LATER * 2)
    assert await _left(shop) == {"subject"}, "its next event goes on from its number"


async def _left(shop: Shop) -> set[str]:
    """What is counted of this shop, once all that is old is forgotten."""
    async with shop.worker.database.acquire() as connection:
        await forget_declines(connection, LATER, 1_000)
    async with shop.worker.database.transaction([shop.tenant_id]) as connection:
        return {row["by"] for row in await connection.fetch("SELECT by FROM declines WHERE tenant_id = $1", shop.tenant_id)}


async def _pass(shop: Shop, time: timedelta) -> None:
    """As if all that was refused had been refused so much earlier."""
    async with shop.worker.database.transaction([shop.tenant_id]) as connection:
        await connection.execute(
            """UPDATE declines SET last_at = last_at - $1::interval, counts = (
                SELECT jsonb_object_agg((key::bigint - extract(epoch FROM $1::interval)::bigint / 10)::text, value)
                FROM jsonb_each(counts)) WHERE tenant_id = $2""",
            time,
            shop.tenant_id,
        )
