"""What the console is there to do, done in a real browser and then seen in the API, and refused there to who may only look.

The shop takes its money when goods are sent, so that what a buyer's bank holds is there to be taken, or let go of.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.staff import PASSWORD, joined, signed_in, tabbed_to
from tests.shared.market import Market
from tests.shared.verbs import buy

pytestmark = pytest.mark.asyncio(loop_scope="session")

GET = """async path => (await import("/console/session.js")).get(path)"""
TRIED = """async ([method, path, json]) => {
    const {call} = await import("/console/session.js");
    return call(method, path, {json: json ?? undefined, key: "k"}).then(() => null, error => [error.status, error.code]);
}"""
NOBODY = "00000000-0000-4000-8000-000000000000"
FORBIDDEN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", f"/v1/payments/{NOBODY}/capture", {}),
    ("POST", f"/v1/payments/{NOBODY}/void", {}),
    ("POST", f"/v1/payments/{NOBODY}/resolve", {"verdict": "read-again", "reason": "x"}),
    ("POST", f"/v1/orders/{NOBODY}/cancel", {}),
    ("PUT", "/v1/stock/SKU-1", {"policy": "untracked"}),
    ("PUT", "/v1/promotions/MINE", {"name": "Mine", "kind": "percentage", "percent": "100"}),
    ("DELETE", "/v1/promotions/MINE", {}),
    ("POST", "/v1/invitations", {"email": "friend@shop.test", "roles": ["owner"]}),
    ("PATCH", f"/v1/members/{NOBODY}", {"roles": ["owner"]}),
    ("POST", "/v1/roles", {"name": "mine", "description": "", "permissions": []}),
    ("POST", "/v1/api-keys", {"name": "Mine", "scopes": ["orders:read"]}),
    ("POST", "/v1/clients", {"name": "Mine", "scopes": ["orders:read"]}),
    ("GET", "/v1/audit-entries", {}),
    ("GET", "/v1/members", {}),
)
"""What a viewer may not do, whether or not what it is about is there."""
DENIED = {(403, "permission-missing")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(market: Market) -> AsyncIterator[Market]:
    """The market, once checkout has heard that its money is taken later."""
    path = f"/v1/tenants/{market.shop.tenant_id}"
    settings = {"settings": {"capture": "on-shipment"}}
    await market.api.call("identity", "PATCH", path, token=await market.shop.token(), body=settings)
    tries: list[str] = []

    async def is_heard() -> bool:
        tries.append("")
        _, checkout = await buy(market, f"hears-{len(tries)}", {"SKU-0": 1})
        return bool((await _payment(market, checkout["payment_id"]))["capture"] == "on-shipment")

    await market.until(is_heard)
    yield market


async def _payment(market: Market, payment_id: str) -> dict[str, Any]:
    reply = await market.api.call("payments", "GET", f"/v1/payments/{payment_id}", token=await market.shop.token())
    return dict(reply.body)


async def _held(market: Market, name: str) -> dict[str, Any]:
    """An order whose money a bank holds."""
    _, checkout = await buy(market, name, {"SKU-1": 2})
    return await _paid_so(market, checkout["order_id"], "authorized")


async def _paid_so(market: Market, order_id: str, state: str) -> dict[str, Any]:
    async def is_so() -> bool:
        return (await market.shop.order(order_id)).get("payment_state") == state

    await market.until(is_so)
    return await market.shop.order(order_id)


async def _comes_to(market: Market, payment_id: str, state: str) -> None:
    async def is_so() -> bool:
        return bool((await _payment(market, payment_id))["state"] == state)

    await market.until(is_so)


async def _intent(market: Market, order: dict[str, Any]) -> dict[str, Any]:
    """What the provider has of an order's money, by its own word."""
    [intent] = await market.charges(order["checkout_id"])
    return intent


async def _staff(visit: Visit, market: Market, name: str, *roles: str) -> Page:
    page = await visit()
    await signed_in(page, market, await joined(market, name, *roles))
    return page


async def _at_order(page: Page, order: dict[str, Any]) -> None:
    await page.goto(f"{page.url.partition('#')[0]}#/orders/{order['id']}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Order {order['number']}")


