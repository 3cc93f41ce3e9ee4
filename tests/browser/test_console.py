"""The console in a real browser: people come in, do their work and no more than theirs, and leave nothing behind."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from deploy.cli.publisher import Fact, publishing
from tests.browser.buying import Buyer
from tests.browser.conftest import Visit
from tests.browser.staff import code_of, joined, pictured, signed_in, tabbed_to, to_identity
from tests.browser.visits import barriers
from tests.shared.market import Market
from tests.shared.verbs import cartwright, held_for_no_order, paid

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEPT = """async () => [localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length]"""
REFUSED = """async path => {
    const {call} = await import("/console/session.js");
    return call("POST", path, {json: {reason: "x"}, key: "k"}).then(() => null, error => [error.status, error.code]);
}"""
VIEWS = (
    "",
    "orders",
    "reviews",
    "payments",
    "parked",
    "reconciliations",
    "stock",
    "promotions",
    "members",
    "roles",
    "keys",
    "audit",
    "me",
)


@dataclass(frozen=True)
class Day:
    """A day's work: an order that was paid."""

    market: Market
    order: dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def day(market: Market) -> AsyncIterator[Day]:
    checkout = await paid(market, "console")
    yield Day(market, await market.shop.order(checkout["order_id"]))


async def test_an_owner_comes_in_with_code_and_second_factor_and_a_reload_knows_nobody(visit: Visit, day: Day) -> None:
    email = await joined(day.market, "Ola", "owner")
    page = await visit()
    await signed_in(page, day.market, email)
    await page.get_by_role("link", name="My log-in").click()
    await page.get_by_role("button", name="Set one up").click()
    secret = await page.get_by_role("dialog").locator("code.secret").inner_text()
    await page.get_by_label("Code").fill(code_of(secret))
    await page.get_by_role("button", name="It works").click()
    await expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    await page.get_by_role("button", name="I have it").click()
    await expect(page.get_by_text("active", exact=True)).to_be_visible()
    assert await page.evaluate(KEPT) == [0, 0, "", 0]
    assert await page.context.cookies() == []
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await to_identity(page, day.market, email)
    [authorize] = [url for url in asked if "/oauth/authorize?" in url]
    assert "code_challenge_method=S256" in authorize
    await page.get_by_label("Code of your authenticator app").fill(code_of(secret, ahead=1))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert "code=" not in page.url
    assert await page.evaluate(KEPT) == [0, 0, "", 0]
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("alert")).to_contain_text("You are signed out")


async def test_support_finds_an_order_and_gives_money_back_by_keyboard_alone(visit: Visit, day: Day) -> None:
    number = str(day.order["number"])
    page = await visit()
    await signed_in(page, day.market, await joined(day.market, "Sue", "support"))
    for link in ("Members", "Keys and clients", "Audit trail"):
        await expect(page.get_by_role("link", name=link)).to_have_count(0)
    await tabbed_to(page, "Orders")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Orders")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    await tabbed_to(page, number)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Order {number}")
    await expect(page.get_by_role("img", name="The order's way")).to_be_visible()
    await pictured(page, "console-order", height=1200)
    await tabbed_to(page, "Refund …")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text("Money goes back to the card it came from")
    assert await barriers(page) == []
    await page.keyboard.press("ArrowDown")
    await tabbed_to(page, "Amount in GBP")
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("1.00")
    await tabbed_to(page, "Why")
    await page.keyboard.type("arrived broken")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("A refund of £1.00 was asked for")
    await expect(page.get_by_role("cell", name="arrived broken", exact=True)).to_be_visible()
    refunds = (await day.market.shop.order(day.order["id"]))["refunds"]
    assert [(each["amount_minor"], each["reason"]) for each in refunds] == [(100, "arrived broken")]
    await page.get_by_label("A new note").fill("Sent a photograph")
    await page.get_by_role("button", name="Write it down").click()
    await expect(page.get_by_role("cell", name="Sent a photograph")).to_be_visible()


