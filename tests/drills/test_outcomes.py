"""How a purchase ends when somebody or something changes its course: canceled, expired, challenged, sent, given back."""

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import asyncpg
import pytest

from deploy.cli.api import RefusedError
from deploy.cli.publisher import Fact, publishing
from deploy.cli.settlement import settled
from deploy.cli.shop import Shopper
from deploy.cli.tenants import operator
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

VISA = "pm_card_visa"
CHALLENGED = "pm_card_authenticationRequired"


async def _start(market: Market, shopper: Shopper, lines: dict[str, int], method: str = VISA, wait: int = 0) -> dict[str, Any]:
    cart_id = await market.cart(shopper, lines)
    return await shopper.check_out(cart_id, key=f"start-{cart_id}", method=method, wait_seconds=wait)


async def _post(market: Market, who: Any, path: str, key: str, body: object = None) -> dict[str, Any]:
    token = await who._tokens.token() if isinstance(who, Shopper) else await who._client.token()
    answer: dict[str, Any] = (await market.api.call("checkout", "POST", path, token=token, key=key, body=body)).body
    return answer


async def _cancel(market: Market, shopper: Shopper, checkout: dict[str, Any]) -> str:
    """Cancel it; answers what the service says of that."""
    try:
        return str((await _post(market, shopper, f"/v1/checkouts/{checkout['id']}/cancel", f"cancel-{checkout['id']}"))["state"])
    except RefusedError as refused:
        return refused.code


async def _time_is_up(market: Market, admin_url: str, checkout_id: str) -> None:
    """As if the checkout's time had passed: the clock is the one thing that a test must not wait for."""
    database = market.stack._prefixes[0] + "checkout"
    admin = await asyncpg.connect(admin_url.rpartition("/")[0] + "/" + database)
    await admin.execute("UPDATE checkout SET expires_at = now(), version = version + 1 WHERE id = $1", checkout_id)
    await admin.execute("UPDATE timer SET due_at = now(), free_at = now() WHERE key = $1", checkout_id)
    await admin.close()


def _by_fulfilment(market: Market, order_id: str, sequence: int, kind: str, **content: Any) -> Fact:
    content["order_id"] = order_id
    return Fact("fulfilment.v1", kind, "/test/fulfilment", market.shop.tenant_id, order_id, sequence, content)


async def test_a_checkout_canceled_while_its_money_is_being_held_is_an_order_with_one_charge_or_holds_nothing(
    market: Market,
) -> None:
    before = await market.level("SKU-4")

    async def race(number: int) -> tuple[str, dict[str, Any]]:
        shopper = market.shop.shopper(f"customer:race-{number}")
        checkout = await _start(market, shopper, {"SKU-4": 1})
        await asyncio.sleep(number * 0.01)
        said = await _cancel(market, shopper, checkout)
        return said, await shopper.outcome(checkout, patience_seconds=240)

    outcomes = await asyncio.gather(*(race(number) for number in range(20)))
    for said, checkout in outcomes:
        assert checkout["state"] == ("confirmed" if said == "checkout-final" else "canceled")
    ids = [checkout["id"] for _, checkout in outcomes]
    bought = [checkout["id"] for _, checkout in outcomes if checkout["state"] == "confirmed"]
    money = await settled(market.api, market.shop.tenant_id, ids, bought)
    assert (dict(money.captured), money.pending) == ({checkout_id: [104] for checkout_id in bought}, set())
    level = await market.level("SKU-4")
    taken = len(bought)
    assert (level["on_hand"], level["reserved"]) == (before["on_hand"] - taken, before["reserved"])
    assert level["sold"] == before["sold"] + taken