async def test_support_calls_an_order_off_and_what_its_buyers_bank_held_is_let_go(visit: Visit, shop: Market) -> None:
    order = await _held(shop, "called-off")
    page = await _staff(visit, shop, "Cal", "support")
    await _at_order(page, order)
    await page.get_by_role("button", name="Cancel …").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("the goods are for sale again")
    await dialog.get_by_role("button", name="Leave it").click()
    assert (await shop.shop.order(order["id"]))["state"] == "confirmed", "nothing is done before it is confirmed"
    await page.get_by_role("button", name="Cancel …").click()
    await dialog.get_by_role("button", name="Cancel the order").click()
    await expect(page.get_by_role("status")).to_contain_text(f"Order {order['number']} is canceled")
    await expect(page.get_by_role("button", name="Cancel …")).to_have_count(0)
    assert (await shop.shop.order(order["id"]))["state"] == "canceled"
    await _comes_to(shop, order["payment_id"], "voided")
    assert (await _intent(shop, order))["status"] == "canceled"


async def test_finance_takes_what_a_bank_holds_by_keyboard_alone(visit: Visit, shop: Market) -> None:
    order = await _held(shop, "taken")
    page = await _staff(visit, shop, "Finn", "finance")
    await _at_order(page, order)
    await tabbed_to(page, "Capture")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text("Takes all that is held, £2.02")
    await tabbed_to(page, "Capture")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("Asked for. The payment is")
    assert (await _paid_so(shop, order["id"], "captured"))["captured_minor"] == 202
    assert (await _intent(shop, order))["amount_received"] == 202


async def test_finance_lets_go_of_what_a_bank_holds(visit: Visit, shop: Market) -> None:
    order = await _held(shop, "let-go")
    page = await _staff(visit, shop, "Flo", "finance")
    await _at_order(page, order)
    await page.get_by_role("button", name="Void").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("to call the order off, cancel it instead")
    await dialog.get_by_role("button", name="Void").click()
    await expect(page.get_by_role("status")).to_contain_text("Asked for. The payment is")
    await _comes_to(shop, order["payment_id"], "voided")
    intent = await _intent(shop, order)
    assert (intent["status"], intent["amount_received"]) == ("canceled", 0)


@asynccontextmanager
async def _at_a_stand(market: Market, part: str) -> AsyncIterator[None]:
    """Nothing is done by this process meanwhile: what is asked for is seen before it is carried out."""
    pid = market.stack.pids()[part]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_finance_has_an_outcome_looked_into_that_nobody_knows_and_the_order_comes_of_it(visit: Visit, shop: Market) -> None:
    page = await _staff(visit, shop, "Fay", "finance")
    shopper = shop.shop.shopper("customer:unknown")
    cart_id = await shop.cart(shopper, {"SKU-2": 1})
    confirm = {"match": {"path": "/v1/payment_intents/*/confirm"}, "fault": "reset_after"}
    silence = {"match": {"path": "/v1/payment_intents/*"}, "fault": "reset_after"}
    unsaid = {"match": {"event": "payment_intent.*"}, "fault": "webhook_loss"}
    await shop.stack.put_faults([confirm, silence, unsaid])
    try:
        checkout = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_visa", wait_seconds=0)
        payment_id = await _asked_for(shop, checkout["id"])
        await _comes_to(shop, payment_id, "unknown")
        async with _at_a_stand(shop, "payments.worker"):
            await page.get_by_role("link", name="Payments").click()
            await page.get_by_role("row").filter(has_text=payment_id[-12:]).get_by_role("button", name="Look into it …").click()
            dialog = page.get_by_role("dialog")
            await expect(dialog).to_contain_text("nothing is ever sent to it anew on somebody's word")
            await dialog.get_by_label("Why").fill("the buyer has it on their statement")
            await dialog.get_by_role("button", name="Have it looked into").click()
            await expect(dialog.get_by_role("alert")).to_contain_text("Nothing was done")
            await shop.stack.put_faults([])
            await dialog.get_by_role("button", name="Have it looked into").click()
            await expect(page.get_by_role("status")).to_contain_text("Looked into as asked")
    finally:
        await shop.stack.put_faults([])
    ended = await shopper.outcome(checkout, patience_seconds=240)
    order = await _paid_so(shop, ended["order_id"], "authorized")
    assert (await _intent(shop, order))["status"] == "requires_capture"
    written = await (await _staff(visit, shop, "Otto", "owner")).evaluate(GET, "/v1/payments-audit-entries")
    assert "the buyer has it on their statement" in {entry.get("reason") for entry in written["items"]}