async def test_support_finds_an_order_by_what_is_known_of_it_and_takes_one_piece_of_a_line_back(visit: Visit, day: Day) -> None:
    order = await day.market.shop.order((await paid(day.market, "returns"))["order_id"])
    number = str(order["number"])
    page = await visit()
    await signed_in(page, day.market, await joined(day.market, "Sid", "support"))
    await page.get_by_role("link", name="Orders", exact=True).click()
    search = page.get_by_role("search")
    for label, value, fits in (("Number", number, True), ("SKU", "SKU-1", True), ("E-mail", "nobody@shop.test", False)):
        await search.get_by_label(label).fill(value)
        await search.get_by_role("button", name="Search").click()
        await expect(page.get_by_text("No order fits.") if not fits else page.get_by_role("link", name=number)).to_be_visible()
        await search.get_by_label(label).fill("")
    await search.get_by_label("State").select_option("confirmed")
    await search.get_by_label("Money").select_option("captured")
    await search.get_by_role("button", name="Search").click()
    await page.get_by_role("link", name=number, exact=True).click()
    await page.get_by_role("button", name="Refund").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Some of the lines").check()
    await dialog.get_by_label("Product 1 (of 2)").fill("1")
    await dialog.get_by_label("The goods came back").check()
    await dialog.get_by_label("Why").fill("wrong size")
    await dialog.get_by_role("button", name="Give it back").click()
    await expect(page.get_by_role("status")).to_contain_text("A refund of £1.01 was asked for")
    [refund] = (await day.market.shop.order(order["id"]))["refunds"]
    assert (refund["amount_minor"], refund["reason"], refund["restock"]) == (101, "wrong size", True)


async def test_money_that_nobody_here_knows_of_waits_for_a_person_who_closes_it_with_a_reason(visit: Visit, day: Day) -> None:
    await held_for_no_order(day.market)
    compared = await cartwright(day.market, "reconcile", "--tenant", "market", "--grace-seconds", "0", "--json")
    assert "missing-here" in {each["kind"] for each in compared.told["tenants"][0]["breaks"]}
    page = await visit()
    await signed_in(page, day.market, await joined(day.market, "Fay", "finance"))
    await page.goto(f"{page.url.partition('#')[0]}#/reviews?kind=break-open")
    row = page.get_by_role("row").filter(has_text="missing here")
    await row.get_by_role("button", name="Close it").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("This ")
    await dialog.get_by_label("Why").fill("paid over the telephone")
    await dialog.get_by_role("button", name="Close it").click()
    await expect(row).to_have_count(0)


async def test_a_viewer_sees_the_same_order_without_the_buttons_and_the_call_is_refused(visit: Visit, day: Day) -> None:
    page = await visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    await signed_in(page, day.market, await joined(day.market, "Vic", "viewer"))
    path = f"/v1/orders/{day.order['id']}"
    await page.goto(f"{page.url.partition('#')[0]}#/orders/{day.order['id']}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Order {day.order['number']}")
    for button in ("Refund", "Cancel", "Write it down"):
        await expect(page.get_by_role("button", name=button)).to_have_count(0)
    for act in ("refunds", "cancel"):
        assert await page.evaluate(REFUSED, f"{path}/{act}") == [403, "permission-missing"]
    assert await barriers(page) == [], "dark, and on a phone"
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is beyond a phone's edge"
    assert (await day.market.shop.order(day.order["id"]))["state"] == "confirmed"


