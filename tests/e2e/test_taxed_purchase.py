"""A shop with taxes and shipping of its own: what the buyer is quoted is what the provider takes and the order says."""

from typing import Any

import pytest

from deploy.cli.shop import Shop, Shopper
from deploy.cli.supply import supply
from tests.shared.market import OFFERS, Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADDRESS = {"name": "A. Buyer", "line1": "1 High Street", "city": "London", "postal_code": "N1 1AA", "country": "GB"}
POST = {
    "name": "Post",
    "kind": "value",
    "currency": "GBP",
    "rates": [{"countries": ["GB"], "up_to": 999, "amount_minor": 495}, {"countries": ["GB"], "amount_minor": 0}],
}
VAT = {"name": "VAT", "rate": "17.5"}
VISA = {"method": "pm_card_visa"}


async def _shop(market: Market) -> Shop:
    """A shop that taxes and posts what it sells."""
    shop = await market.another_shop("taxed")
    await supply(shop, "GBP", OFFERS, print)
    token = await shop._client.token()
    for path, body in (("/v1/shipping-methods/post", POST), ("/v1/tax-rates/GB/*", VAT)):
        await market.api.call("checkout", "PUT", path, token=token, body=body)
    return shop


async def _begin(market: Market, shopper: Shopper, payment: dict[str, str]) -> dict[str, Any]:
    """Three of SKU-1 at 101 and one of SKU-2 at 102, sent by post."""
    cart_id = await market.cart(shopper, {"SKU-1": 3, "SKU-2": 1})
    body = {"cart_id": cart_id, "payment": payment, "shipping_method": "post", "shipping_address": ADDRESS}
    token = await shopper._tokens.token()
    reply = await market.api.call("checkout", "POST", "/v1/checkouts", token=token, body=body, key=cart_id, prefer="wait=20")
    begun: dict[str, Any] = reply.body
    return begun


async def _buy(market: Market, shop: Shop, who: str) -> dict[str, Any]:
    shopper = shop.shopper(who)
    checkout = await shopper.outcome(await _begin(market, shopper, VISA), patience_seconds=240)
    assert checkout["state"] == "confirmed"
    return checkout


async def _said_by_all(market: Market, shop: Shop, checkout: dict[str, Any]) -> None:
    """Quote, order and provider name one amount and one hash."""
    path = f"/v1/orders/{checkout['order_id']}"
    order = (await market.api.call("checkout", "GET", path, token=await shop._client.token())).body
    quote, [charge] = checkout["quote"], await market.charges(checkout["id"])
    sums = ("subtotal_minor", "discount_minor", "shipping_minor", "tax_minor", "total_minor", "tax_included")
    assert {name: order[name] for name in sums} == {name: quote[name] for name in sums}
    assert charge["amount"] == order["total_minor"] == checkout["total_minor"]
    assert charge["metadata"]["quote_hash"] == order["quote_hash"] == quote["hash"]
    assert order["shipping_address"] == ADDRESS, "whoever packs it must know where to"


async def test_what_is_quoted_is_what_is_charged_and_what_the_order_says(market: Market) -> None:
    shop = await _shop(market)
    checkout = await _buy(market, shop, "customer:taxed")
    quote = checkout["quote"]
    # 17.5 % of 303, 102 and 495 is 53.025, 17.85 and 86.625, each rounded by itself.
    assert (quote["subtotal_minor"], quote["shipping_minor"], quote["tax_minor"]) == (405, 495, 53 + 18 + 87)
    assert quote["total_minor"] == 405 + 495 + 158
    await _said_by_all(market, shop, checkout)


async def test_a_buyer_who_wants_to_see_the_quote_first_pays_that_quote_and_no_other(market: Market) -> None:
    shop = await _shop(market)
    shopper = shop.shopper("customer:careful")
    resting = await _begin(market, shopper, {"confirmation": "later"})
    assert (resting["state"], resting["action_required"], resting["total_minor"]) == ("reserved", True, 1_058)
    assert await market.charges(resting["id"]) == []
    dearer = {**POST, "rates": [{"amount_minor": 9_999}]}
    token = await shop._client.token()
    await market.api.call("checkout", "PUT", "/v1/shipping-methods/post", token=token, body=dearer)
    path, token = f"/v1/checkouts/{resting['id']}/resume", await shopper._tokens.token()
    body = {"payment": VISA}
    reply = await market.api.call("checkout", "POST", path, token=token, body=body, key=resting["id"], prefer="wait=20")
    checkout = await shopper.outcome(reply.body, patience_seconds=240)
    assert (checkout["state"], checkout["quote"]) == ("confirmed", resting["quote"])
    await _said_by_all(market, shop, checkout)


async def test_a_tenant_that_prices_with_tax_has_it_shown_and_not_added(market: Market) -> None:
    shop = await _shop(market)
    token, settings = await shop._client.token(), {"prices_include_tax": True, "tax_rounding": "total"}
    path = f"/v1/tenants/{shop.tenant_id}"
    changed = await market.api.call("identity", "PATCH", path, token=token, body={"settings": settings})
    assert changed.body["settings"] == settings
    bought: list[dict[str, Any]] = []

    async def by_the_new_terms() -> bool:
        bought.append(await _buy(market, shop, f"customer:inclusive-{len(bought)}"))
        return bool(bought[-1]["quote"]["tax_included"])  # checkout hears of it by message

    await market.until(by_the_new_terms)
    quote = bought[-1]["quote"]
    assert (quote["tax_minor"], quote["total_minor"]) == (134, 900)  # 17.5/117.5 of 900 is 134.04
    await _said_by_all(market, shop, bought[-1])