async def _asked_for(market: Market, checkout_id: str) -> str:
    """The payment of a checkout, once there is one."""
    found: list[str] = []

    async def is_there() -> bool:
        path = f"/v1/payments?checkout_id={checkout_id}"
        reply = await market.api.call("payments", "GET", path, token=await market.shop.token())
        found.extend(each["id"] for each in reply.body["items"])
        return bool(found)

    await market.until(is_there)
    return found[0]


async def test_an_owner_says_how_a_product_is_sold_and_the_audit_trail_says_who_did(visit: Visit, shop: Market) -> None:
    page = await _staff(visit, shop, "Olga", "owner")
    await page.get_by_role("link", name="Stock").click()
    await page.get_by_role("textbox", name="SKU").fill("SKU-4")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Stock")
    await page.get_by_role("row", name="SKU-4").get_by_role("button", name="Change …").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("When there is none").select_option("backorder")
    await dialog.get_by_role("button", name="Sell it so").click()
    await expect(page.get_by_role("status")).to_contain_text("SKU-4 is backorder now")
    assert (await shop.level("SKU-4"))["policy"] == "backorder"
    await page.get_by_role("link", name="Audit trail").click()
    await page.get_by_label("Service").select_option("checkout")
    await page.get_by_label("Kind of thing").fill("stock")
    await page.get_by_role("button", name="Search").click()
    me = (await page.evaluate(GET, "/v1/sessions/current"))["subject_id"]
    [entry] = (await page.evaluate(GET, f"/v1/checkout-audit-entries?object_kind=stock&actor={me}"))["items"]
    await expect(page.get_by_role("row").filter(has_text=entry["digest"][:10])).to_contain_text(me[-12:])


async def test_an_owner_gives_a_promotion_other_terms(visit: Visit, shop: Market) -> None:
    page = await _staff(visit, shop, "Pia", "owner")
    dialog, row = page.get_by_role("dialog"), page.get_by_role("row").filter(has_text="SPRING")
    await page.get_by_role("link", name="Promotions").click()
    await page.get_by_role("button", name="New promotion …").click()
    for label, value in (("Code", "SPRING"), ("Name", "Spring"), ("So much", "10"), ("Of these SKUs", "SKU-3")):
        await dialog.get_by_label(label, exact=True).fill(value)
    await dialog.get_by_role("button", name="Give it").click()
    await row.get_by_role("button", name="Change …").click()
    await dialog.get_by_label("So much").fill("12.5")
    await dialog.get_by_label("Uses at most").fill("40")
    await dialog.get_by_role("button", name="Change it").click()
    await expect(row).to_contain_text("0 of 40")
    given = await page.evaluate(GET, "/v1/promotions/SPRING")
    assert (given["percent"], given["max_uses"], given["skus"]) == ("12.5", 40, ["SKU-3"])


