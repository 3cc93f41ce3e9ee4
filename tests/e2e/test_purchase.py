"""Buying through four separate services, a real broker and real databases, and everything that is refused on the way."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from deploy.cli.api import RefusedError
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

VISA = "pm_card_visa"
PUBLIC = {
    "look_up_order",
    "receive_webhook",
    "receive_webhooks",
}
"""What anybody may ask outside identity. The provider's webhooks have a signature instead."""


async def _buy(market: Market, shopper: Any, lines: dict[str, int], method: str = VISA) -> dict[str, Any]:
    cart_id = await market.cart(shopper, lines)
    return await _buy_cart(shopper, cart_id, key="buy", method=method)


async def _order(market: Market, order_id: str) -> dict[str, Any]:
    return next(order for order in [each async for each in market.shop.orders()] if order["id"] == order_id)


async def test_an_order_happens_once_is_charged_once_and_takes_its_stock_once(market: Market) -> None:
    before = await market.level("SKU-1")
    shopper = market.shop.shopper("customer:1")
    checkout = await _buy(market, shopper, {"SKU-1": 2, "SKU-2": 1})
    assert (checkout["state"], checkout["total_minor"]) == ("confirmed", 2 * 101 + 102)

    async def captured() -> bool:
        return bool((await _order(market, checkout["order_id"]))["payment_state"] == "captured")

    await market.until(captured)
    order = await _order(market, checkout["order_id"])
    [charge] = await market.charges(checkout["id"])
    after = await market.level("SKU-1")
    assert order["total_minor"] == checkout["total_minor"]
    assert (charge["status"], charge["amount_received"], charge["currency"]) == ("succeeded", checkout["total_minor"], "gbp")
    assert charge["metadata"]["order_id"] == order["id"]
    assert (after["on_hand"], after["reserved"], after["sold"]) == (before["on_hand"] - 2, before["reserved"], before["sold"] + 2)


async def test_ten_tabs_that_buy_the_same_cart_at_once_get_one_order_and_one_answer(market: Market) -> None:
    shopper = market.shop.shopper("customer:tabs")
    cart_id = await market.cart(shopper, {"SKU-0": 1})
    keys = ["tab-one"] * 5 + [f"tab-{number}" for number in range(5)]
    answers = await asyncio.gather(
        *(shopper.check_out(cart_id, key=f"{key}-{cart_id}", method=VISA, wait_seconds=20) for key in keys)
    )
    answers = [await shopper.outcome(answer, patience_seconds=240) for answer in answers]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["state"] == "confirmed"
    assert len(await market.charges(answers[0]["id"])) == 1


async def test_a_declined_card_leaves_stock_and_cart_as_they_were_and_another_card_buys_it(market: Market) -> None:
    before = await market.level("SKU-3")
    shopper = market.shop.shopper("customer:declined")
    cart_id = await market.cart(shopper, {"SKU-3": 4})
    first = await _buy_cart(shopper, cart_id, key="a", method="pm_card_chargeDeclined")
    assert (first["state"], first["reason"]) == ("failed", "payment-declined")
    level = await market.level("SKU-3")
    assert (level["on_hand"], level["reserved"]) == (before["on_hand"], before["reserved"])
    again = await _buy_cart(shopper, cart_id, key="b")
    assert again["state"] == "confirmed", "whether the cart has heard of the failure yet or not"


async def test_five_in_stock_and_twenty_buyers_make_five_orders_and_fifteen_clean_refusals(market: Market) -> None:
    await market.stock_of("SCARCE", 5)
    shoppers = [market.shop.shopper(f"customer:scarce-{number}") for number in range(20)]
    outcomes = await asyncio.gather(*(_buy(market, shopper, {"SCARCE": 1}) for shopper in shoppers))
    assert Counter((outcome["state"], outcome.get("reason")) for outcome in outcomes) == {
        ("confirmed", None): 5,
        ("failed", "out-of-stock"): 15,
    }
    level = await market.level("SCARCE")
    assert (level["on_hand"], level["reserved"], level["sold"]) == (0, 0, 5)
    charges = await market.all_charges()
    assert [len(charges.get(outcome["id"], [])) for outcome in outcomes if outcome["state"] == "failed"] == [0] * 15