async def test_an_admin_is_told_why_a_parked_message_still_fails_and_gives_it_up_with_a_reason(visit: Visit, day: Day) -> None:
    market, sku = day.market, "GAPPY"
    parts: list[tuple[int, str, dict[str, Any]]] = [
        (1, "stock.counted", {"quantity": 10}),
        (3, "stock.adjusted", {"delta": -2, "reason": "test"}),
    ]
    tenant = market.shop.tenant_id
    facts = [
        Fact("inventory.v1", kind, "/test/inventory", tenant, sku, number, {"location": "shop", **content})
        for number, kind, content in parts
    ]
    async with publishing(market.api.stack) as publisher:
        await publisher.publish(fact.record() for fact in facts)
    page = await visit()
    await signed_in(page, market, await joined(market, "Ada", "admin"))
    await _until_parked(page)
    row = page.get_by_role("row").filter(has_text="stock.adjusted")
    await row.get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Replay it").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("nothing was done")
    await page.keyboard.press("Escape")
    await row.get_by_role("button", name="Discard").click()
    await expect(dialog).to_contain_text("what it told is lost to this service for good")
    await dialog.get_by_label("Why").fill("counted anew tomorrow")
    await dialog.get_by_role("button", name="Discard it").click()
    await expect(row).to_have_count(0)
    await page.get_by_label("Which").select_option("discarded")
    await expect(row.get_by_text("discarded", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Audit trail").click()
    await page.get_by_label("Service").select_option("checkout")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("cell", name="counted anew tomorrow")).to_be_visible()


async def _until_parked(page: Page) -> None:
    """Look again until it is there."""
    for _ in range(200):
        await page.goto(f"{page.url.partition('#')[0]}#/parked")
        await expect(page.get_by_role("heading", name="checkout")).to_be_visible()
        if await page.get_by_role("row").filter(has_text="stock.adjusted").count():
            return
        await page.get_by_role("link", name="Stock").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Stock")
    raise AssertionError("no message was ever parked")


async def test_every_view_is_without_barriers_and_says_so_when_it_is_empty(visit: Visit, day: Day) -> None:
    page = await visit()
    await signed_in(page, day.market, await joined(day.market, "Grace", "owner"))
    found = {}
    for view in VIEWS:
        await page.goto(f"{page.url.partition('#')[0]}#/{view}")
        await page.wait_for_function("view => document.getElementById('content').dataset.view === view", arg=f"#/{view}")
        await expect(page.get_by_role("alert")).to_have_count(0)
        found[view] = await barriers(page)
        if not view:
            await pictured(page, "console-overview", height=720)
    assert not any(found.values()), found


async def test_a_key_that_an_owner_makes_is_shown_once_and_removed(visit: Visit, day: Day) -> None:
    page = await visit()
    await signed_in(page, day.market, await joined(day.market, "Kay", "owner"))
    await page.get_by_role("link", name="Keys and clients").click()
    await page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Warehouse")
    await dialog.get_by_role("button", name="Make it").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("scopes")
    await dialog.get_by_label("products:read").check()
    await dialog.get_by_role("button", name="Make it").click()
    await expect(dialog.get_by_role("heading", name="The key of Warehouse")).to_be_visible()
    assert (await dialog.locator("code.secret").inner_text()).startswith("cwk_")
    await dialog.get_by_role("button", name="I have it").click()
    row = page.get_by_role("row").filter(has_text="Warehouse")
    await expect(row).to_contain_text("products:read")
    await row.get_by_role("button", name="Remove").click()
    await expect(dialog).to_contain_text("end within five seconds")
    await dialog.get_by_role("button", name="Remove").click()
    await expect(row).to_have_count(0)
    assert "cwk_" not in await page.content()


async def test_an_operator_suspends_a_shop_and_opens_it_again(visit: Visit, day: Day) -> None:
    secret = day.market.stack.description().platform_secret_file.read_text(encoding="utf-8").strip()
    page = await visit()
    await page.goto("/console/")
    await page.get_by_text("I run the platform").click()
    await page.get_by_label("Secret").fill("not the secret")
    await page.get_by_role("button", name="Sign in as operator").click()
    await expect(page.get_by_role("alert")).to_contain_text("no such client, or not its secret")
    await page.get_by_label("Secret").fill(secret)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")
    assert await page.evaluate(KEPT) == [0, 0, "", 0]
    assert await barriers(page) == []
    row, dialog = page.get_by_role("row").filter(has_text="market"), page.get_by_role("dialog")
    for act, comes_to in (("Suspend", "suspended"), ("Resume", "active")):
        await row.get_by_role("button", name=act).click()
        await dialog.get_by_role("button", name=act).click()
        await expect(row.get_by_text(comes_to, exact=True)).to_be_visible()


async def test_what_an_owner_takes_off_is_taken_off_for_who_enters_its_code_until_it_is_ended(visit: Visit, day: Day) -> None:
    page = await visit()
    await signed_in(page, day.market, await joined(day.market, "Pru", "owner"))
    await page.get_by_role("link", name="Promotions").click()
    await page.get_by_role("button", name="New promotion").click()
    dialog = page.get_by_role("dialog")
    for label, value in (("Code", "FIFTH"), ("Name", "A fifth off"), ("So much", "20")):
        await dialog.get_by_label(label, exact=True).fill(value)
    await dialog.get_by_label("Only for who enters its code").check()
    await dialog.get_by_role("button", name="Give it").click()
    row = page.get_by_role("row").filter(has_text="FIFTH")
    await expect(row).to_contain_text("20 %")

    buyer = await (await Buyer(await visit()).look()).choose("Product 4", 5)
    shop = buyer.page
    await expect(shop.get_by_text("In stock")).to_be_visible()
    for code, told in (("NONE", "There is no such coupon."), ("fifth", "£1.04 off")):
        await shop.get_by_label("Coupon").fill(code)
        await shop.get_by_role("button", name="Use it").click()
        await expect(shop.locator("main").get_by_text(told).first).to_be_visible()
    await expect(shop.locator(".totals")).to_contain_text("A fifth off")
    assert await barriers(shop) == []

    await row.get_by_role("button", name="End").click()
    await dialog.get_by_role("button", name="End it").click()
    await expect(page.get_by_text("Nothing is taken off at present.")).to_be_visible()
    await shop.reload()
    await expect(shop.get_by_text("There is no such promotion any more.")).to_be_visible()