async def test_a_challenge_that_nobody_meets_in_time_ends_with_nothing_held_and_the_cart_open_again(
    market: Market, admin_url: str
) -> None:
    before = await market.level("SKU-2")
    shopper = market.shop.shopper("customer:absent-minded")
    checkout = await _start(market, shopper, {"SKU-2": 2}, CHALLENGED, wait=20)
    assert (checkout["state"], checkout["action_required"]) == ("paying", True)
    await market.stack.kill("checkout.worker")
    await _time_is_up(market, admin_url, checkout["id"])
    await market.stack.start_process("checkout.worker")
    ended = await shopper.outcome(checkout, patience_seconds=240)
    assert (ended["state"], ended["reason"]) == ("expired", "timed-out")
    [intent] = await market.charges(checkout["id"])
    assert (intent["status"], intent["amount_received"]) == ("canceled", 0)
    level = await market.level("SKU-2")
    assert (level["on_hand"], level["reserved"]) == (before["on_hand"], before["reserved"])
    again = await shopper.check_out(checkout["cart_id"], key="again", method=VISA, wait_seconds=20)
    assert (await shopper.outcome(again, patience_seconds=240))["state"] == "confirmed"


async def test_a_cart_is_bought_at_the_first_new_try_in_whatever_order_it_hears_of_the_old_one_and_the_new(
    market: Market,
) -> None:
    shoppers = [market.shop.shopper(f"customer:undaunted-{number}") for number in range(8)]
    first = await asyncio.gather(*(_start(market, each, {"SKU-1": 1}, CHALLENGED, wait=20) for each in shoppers))
    assert {checkout["state"] for checkout in first} == {"paying"}
    await market.stack.kill("cart.worker")
    for shopper, checkout in zip(shoppers, first, strict=True):
        await _cancel(market, shopper, checkout)
        ended = await shopper.outcome(checkout, patience_seconds=240)
        assert ended["state"] == "canceled"
        again = await shopper.check_out(checkout["cart_id"], key="undaunted", method=VISA, wait_seconds=0)
        assert again["state"] == "started"
    # What lies in different partitions by now is read in any order.
    await market.stack.start_process("cart.worker")
    for shopper, checkout in zip(shoppers, first, strict=True):
        again = await shopper.check_out(checkout["cart_id"], key="undaunted", method=VISA, wait_seconds=20)
        ended = await shopper.outcome(again, patience_seconds=240)
        assert (ended["state"], ended.get("reason")) == ("confirmed", None)


async def _refused(market: Market, service: str) -> list[dict[str, Any]]:
    token = await operator(market.api).token()
    items: list[dict[str, Any]] = (await market.api.call(service, "GET", "/ops/parked-messages", token=token)).body["items"]
    return items


async def test_what_costs_nothing_is_bought_called_off_and_put_back_without_a_word_to_the_provider(market: Market) -> None:
    await market.stock_of("GRATIS", 3, unit_minor=0)
    shopper = market.shop.shopper("customer:lucky")
    checkout = await _start(market, shopper, {"GRATIS": 2}, "pm_card_chargeDeclined", wait=20)
    assert (checkout["state"], checkout["total_minor"], "payment_id" in checkout) == ("confirmed", 0, False)
    path = f"/v1/orders/{checkout['order_id']}"
    order = await market.shop.order(checkout["order_id"])
    assert (order["state"], order["payment_state"], "payment_id" in order) == ("confirmed", "captured", False)
    with pytest.raises(RefusedError, match="order-not-captured"):
        await _post(market, market.shop, f"{path}/refunds", "gratis-refund", {"reason": "regret"})
    off = await _post(market, market.shop, f"{path}/cancel", "gratis-off")
    assert (off["state"], "payment_state" in off) == ("canceled", False)
    level = await market.level("GRATIS")
    assert (level["on_hand"], level["reserved"], level["sold"]) == (3, 0, 0)
    # What was bought after it has been through payments, so what was said of it has too.
    after = await shopper.outcome(await _start(market, shopper, {"SKU-0": 1}, wait=20), patience_seconds=240)
    await settled(market.api, market.shop.tenant_id, [after["id"]], [after["id"]])
    assert await market.charges(checkout["id"]) == []
    assert [await _refused(market, service) for service in ("payments", "cart", "checkout")] == [[], [], []]

    begun, then = ["checkout.requested", "cart.frozen", "order.confirmed"], ["cart.ordered", "order.canceled"]
    story: list[str] = []

    async def is_told() -> bool:
        token = await market.shop.token()
        told = (await market.api.call("checkout", "GET", f"{path}/timeline", token=token)).body["items"]
        story[:] = [entry["name"] for entry in told]
        return {*then} <= {*story}

    await market.until(is_told)
    steps = [name for name in story if name in begun + then]
    # A cart may hear of the confirmation after the order was called off.
    assert (steps[:3], sorted(steps[3:])) == (begun, then)
    assert not any("payment" in name for name in story)


