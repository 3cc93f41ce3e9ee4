"""Promotions as a tenant's staff, its shoppers and the database meet them."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from libs.common.auth import CLIENT
from libs.common.contracts.checkout import CheckoutCanceled, CheckoutRequested, StockAvailabilityChanged
from libs.common.messaging.shell import Shell
from services.cart.domain import Cart, CartState
from services.cart.repository import CARTS
from tests.shared.callers import Person, edge, message, onboard, problem, sell, shell_of
from tests.shared.places import Places

TENTH = {"name": "A tenth", "kind": "percentage", "percent": "10"}
COUPON = {**TENTH, "requires_coupon": True}


class Shop:
    """A tenant that sells tea at 2.50, its staff, and a shopper with a cart."""

    def __init__(self, client: httpx.AsyncClient, tenant_id: UUID) -> None:
        self.client, self.tenant_id = client, tenant_id
        self.staff, self.shopper = Person(tenant_id, role=CLIENT), Person(tenant_id)
        self.path = f"/v1/carts/{uuid4()}"

    async def ask(self, method: str, path: str, who: Person | None = None, **request: Any) -> httpx.Response:
        return await self.client.request(method, path, headers=(who or self.shopper).authorization, **request)

    async def promote(self, code: str, terms: dict[str, Any], status: int = 201) -> dict[str, Any]:
        answer = await self.ask("PUT", f"/v1/promotions/{code}", self.staff, json=terms)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def fill(self, quantity: int = 4, path: str = "", who: Person | None = None) -> dict[str, Any]:
        await self.ask("PUT", path or self.path, who)
        put = await self.ask("PUT", f"{path or self.path}/lines/tea", who, json={"quantity": quantity})
        found: dict[str, Any] = put.json()
        return found

    async def explained(self) -> list[tuple[str, str, int]]:
        found = (await self.ask("GET", f"{self.path}/explanation")).json()
        return [(each["promotion"], each["outcome"], each["amount_minor"]) for each in found["promotions"]]


async def _shop(client: httpx.AsyncClient, shell: Shell) -> Shop:
    tenant_id = await onboard(shell)
    await sell(shell, tenant_id, "tea", 250)
    return Shop(client, tenant_id)


async def test_a_cart_shows_what_is_taken_off_why_and_why_not(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        shop = await _shop(client, shell)
        assert (await shop.fill())["discount_minor"] == 0
        assert await shop.explained() == []
        await shop.promote("everybody", TENTH)
        much = {"name": "Much", "kind": "amount", "amount_minor": 300, "currency": "GBP", "minimum_subtotal_minor": 2_000}
        await shop.promote("much", much)
        await shop.promote("WELCOME", {**COUPON, "priority": 5})
        put = await shop.fill(5)
        assert (put["line"]["discount_minor"], put["discount_minor"], put["total_minor"]) == (125, 125, 1_125)
        unknown = await shop.ask("PUT", f"{shop.path}/coupons/NOPE")
        assert (unknown.status_code, problem(unknown)["code"]) == (422, "coupon-unknown")
        entered = await shop.ask("PUT", f"{shop.path}/coupons/welcome")
        cart = entered.json()
        assert entered.status_code == 200
        assert cart["coupons"] == ["WELCOME"]
        welcome = {"promotion": "WELCOME", "coupon": "WELCOME", "amount_minor": 125, "reason": "A tenth"}
        assert cart["discounts"] == [
            {**welcome, "lines": [{"sku": "tea", "amount_minor": 125}]},
            {"promotion": "everybody", "amount_minor": 112, "reason": "A tenth", "lines": [{"sku": "tea", "amount_minor": 112}]},
        ]
        assert (cart["subtotal_minor"], cart["discount_minor"], cart["total_minor"]) == (1_250, 237, 1_013)
        assert [line["discount_minor"] for line in cart["lines"]] == [237]
        read = await shop.ask("GET", shop.path)
        assert {**read.json(), "version": 0} == {**cart, "version": 0}
        assert await shop.explained() == [
            ("WELCOME", "applied", 125),
            ("everybody", "applied", 112),
            ("much", "below-minimum", 0),
        ]
        await shop.ask("DELETE", "/v1/promotions/WELCOME", shop.staff)
        later = await client.get(shop.path, headers={**shop.shopper.authorization, "If-None-Match": read.headers["etag"]})
        assert later.json()["discount_minor"] == 125, "another discount is another sight of the cart"
        assert ("WELCOME", "removed", 0) in await shop.explained()
        left = await shop.ask("DELETE", f"{shop.path}/coupons/WELCOME")
        assert (left.status_code, left.json()["coupons"]) == (200, [])
        again = await shop.ask("DELETE", f"{shop.path}/coupons/WELCOME")
        assert (again.status_code, problem(again)["code"]) == (404, "coupon-not-found")
        assert (await shop.ask("GET", f"{shop.path}/explanation", Person(shop.tenant_id))).status_code == 404


async def test_promotions_are_staffs_and_their_tenants_own(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        shop = await _shop(client, shell)
        made = await shop.promote("spring", {**TENTH, "percent": "12.5", "valid_until": "2999-01-01T01:00:00+01:00"})
        assert (made["percent"], made["valid_until"], made["used_count"]) == ("12.5", "2999-01-01T00:00:00Z", 0)
        await shop.promote("spring", TENTH, status=200)
        await shop.promote("autumn", COUPON)
        assert (await shop.ask("GET", "/v1/promotions")).status_code == 403, "a shopper would read everybody's coupons"
        first = (await shop.ask("GET", "/v1/promotions?limit=1", shop.staff)).json()
        rest = (await shop.ask("GET", f"/v1/promotions?cursor={first['next_cursor']}", shop.staff)).json()
        assert [each["code"] for each in [*first["items"], *rest["items"]]] == ["autumn", "spring"]
        foreign = Shop(client, await onboard(shell))
        assert (await foreign.ask("GET", "/v1/promotions/spring", foreign.staff)).status_code == 404
        assert (await foreign.ask("DELETE", "/v1/promotions/spring", foreign.staff)).status_code == 404
        assert (await foreign.ask("GET", "/v1/promotions", foreign.staff)).json()["items"] == []
        for wrong in ({"percent": "0"}, {"percent": "100.01"}, {"currency": "XXX"}, {"unknown": 1}, {"max_uses": 0}):
            assert (await shop.ask("PUT", "/v1/promotions/x", shop.staff, json={**TENTH, **wrong})).status_code == 422
        assert (await shop.ask("DELETE", "/v1/promotions/spring", shop.staff)).status_code == 204
        assert (await shop.ask("GET", "/v1/promotions/spring", shop.staff)).status_code == 404
        told = await client.get("/v1/audit-entries", headers=shop.staff.authorization)
        actions = [(each["action"], each["object_kind"]) for each in told.json()["items"]]
        assert {("put-promotion", "promotion"), ("remove-promotion", "promotion")} <= {*actions}


async def test_a_line_says_how_its_product_is_to_be_had(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        shop = await _shop(client, shell)
        assert (await shop.fill())["line"]["availability"] == "unknown"
        told = StockAvailabilityChanged(sku="tea", availability="low_stock")
        await shell.execute(message(told, shop.tenant_id))
        assert (await shop.fill())["line"]["availability"] == "low_stock"
        assert (await shop.ask("GET", shop.path)).json()["lines"][0]["availability"] == "low_stock"


async def _requested(shells: Sequence[Shell], tenant_id: UUID, asked: Sequence[CheckoutRequested]) -> None:
    """Each by another worker than the one before, all at once."""
    await asyncio.gather(*(shells[place % len(shells)].execute(message(each, tenant_id)) for place, each in enumerate(asked)))


async def _carts(shell: Shell, tenant_id: UUID) -> dict[UUID, Cart]:
    async with shell.database.transaction([tenant_id]) as connection:
        rows = await connection.fetch("SELECT * FROM cart WHERE tenant_id = $1", tenant_id)
    return {cart.id: cart for cart in map(CARTS.decode, rows)}


async def test_a_coupon_for_five_is_given_to_five_carts_whoever_comes_first_and_again_when_one_is_given_back(
    shared: Places,
) -> None:
    place = shared("cart")
    async with edge(place) as (client, shell), shell_of(place) as other:
        shop = await _shop(client, shell)
        await shop.promote("FIVE", {**COUPON, "max_uses": 5})
        asked: list[CheckoutRequested] = []
        for _ in range(12):
            buyer, cart_id = Person(shop.tenant_id), uuid4()
            await shop.fill(4, f"/v1/carts/{cart_id}", buyer)
            await shop.ask("PUT", f"/v1/carts/{cart_id}/coupons/FIVE", buyer)
            asked.append(CheckoutRequested(checkout_id=uuid4(), cart_id=cart_id, subject_id=buyer.subject, attempt=1))
        await _requested([shell, other], shop.tenant_id, asked)
        carts = await _carts(shell, shop.tenant_id)
        assert {cart.state for cart in carts.values()} == {CartState.FROZEN}
        given = [each for each in asked if carts[each.cart_id].discount_minor == 100]
        assert len(given) == 5
        assert all(carts[each.cart_id].discount_was_minor == 100 for each in asked if each not in given), "and the rest are told"

        for each in given[:2]:
            ended = CheckoutCanceled(checkout_id=each.checkout_id, cart_id=each.cart_id, reason="canceled")
            await asyncio.gather(*(one.execute(message(ended, shop.tenant_id)) for one in (shell, other)))
        found = (await shop.ask("GET", "/v1/promotions/FIVE", shop.staff)).json()
        assert found["used_count"] == 3
        lowered = await shop.ask("PUT", "/v1/promotions/FIVE", shop.staff, json={**COUPON, "max_uses": 2})
        assert (lowered.status_code, problem(lowered)["code"]) == (422, "max-uses-below-used")
        async with shell.database.transaction([shop.tenant_id]) as connection:
            with pytest.raises(asyncpg.CheckViolationError, match="promotion_never_overused"):
                await connection.execute("UPDATE promotion SET used_count = 6 WHERE tenant_id = $1", shop.tenant_id)


async def test_promotions_that_are_made_at_once_are_all_known_to_carts(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        shop = await _shop(client, shell)
        await asyncio.gather(*(shop.promote(f"p{number}", TENTH) for number in range(6)))
        assert [code for code, _, _ in await _filled(shop)] == [f"p{number}" for number in range(6)]


async def _filled(shop: Shop) -> list[tuple[str, str, int]]:
    await shop.fill()
    return await shop.explained()
