"""Prices that move under a cart, and an address that was mistyped, as clients meet them."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from libs.common.contracts.catalog import PriceChanged
from libs.common.contracts.checkout import CheckoutRequested
from libs.common.messaging.shell import Shell
from tests.integration.shop import frozen, shop_at
from tests.shared.callers import Person, edge, message, onboard, problem, sell
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, payment_captured
from tests.shared.places import Places

PATH = "/v1/carts/00000000-0000-7000-8000-000000000001"


class Buyer:
    """Somebody with a cart of two kinds of goods, and the catalogue that they are from."""

    def __init__(self, client: httpx.AsyncClient, shell: Shell, who: Person) -> None:
        self.client, self.shell, self.who = client, shell, who
        self.sequence = 2

    async def price(self, sku: str, unit_minor: int) -> None:
        self.sequence += 1
        changed = PriceChanged(sku=sku, currency="GBP", unit_minor=unit_minor)
        await self.shell.execute(message(changed, self.who.tenant_id, sequence=self.sequence))

    async def ask(self, method: str, path: str = "", headers: dict[str, str] | None = None, **request: Any) -> httpx.Response:
        return await self.client.request(method, PATH + path, headers={**self.who.authorization, **(headers or {})}, **request)

    async def put(self, sku: str, quantity: int, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.ask("PUT", f"/lines/{sku}", headers, json={"quantity": quantity})


def _lines(cart: dict[str, Any]) -> dict[str, tuple[int, int | None]]:
    assert cart["total_minor"] == cart["subtotal_minor"] == sum(line["total_minor"] for line in cart["lines"])
    return {line["sku"]: (line["unit_minor"], line.get("price_was_minor")) for line in cart["lines"]}


async def test_a_cart_shows_what_its_goods_cost_now_and_what_they_cost_when_they_were_put_in_until_it_is_frozen(
    shared: Places,
) -> None:
    async with edge(shared("cart")) as (client, shell):
        tenant_id = await onboard(shell)
        for sku in ("tea", "gin"):
            await sell(shell, tenant_id, sku, 100)
        buyer = Buyer(client, shell, Person(tenant_id))
        await buyer.ask("PUT")
        await buyer.put("tea", 2)
        await buyer.put("gin", 1)
        await buyer.price("tea", 10_000)
        seen = await buyer.ask("GET")
        assert _lines(seen.json()) == {"tea": (10_000, 100), "gin": (100, None)}
        listed = await client.get("/v1/carts", headers=buyer.who.authorization)
        assert [_lines(item) for item in listed.json()["items"]] == [_lines(seen.json())]

        assert (await buyer.ask("GET", headers={"If-None-Match": seen.headers["etag"]})).status_code == 304
        await buyer.price("tea", 90)
        fallen = await buyer.ask("GET", headers={"If-None-Match": seen.headers["etag"]})
        assert _lines(fallen.json()) == {"tea": (90, 100), "gin": (100, None)}, "another price is another sight of the cart"

        whole = await buyer.put("gin", 3, {"If-Match": fallen.headers["etag"], "Prefer": "return=representation"})
        assert _lines(whole.json()) == _lines(fallen.json())
        stale = await buyer.put("gin", 4, {"If-Match": fallen.headers["etag"]})
        assert (stale.status_code, problem(stale)["code"]) == (412, "stale-version")
        await buyer.price("tea", 150)
        more = (await buyer.put("tea", 3)).json()["line"]
        assert (more["unit_minor"], more["price_was_minor"]) == (150, 100)

        cart_id, whose = UUID((await buyer.ask("GET")).json()["id"]), buyer.who.subject
        asked = CheckoutRequested(checkout_id=tenant_id, cart_id=cart_id, subject_id=whose)
        await shell.execute(message(asked, tenant_id))
        await buyer.price("tea", 7)
        bought = await buyer.ask("GET")
        assert (bought.json()["state"], _lines(bought.json())["tea"]) == ("frozen", (150, 100)), "what is fixed is fixed"


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_checkout_tells_of_a_price_that_rose_unless_its_buyer_takes_it(shared: Places, accepts: bool) -> None:
    async with shop_at(shared("checkout")) as shop:
        how = {"accept_price_changes": True} if accepts else {}
        started = await shop.checkout((await shop.start(**how)).json()["id"])
        await shop.tell(cart_frozen_for(started, frozen_line("tea", 2, 300, price_was_minor=250)))
        seen = (await shop.ask("GET", f"/v1/checkouts/{started.id}")).json()
        assert (seen["total_minor"], seen["quote"]["lines"][0]["unit_minor"]) == (600, 300)
        if accepts:
            assert (seen["state"], "payment_id" in seen) == ("paying", True)
            return
        assert (seen["state"], seen["reason"], "payment_id" in seen) == ("failed", "price-changed", False)
        again = await shop.start(cart_id=str(started.cart_id), accept_price_changes=True)
        assert (again.status_code, again.json()["state"]) == (202, "started")


async def test_an_address_that_was_mistyped_is_corrected_and_the_order_is_found_by_the_new_one(shared: Places) -> None:
    async with shop_at(shared("checkout")) as shop:
        first = await shop.start(email="tpyo@a.test")
        cart = {"cart_id": first.json()["cart_id"]}
        again = await shop.start(email="typo@a.test", **cart)
        assert (again.status_code, again.json()) == (202, first.json())
        checkout = await shop.checkout(first.json()["id"])
        await shop.tell(frozen(checkout, 1))
        checkout = await shop.checkout(first.json()["id"])
        assert (checkout.state, checkout.email) == ("paying", "typo@a.test")
        await shop.tell(payment_authorized(checkout), payment_captured(checkout))
        late = await shop.start(email="late@a.test", **cart)
        assert (late.status_code, late.json()["state"]) == (200, "confirmed")
        assert (await shop.checkout(first.json()["id"])).email == "typo@a.test", "what is over does not change"
