"""Where a buyer's bank leads them back to, from what they ask for to what payments is told: a page of the shop's, or none."""

from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest

from services.checkout.domain.saga import Checkout
from tests.integration.shop import Shop, shop_at
from tests.shared.callers import problem
from tests.shared.events import tenant_updated
from tests.shared.places import Place, Places

PAGE = "https://shop.example.com/purchases/{checkout_id}"
LATER = {"confirmation": "later"}


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with shop_at(shared("checkout")) as shop:
        yield shop


def _card(return_url: str) -> dict[str, str]:
    return {"method": "pm_card_visa", "return_url": return_url}


async def test_a_page_that_the_tenant_allows_is_what_payments_is_told_with_the_checkouts_id_in_it(
    shop: Shop, shared: Places
) -> None:
    refused = await shop.start(payment=_card(PAGE))
    assert (refused.status_code, problem(refused)["code"]) == (422, "return-url-refused"), "it allows none yet"
    origins = {"allowed_origins": ["https://shop.example.com"]}
    await shop.tell(tenant_updated(shop.tenant_id, version=2, settings=origins))
    for asked in ("https://evil.test/{checkout_id}", "https://shop.example.com:444/"):
        refused = await shop.start(payment=_card(asked))
        assert (refused.status_code, problem(refused)["code"]) == (422, "return-url-refused")
    checkout = await shop.paying(payment=_card(PAGE))
    assert checkout.return_url == f"https://shop.example.com/purchases/{checkout.id}"
    assert await _told(shared("checkout"), checkout) == [checkout.return_url]


async def test_who_says_later_how_they_pay_says_then_where_they_come_back_to(shop: Shop, shared: Places) -> None:
    origins = {"allowed_origins": ["https://shop.example.com"]}
    await shop.tell(tenant_updated(shop.tenant_id, version=2, settings=origins))
    checkout = await shop.paying(payment=LATER)
    path = f"/v1/checkouts/{checkout.id}/resume"
    refused = await shop.ask("POST", path, json={"payment": _card("https://evil.test/")})
    assert (refused.status_code, problem(refused)["code"]) == (422, "return-url-refused")
    assert (await shop.checkout(str(checkout.id))).state == "reserved", "nothing was asked for"
    assert (await shop.ask("POST", path, json={"payment": _card(PAGE)})).status_code == 202
    assert await _told(shared("checkout"), checkout) == [f"https://shop.example.com/purchases/{checkout.id}"]


@pytest.mark.parametrize(
    "payment",
    [
        *({"confirmation": kind, "return_url": PAGE} for kind in ("client", "later")),
        *(_card(form) for form in ("javascript:alert(1)", "//shop.example.com/", "https://shop.example.com/ x", "x" * 1_001)),
    ],
)
async def test_what_is_no_address_or_goes_with_no_method_is_refused_before_anything_is_read(
    shop: Shop, payment: dict[str, str]
) -> None:
    refused = await shop.start(payment=payment)
    assert (refused.status_code, problem(refused)["code"]) == (422, "schema")


async def _told(place: Place, checkout: Checkout) -> list[str | None]:
    """What payments is told of where the buyer comes back to."""
    admin: asyncpg.Connection = await place.as_admin()
    rows = await admin.fetch("SELECT payload FROM outbox_event WHERE tenant_id = $1 ORDER BY id", checkout.tenant_id)
    await admin.close()
    facts = [orjson.loads(row["payload"]) for row in rows]
    return [fact.get("return_url") for fact in facts if "quote_hash" in fact and fact["checkout_id"] == str(checkout.id)]