async def test_an_owner_makes_a_role_and_asks_in_changes_keeps_out_and_removes_who_has_it(visit: Visit, shop: Market) -> None:
    page = await _staff(visit, shop, "Ona", "owner")
    dialog = page.get_by_role("dialog")
    await page.get_by_role("link", name="Roles").click()
    await page.get_by_role("button", name="New role …").click()
    await dialog.get_by_label("Name").fill("packer")
    await dialog.get_by_label("orders:read").check()
    await dialog.get_by_role("button", name="Make it").click()
    await expect(page.get_by_role("row").filter(has_text="packer")).to_contain_text("orders:read")
    assert (await page.evaluate(GET, "/v1/roles/packer"))["permissions"] == ["orders:read"]
    await page.get_by_role("link", name="Members").click()
    await page.get_by_role("button", name="Invite …").click()
    await dialog.get_by_label("E-mail").fill("pat@shop.test")
    await dialog.get_by_label("packer").check()
    await dialog.get_by_role("button", name="Invite").click()
    token = await dialog.locator("code.secret").inner_text()
    accepted = {"token": token, "name": "Pat", "password": PASSWORD}
    pat = (await shop.api.call("identity", "POST", "/v1/invitations/accept", body=accepted)).body["id"]
    await dialog.get_by_role("button", name="I have it").click()
    await page.reload()
    await signed_in(page, shop, "ona@shop.test")
    await page.get_by_role("link", name="Members").click()
    await page.get_by_role("button", name="Roles of Pat").click()
    await dialog.get_by_label("viewer").check()
    await dialog.get_by_role("button", name="Change").click()
    row = page.get_by_role("row", name="Pat pat@shop.test")
    await expect(row).to_contain_text("viewer")
    assert {*(await page.evaluate(GET, f"/v1/members/{pat}"))["roles"]} == {"packer", "viewer"}
    for act, label, state in (("Keep out …", "Keep out", "deactivated"), ("Let in …", "Let in", "active")):
        await row.get_by_role("button", name=act).click()
        await dialog.get_by_role("button", name=label).click()
        await expect(row.get_by_text(state, exact=True)).to_be_visible()
        assert (await page.evaluate(GET, f"/v1/members/{pat}"))["state"] == state
    await row.get_by_role("button", name="Remove …").click()
    await dialog.get_by_role("button", name="Remove").click()
    await expect(row.get_by_role("button")).to_have_count(0)
    assert pat not in {each["id"] for each in (await page.evaluate(GET, "/v1/members"))["items"]}
    await page.get_by_role("link", name="Roles").click()
    await page.get_by_role("row").filter(has_text="packer").get_by_role("button", name="Delete …").click()
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("row").filter(has_text="packer")).to_have_count(0)


async def test_a_client_that_an_owner_makes_comes_in_until_it_is_removed(visit: Visit, shop: Market) -> None:
    page = await _staff(visit, shop, "Oda", "owner")
    dialog, row = page.get_by_role("dialog"), page.get_by_role("row").filter(has_text="Till")
    await page.get_by_role("link", name="Keys and clients").click()
    await page.get_by_role("button", name="New client …").click()
    await dialog.get_by_label("Name").fill("Till")
    await dialog.get_by_label("products:read").check()
    await dialog.get_by_role("button", name="Make it").click()
    secret = await dialog.locator("code.secret").inner_text()
    client_id = await dialog.get_by_role("heading").inner_text()
    await dialog.get_by_role("button", name="I have it").click()
    assert await _token_of(page, client_id, secret) == [200, "products:read"]
    await row.get_by_role("button", name="Remove …").click()
    await dialog.get_by_role("button", name="Remove").click()
    await expect(row).to_have_count(0)
    assert await _token_of(page, client_id, secret) == [401, "invalid_client"]


async def _token_of(page: Page, client_id: str, secret: str) -> list[Any]:
    """What the token endpoint says to a machine."""
    form: dict[str, str | float | bool] = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    answer = await page.context.request.post("/oauth/token", form=form)
    told = await answer.json()
    return [answer.status, told.get("scope", told.get("error"))]


async def test_what_a_viewer_may_not_do_has_no_button_and_the_api_refuses_it(visit: Visit, shop: Market) -> None:
    page = await _staff(visit, shop, "Vera", "viewer")
    order = await _held(shop, "looked-at")
    await _at_order(page, order)
    for button in ("Capture", "Void", "Cancel …", "Refund …"):
        await expect(page.get_by_role("button", name=button)).to_have_count(0)
    for link in ("Members", "Roles", "Keys and clients", "Audit trail", "Promotions"):
        await expect(page.get_by_role("link", name=link)).to_have_count(0)
    await page.get_by_role("link", name="Stock").click()
    await expect(page.get_by_role("rowheader", name="SKU-1")).to_be_visible()
    await expect(page.get_by_role("button", name="Change …")).to_have_count(0)
    answers = {(method, path): await page.evaluate(TRIED, [method, path, json or None]) for method, path, json in FORBIDDEN}
    assert {tuple(answer or ()) for answer in answers.values()} == DENIED, answers
    assert (await shop.shop.order(order["id"]))["payment_state"] == "authorized"
