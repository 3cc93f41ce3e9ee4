"""A cart with a coupon becomes an order: each line's part of each discount is the same everywhere, and the rest is charged."""

from typing import Any

import pytest

from deploy.cli.shop import Shop, Shopper
from deploy.cli.supply import supply
from tests.shared.market import OFFERS, Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENTH = {"name": "A tenth", "kind": "percentage", "percent": "10", "requires_coupon": True, "max_uses": 1}
HALF_OFF_ONE = {"name": "Half", "kind": "percentage", "percent": "50", "skus": ["SKU-1"], "priority": 1}
VISA = {"method": "pm_card_visa"}


async def _shop(market: Market) -> Shop:
    shop = await market.another_shop("promoted")
    await supply(shop, "GBP", OFFERS, print)
    for code, terms in (("TENTH", TENTH), ("half", HALF_OFF_ONE)):
        await market.api.call("cart", "PUT", f"/v1/promotions/{code}", token=await shop.token(), body=terms)
    return shop


async def _cart(market: Market, shopper: Shopper) -> dict[str, Any]:
    """Three of SKU-1 at 101 and one of SKU-2 at 102, with a coupon."""
    cart_id = await market.cart(shopper, {"SKU-1": 3, "SKU-2": 1})
    path, token = f"/v1/carts/{cart_id}/coupons/tenth", await shopper.token()
    cart: dict[str, Any] = (await market.api.call("cart", "PUT", path, token=token)).body
    return cart


async def _bought(market: Market, shopper: Shopper, cart_id: str, *, key: str, **also: Any) -> dict[str, Any]:
    body = {"cart_id": cart_id, "payment": VISA, **also}
    token = await shopper.token()
    begun = await market.api.call("checkout", "POST", "/v1/checkouts", token=token, body=body, key=key, prefer="wait=20")
    return await shopper.outcome(begun.body, patience_seconds=240)


def _parts(discounts: list[dict[str, Any]], name: str) -> list[tuple[str, str | None, int, str, list[tuple[str, int]]]]:
    return [
        (
            each["promotion"],
            each.get("coupon"),
            each["amount_minor"],
            each["reason"],
            [(part[name], part["amount_minor"]) for part in each["lines"]],
        )
        for each in discounts
    ]


async def test_cart_quote_order_and_provider_agree_on_what_is_taken_off_and_a_coupon_for_one_is_given_once(
    market: Market,
) -> None:
    shop = await _shop(market)
    first, second = shop.shopper("customer:first"), shop.shopper("customer:second")
    cart = await _cart(market, first)
    assert _parts(cart["discounts"], "sku") == [
        ("half", None, 152, "Half", [("SKU-1", 152)]),
        ("TENTH", "TENTH", 25, "A tenth", [("SKU-1", 15), ("SKU-2", 10)]),
    ]
    assert (cart["subtotal_minor"], cart["discount_minor"], cart["total_minor"]) == (405, 177, 228)
    late = await _cart(market, second)
    assert late["total_minor"] == 228, "nobody has used it yet"

    checkout = await _bought(market, first, cart["id"], key="first")
    assert (checkout["state"], checkout["total_minor"]) == ("confirmed", 228)
    order = await shop.order(checkout["order_id"])
    expected = [
        ("half", None, 152, "Half", [("1", 152)]),
        ("TENTH", "TENTH", 25, "A tenth", [("1", 15), ("2", 10)]),
    ]
    assert _parts(order["discounts"], "line_id") == _parts(checkout["quote"]["discounts"], "line_id") == expected
    assert [line["discount_minor"] for line in order["lines"]] == [167, 10]
    assert (order["discount_minor"], order["total_minor"]) == (177, 228)
    [charge] = await market.charges(checkout["id"])
    assert charge["amount"] == 228

    told = await _bought(market, second, late["id"], key="second")
    assert (told["state"], told["reason"], told["quote"]["total_minor"]) == ("failed", "price-changed", 253)
    token = await second.token()

    async def is_explained() -> bool:
        why = (await market.api.call("cart", "GET", f"/v1/carts/{late['id']}/explanation", token=token)).body
        outcomes = {each["promotion"]: each["outcome"] for each in why["promotions"]}
        return why["state"] == "open" and outcomes == {"half": "applied", "TENTH": "used-up"}

    await market.until(is_explained)
    accepted = await _bought(market, second, late["id"], key="again", accept_price_changes=True)
    assert (accepted["state"], accepted["total_minor"]) == ("confirmed", 253)


async def test_a_line_says_that_its_product_is_in_stock_once_that_is_heard(market: Market) -> None:
    shop = await _shop(market)
    shopper = shop.shopper("customer:looks")
    token = await shopper.token()
    cart_id = await market.cart(shopper, {"SKU-3": 1})

    async def is_told() -> bool:
        cart = (await market.api.call("cart", "GET", f"/v1/carts/{cart_id}", token=token)).body
        return bool(cart["lines"][0]["availability"] == "in_stock")

    await market.until(is_told)