async def test_another_tenants_cart_is_as_absent_as_none(market: Market) -> None:
    owner = market.shop.shopper("customer:owner")
    cart_id = await market.cart(owner, {"SKU-0": 1})
    stranger = (await market.another_shop("strangers")).shopper("customer:owner")
    with pytest.raises(RefusedError) as refused:
        await stranger.put_line(cart_id, "SKU-0", 1)
    assert (refused.value.status, refused.value.code) == (404, "cart-not-found")
    checkout = await _buy_cart(stranger, cart_id, key="theft")
    assert (checkout["state"], checkout["reason"]) == ("failed", "cart-not-found")
    sibling = market.shop.shopper("customer:sibling")
    checkout = await _buy_cart(sibling, cart_id, key="theft")
    assert (checkout["state"], checkout["reason"]) == ("failed", "cart-not-found")
    assert (await _buy_cart(owner, cart_id))["state"] == "confirmed"


async def _buy_cart(shopper: Any, cart_id: str, *, key: str = "own", method: str = VISA) -> dict[str, Any]:
    started = await shopper.check_out(cart_id, key=f"{key}-{cart_id}", method=method, wait_seconds=20)
    finished: dict[str, Any] = await shopper.outcome(started, patience_seconds=240)
    return finished


async def test_an_empty_cart_fails_its_checkout_and_says_so(market: Market) -> None:
    checkout = await _buy(market, market.shop.shopper("customer:empty"), {})
    assert (checkout["state"], checkout["reason"]) == ("failed", "cart-empty")


async def test_what_cannot_be_done_is_refused_with_a_code_that_says_why(market: Market) -> None:
    shopper = market.shop.shopper("customer:clumsy")
    cart_id = await market.cart(shopper, {"SKU-0": 1})
    token = await shopper._tokens.token()
    other = str(uuid4())
    body = {"cart_id": cart_id, "payment": {"method": VISA}}

    async def refusal(service: str, method: str, path: str, **request: Any) -> tuple[int, str]:
        with pytest.raises(RefusedError) as refused:
            await market.api.call(service, method, path, **request)
        return refused.value.status, refused.value.code

    await market.api.call("checkout", "POST", "/v1/checkouts", token=token, body=body, key="reused")
    refusals = {
        "no token": await refusal("cart", "GET", f"/v1/carts/{cart_id}"),
        "forged token": await refusal("cart", "GET", f"/v1/carts/{cart_id}", token=token[:-8] + "AAAAAAAA"),
        "unknown product": await refusal("cart", "PUT", f"/v1/carts/{other}/lines/NOPE", token=token, body={"quantity": 1}),
        "wrong currency": await refusal("cart", "POST", "/v1/carts", token=token, body={"currency": "XXX"}),
        "no key": await refusal("checkout", "POST", "/v1/checkouts", token=token, body=body),
        "reused key": await refusal(
            "checkout", "POST", "/v1/checkouts", token=token, body={**body, "cart_id": other}, key="reused"
        ),
        "unknown member": await refusal("checkout", "POST", "/v1/checkouts", token=token, body={**body, "x": 1}, key="y"),
        "staff only": await refusal("checkout", "GET", "/v1/stock/SKU-0", token=token),
        "no such order": await refusal("checkout", "GET", f"/v1/orders/{other}", token=token),
        "no such path": await refusal("payments", "GET", "/v1/nothing", token=token),
    }
    assert refusals == {
        "no token": (401, "token-missing"),
        "forged token": (401, "invalid-token"),
        "unknown product": (404, "cart-not-found"),
        "wrong currency": (422, "currency-not-supported"),
        "no key": (400, "idempotency-key-missing"),
        "reused key": (422, "idempotency-key-reused"),
        "unknown member": (422, "schema"),
        "staff only": (403, "permission-missing"),
        "no such order": (404, "order-not-found"),
        "no such path": (404, "not-found"),
    }


async def test_a_product_nobody_sells_cannot_be_put_in_a_cart(market: Market) -> None:
    shopper = market.shop.shopper("customer:wishful")
    cart_id = await shopper.new_cart()
    with pytest.raises(RefusedError) as refused:
        await shopper.put_line(cart_id, "UNHEARD-OF", 1)
    assert (refused.value.status, refused.value.code) == (422, "product-unavailable")


async def test_every_service_describes_every_route_and_who_may_use_it(market: Market) -> None:
    for service in ("identity", "cart", "checkout", "payments"):
        url, token = market.stack.description().url(service), await market.shop.token()
        document = (await market.api.ask(f"{url}/openapi.json", "GET", token=token, seconds=30)).body
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert operations
        assert all("default" in operation["responses"] for operation in operations)
        unguarded = [operation["operationId"] for operation in operations if "x-permission" not in operation]
        assert service == "identity" or set(unguarded) <= PUBLIC
