"""A tenant is suspended under load, comes back, and one is closed: nothing new begins, and what was begun ends right."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from deploy.cli.api import RefusedError
from deploy.cli.publisher import Fact, publishing
from deploy.cli.shop import FINAL_STATES, Shop
from deploy.cli.standing import settled
from deploy.cli.supply import supply
from services import SERVICES
from tests.shared.market import OFFERS, Market, shop_at
from tests.shared.verbs import buy, cartwright, paid

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("eight processes at the end of a suspension; each route is in tests/integration/test_suspended_routes.py"),
]

SHOPPERS = 6
SUSPENDED = (403, "tenant-suspended")
ENDINGS = {"confirmed": {"succeeded"}, "failed": {"canceled"}, "canceled": {"canceled"}, "expired": {"canceled"}}
"""What may stand at the provider of a checkout that came to each end. Nothing but this: no money is held any more."""


async def _ask(market: Market, service: str, method: str, path: str, token: str, body: object = None) -> tuple[int, str]:
    try:
        answer = await market.api.call(service, method, path, token=token, body=body, key=uuid4().hex)
    except RefusedError as error:
        return error.status, error.code
    return answer.status, ""


NEW: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("cart", "POST", "/v1/carts", {}),
    ("checkout", "POST", "/v1/checkouts", {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}),
    ("checkout", "PUT", "/v1/shipping-methods/post", {"name": "Post", "price_minor": 1, "currency": "GBP"}),
    ("payments", "PUT", "/v1/provider-accounts/stripe", {"api_key": "sk_test_0123456789abcdef", "webhook_secrets": []}),
    ("identity", "PATCH", "/v1/tenants/{tenant_id}", {"name": "Another"}),
)
"""Something new at each service."""


async def _answers(market: Market, token: str) -> list[tuple[int, str]]:
    named = {"tenant_id": str(market.shop.tenant_id)}
    return [await _ask(market, service, method, path.format(**named), token, body) for service, method, path, body in NEW]


class Crowd:
    """Shoppers who buy and buy until they are turned away."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.begun: list[str] = []
        """The checkouts that were taken on."""
        self.turned_away: list[RefusedError] = []

    async def buys(self, number: int) -> None:
        shopper = self.market.shop.shopper(f"customer:crowd-{number}")
        while True:
            try:
                cart_id = await self.market.cart(shopper, {"SKU-2": 1})
                begun = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_visa", wait_seconds=0)
            except RefusedError as error:
                self.turned_away.append(error)
                return
            self.begun.append(begun["id"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowd(market: Market) -> AsyncIterator[Crowd]:
    crowd = Crowd(market)
    buying = [asyncio.create_task(crowd.buys(number)) for number in range(SHOPPERS)]
    yield crowd
    for each in buying:
        each.cancel()
    await asyncio.gather(*buying, return_exceptions=True)


async def _staffed(market: Market) -> Shop:
    """The same shop with a token of now."""
    return await shop_at(market.api, "suspension")


async def _guest(market: Market) -> dict[str, Any]:
    body = {"tenant_id": str(market.shop.tenant_id)}
    return dict((await market.api.call("identity", "POST", "/v1/sessions", body=body)).body)


async def _refreshed(market: Market, refresh_token: str) -> dict[str, Any]:
    url = f"{market.stack.description().services['identity'].url}/oauth/token"
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


async def _repriced(market: Market, unit_minor: int) -> None:
    facts = {"currency": "GBP", "unit_minor": unit_minor}
    fact = Fact("catalog.v1", "price.changed", "/test/catalogue", market.shop.tenant_id, "SKU-NEW", 2, facts)
    named = {"name": "New", "category": "things"}
    known = Fact("catalog.v1", "product.published", "/test/catalogue", market.shop.tenant_id, "SKU-NEW", 1, named)
    async with publishing(market.api.stack) as publisher:
        await publisher.publish(each.record() for each in (known, fact))


async def _held_up(market: Market) -> str:
    """A checkout that waits for its payer."""
    shopper = market.shop.shopper("customer:waiting")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    checkout = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_authenticationRequired", wait_seconds=1)

    async def asked() -> bool:
        nonlocal checkout
        checkout = await shopper.read_checkout(checkout["id"], wait_seconds=1)
        return bool(checkout.get("action_required"))

    await market.until(asked)
    return str(checkout["id"])


async def _states(market: Market, staff: Shop, checkout_ids: Iterable[str]) -> dict[str, str]:
    token, found = await staff.token(), dict[str, str]()
    for checkout_id in checkout_ids:
        answer = await market.api.call("checkout", "GET", f"/v1/checkouts/{checkout_id}", token=token)
        found[checkout_id] = answer.body["state"]
    return found


async def _all_is_over(market: Market, staff: Shop, checkout_ids: Iterable[str]) -> bool:
    """Whether each has come to an end, and the provider's money to the end that goes with it."""
    ended = await _states(market, staff, checkout_ids)
    if not {*ended.values()} <= FINAL_STATES:
        return False
    charges = await market.all_charges()
    return all({each["status"] for each in charges.get(key, [])} <= ENDINGS[state] for key, state in ended.items())


async def _is_turned_away(market: Market, crowd: Crowd, token: str) -> bool:
    return {*await _answers(market, token)} == {SUSPENDED} and len(crowd.turned_away) == SHOPPERS


async def test_a_suspended_tenant_begins_nothing_new_and_all_that_was_begun_ends_right(market: Market, crowd: Crowd) -> None:
    bought, waiting = await paid(market, "before"), await _held_up(market)
    guest, neighbour = await _guest(market), await market.another_shop("neighbour")
    old = await market.shop.token()

    async def is_busy() -> bool:
        return len(crowd.begun) >= SHOPPERS

    await market.until(is_busy)
    tenant = await settled(market.api, str(market.shop.tenant_id), "suspend")
    assert (tenant["status"], tenant["acknowledged"]) == ("suspended", dict.fromkeys(("cart", "checkout", "payments"), True))
    await market.until(lambda: _is_turned_away(market, crowd, old))
    assert {(error.status, error.code) for error in crowd.turned_away} <= {SUSPENDED, (401, "invalid-token")}
    staff = await _staffed(market)
    assert {*await _answers(market, await staff.token())} == {SUSPENDED}, "and with a token of now"

    # Who was let in reads on, and nobody else comes in.
    session = await _refreshed(market, guest["refresh_token"])
    assert await _ask(market, "cart", "GET", "/v1/carts", session["access_token"]) == (200, "")
    assert await _ask(market, "cart", "POST", "/v1/carts", session["access_token"], {}) == SUSPENDED
    with pytest.raises(RefusedError, match="tenant-suspended"):
        await _guest(market)
    await neighbour.shopper("customer:next-door").new_cart()

    # What was begun ends, and no money stays held.
    canceled = await _ask(market, "checkout", "POST", f"/v1/checkouts/{waiting}/cancel", await staff.token())
    assert canceled[0] in {200, 202}
    begun = (*crowd.begun, waiting, bought["id"])
    await market.until(lambda: _all_is_over(market, staff, begun), 180)
    ended, charges = await _states(market, staff, begun), await market.all_charges()
    assert (ended[waiting], ended[bought["id"]]) == ("canceled", "confirmed")
    confirmed = {key for key, state in ended.items() if state == "confirmed"}
    print(f"{len(ended)} checkouts under way, {len(confirmed)} confirmed")
    assert {order["checkout_id"] async for order in staff.orders()} == confirmed, "no order but of what was begun"
    assert {*charges} <= {*ended}, "and no payment"
    assert {key: [charge["status"] for charge in charges[key]] for key in confirmed} == {key: ["succeeded"] for key in confirmed}


async def test_staff_of_a_suspended_tenant_give_money_back_and_its_catalogue_stays_right(market: Market) -> None:
    await settled(market.api, str(market.shop.tenant_id), "suspend")
    staff = await _staffed(market)
    order_id = next(iter([order["id"] async for order in staff.orders() if order["payment_state"] == "captured"]))
    body = {"restock": True, "reason": "regret"}
    refund = await _ask(market, "checkout", "POST", f"/v1/orders/{order_id}/refunds", await staff.token(), body)
    assert refund == (202, "")

    async def is_given_back() -> bool:
        return bool((await staff.order(order_id))["payment_state"] == "refunded")

    await market.until(is_given_back)
    await _repriced(market, 777)

    async def is_priced() -> bool:
        return any([each["sku"] == "SKU-NEW" and each.get("unit_minor") == 777 async for each in staff.products()])

    await market.until(is_priced)


async def test_a_process_that_begins_while_a_tenant_is_suspended_knows_it_and_resuming_brings_it_back(market: Market) -> None:
    await settled(market.api, str(market.shop.tenant_id), "suspend")
    for service in ("cart", "checkout"):
        await market.stack.kill(f"{service}.api")
        await market.stack.start_process(f"{service}.api")
    assert {*await _answers(market, await (await _staffed(market)).token())} == {SUSPENDED}

    said = await cartwright(market, "tenants", "resume", "suspension", "--json")
    assert (said.code, said.told["status"], {*said.told["acknowledged"].values()}) == (0, "active", {True})
    market.shop = await _staffed(market)
    token = await market.shop.token()

    async def is_open() -> bool:
        return SUSPENDED not in await _answers(market, token)

    await market.until(is_open)
    _, checkout = await buy(market, "after", {"SKU-3": 1})
    assert checkout["state"] == "confirmed"
    said = await cartwright(market, "tenants", "suspend", "nobody-of-that-name")
    assert said.code == 2


async def test_of_a_tenant_that_is_closing_money_still_ends_and_all_of_it_is_taken_away(market: Market, tmp_path: Path) -> None:
    shop = await shop_at(market.api, "leaving")
    leaving = Market(market.stack, market.api, shop)
    await supply(shop, "GBP", OFFERS, print)
    bought = await paid(leaving, "last")
    said = await cartwright(market, "tenants", "close", "leaving", "--json")
    assert (said.code, said.told["status"], {*said.told["acknowledged"].values()}) == (0, "closing", {True})
    staff = await shop_at(market.api, "leaving")

    async def bites() -> bool:
        return {*await _answers(leaving, await staff.token())} == {(403, "tenant-closing")}

    await market.until(bites)
    assert (await cartwright(market, "tenants", "resume", "leaving")).code != 0, "there is no way back"
    path, body = f"/v1/orders/{bought['order_id']}/refunds", {"restock": True, "reason": "the end"}
    assert await _ask(leaving, "checkout", "POST", path, await staff.token(), body) == (202, "")

    async def is_given_back() -> bool:
        return bool((await staff.order(bought["order_id"]))["payment_state"] == "refunded")

    await market.until(is_given_back)
    taken: list[dict[str, Any]] = []

    async def stands_still() -> bool:
        """Webhooks of money that has ended are still being taken."""
        folder = tmp_path / str(len(taken))
        said = await cartwright(market, "tenants", "export", "leaving", str(folder), "--json")
        assert said.code == 0, said.out
        assert json.loads((folder / "manifest.json").read_text()) == said.told
        taken.append(said.told)
        digests = [[part["sha256"] for part in each["parts"]] for each in taken[-2:]]
        return len(taken) > 1 and digests[0] == digests[1]

    await market.until(stands_still, 120)
    assert [part["service"] for part in taken[-1]["parts"]] == [*SERVICES]
    counts = {name: count for part in taken[-1]["parts"] for name, count in part["counts"].items()}
    assert (counts["customer_order"], counts["payment"], counts["product"], counts["client"]) == (1, 1, len(OFFERS), 1)
    lines = (tmp_path / "0" / "checkout.jsonl").read_text().splitlines()
    [order] = [each["row"] for each in map(json.loads, lines) if each.get("table") == "customer_order"]
    assert (order["id"], order["payment_state"]) == (bought["order_id"], "refunded")