async def test_the_steps_of_a_purchase_stream_to_whoever_watches_until_it_is_over(market: Market) -> None:
    shopper = market.shop.shopper("customer:watching")
    checkout = await _start(market, shopper, {"SKU-1": 1}, CHALLENGED, wait=20)
    url = f"{market.stack.description().services['checkout'].url}/v1/checkouts/{checkout['id']}/events"
    headers = {"Authorization": f"Bearer {await shopper._tokens.token()}"}
    steps: list[str] = []
    async with asyncio.timeout(240), aiohttp.ClientSession() as session, session.get(url, headers=headers) as stream:
        async for line in stream.content:
            if line.startswith(b"event: "):
                steps.append(line.decode().removeprefix("event: ").strip())
            if steps == ["paying"] and line == b"\n":
                await _cancel(market, shopper, checkout)
    assert steps[0] == "paying"
    assert steps[-1] == "canceled"


async def test_goods_that_leave_and_come_back_and_money_that_goes_back_show_on_the_order(market: Market) -> None:
    shopper = market.shop.shopper("customer:fickle")
    checkout = await shopper.outcome(await _start(market, shopper, {"SKU-0": 3}, wait=20), patience_seconds=240)
    order_id = checkout["order_id"]

    async def captured() -> bool:
        return bool((await market.shop.order(order_id))["payment_state"] == "captured")

    await market.until(captured)
    lines = [{"line_id": "1", "quantity": 2}]
    facts = [
        _by_fulfilment(market, order_id, 1, "shipment.dispatched", shipment_id="s", lines=lines),
        _by_fulfilment(market, order_id, 2, "shipment.delivered", shipment_id="s"),
        _by_fulfilment(market, order_id, 3, "return.received", return_id="r", lines=lines, restock=True),
    ]
    before = await market.level("SKU-0")
    async with publishing(market.api.stack) as publisher:
        await publisher.publish(fact.record() for fact in facts)
    asked = await market.shop.refund(order_id, key=f"refund-{order_id}", lines={"1": 2}, reason="came back")

    async def settled_too() -> bool:
        order = await market.shop.order(order_id)
        return bool(order["fulfilment_state"] == "returned" and order["refunds"][0]["state"] == "succeeded")

    await market.until(settled_too)
    order = await market.shop.order(order_id)
    assert (order["payment_state"], order["refunded_minor"]) == ("partially_refunded", asked["amount_minor"])
    level = await market.level("SKU-0")
    assert (level["on_hand"], level["sold"]) == (before["on_hand"] + 2, before["sold"] - 2), "put on the shelf once"
    given = Counter([refund["amount"] async for refund in market.api.provider_refunds() if refund["status"] == "succeeded"])
    assert given[asked["amount_minor"]] == 1


async def test_an_order_that_is_called_off_gives_its_money_and_its_goods_back_however_far_the_capture_had_come(
    market: Market,
) -> None:
    before = await market.level("SKU-3")
    shopper = market.shop.shopper("customer:regret")
    checkout = await shopper.outcome(await _start(market, shopper, {"SKU-3": 1}, wait=20), patience_seconds=240)
    path = f"/v1/orders/{checkout['order_id']}"
    try:
        await _post(market, market.shop, f"{path}/cancel", f"off-{checkout['order_id']}")
    except RefusedError as refused:
        if refused.code != "order-captured":
            raise
        await _post(market, market.shop, f"{path}/refunds", f"back-{checkout['order_id']}", {"restock": True, "reason": "regret"})

    async def given_back() -> bool:
        [intent] = await market.charges(checkout["id"])
        refunds = [each async for each in market.api.provider_refunds() if each["payment_intent"] == intent["id"]]
        returned = sum(each["amount"] for each in refunds if each["status"] == "succeeded")
        return bool(intent["status"] == "canceled" or returned == intent["amount_received"] == checkout["total_minor"])

    await market.until(given_back)

    async def on_the_shelf() -> bool:
        level = await market.level("SKU-3")
        return bool((level["on_hand"], level["sold"]) == (before["on_hand"], before["sold"]))

    await market.until(on_the_shelf)
