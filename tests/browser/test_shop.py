"""Buying in the shop, in a real browser: whatever a buyer does there it is one order and one charge, and the page says so."""

import asyncio
import re
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from deploy.cli.welcome import prepare
from tests.browser.buying import CHALLENGED, DECLINED, GOOD, Books, Buyer, code_for, sign_in_link
from tests.browser.conftest import Visit
from tests.browser.front import Front
from tests.browser.visits import PATIENCE_SECONDS, Visits, barriers
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}

SLOW = {"offline": False, "latency": 300, "downloadThroughput": 50_000, "uploadThroughput": 20_000}
"""A bad day of a mobile network: milliseconds, and bytes a second."""


@pytest_asyncio.fixture(loop_scope="session")
async def books(market: Market) -> Books:
    return await Books.opened(market)


async def test_a_guest_buys_on_a_phone_with_a_slow_network_and_sees_the_order_happen_and_money_come_back(
    market: Market, visit: Visit, books: Books
) -> None:
    phone = await visit(**PHONE)
    await (await phone.context.new_cdp_session(phone)).send("Network.emulateNetworkConditions", SLOW)
    buyer = await Buyer(phone).look()
    await (await (await buyer.choose("Product 1", 2)).go_to_checkout()).pay()
    order = await books.have_one_more(await buyer.thanked())
    assert order["total_minor"] == 2 * 101
    page = buyer.page
    await page.get_by_role("link", name="See your order").click()
    await expect(page.get_by_role("heading", name=f"Order {order['number']}")).to_be_visible()
    await expect(page.locator("#standing")).to_have_text("Paid.")
    await expect(page.get_by_text("Your order was confirmed")).to_be_visible()
    await market.shop.refund(order["id"], key="in-browser", lines={order["lines"][0]["line_id"]: 1}, reason="one is chipped")
    await expect(page.get_by_text("£1.01 arrived: one is chipped")).to_be_visible()
    await expect(page.locator("#standing")).to_have_text("Paid, and part of it has been given back.")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than a phone"


async def test_a_shopper_comes_in_by_a_link_and_brings_the_guests_cart_along(market: Market, visit: Visit, books: Books) -> None:
    buyer = await (await Buyer(await visit()).look()).choose("Product 2")
    await expect(buyer.page.locator("#basket")).to_have_text("Cart (1)")
    link, subject_id = await sign_in_link(market, "customer:browser")
    await buyer.page.goto(f"/?shop=market{link}")
    await expect(buyer.page.locator("#you")).to_have_text("Signed in")
    await buyer.page.locator(".card").first.wait_for()
    await expect(buyer.page.locator("#basket")).to_have_text("Cart (1)")
    assert "rt_" not in buyer.page.url, "what lets one in does not stay in the address"
    await buyer.page.get_by_role("link", name="Cart (1)").click()
    await (await buyer.go_to_checkout()).pay()
    order = await books.have_one_more(await buyer.thanked())
    assert order["subject_id"] == str(subject_id)
    await buyer.page.get_by_role("link", name="Orders").click()
    await expect(buyer.page.get_by_role("link", name=f"Order {order['number']}")).to_be_visible()


async def test_a_guest_stays_who_they_are_over_a_reload_and_no_script_finds_what_lets_them_in(
    visit: Visit, market: Market, books: Books
) -> None:
    buyer = await (await Buyer(await visit()).look()).choose("Product 0")
    page = buyer.page
    await (await buyer.go_to_checkout()).pay()
    order = await books.have_one_more(await buyer.thanked())
    await (await buyer.look()).choose("Product 2")
    await page.reload()
    await expect(page.locator("#basket")).to_have_text("Cart (1)")
    await page.goto(f"/?shop=market#/o/{order['id']}")
    await expect(page.get_by_role("heading", name=f"Order {order['number']}")).to_be_visible()
    seen = await page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert not re.search(r"rt_[0-9a-f]{32}|eyJ\w+\.", seen), "a token lies where scripts read"
    [cookie] = await page.context.cookies(f"{page.url.partition('?')[0]}oauth/token")
    assert cookie["value"].startswith("rt_")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/oauth/token")
    for link in ("#/in/rt_forged", (await sign_in_link(market, "customer:stays"))[0]):
        await page.goto(f"/?shop=market{link}")
        name = "Not signed in" if "forged" in link else "Welcome to"
        await expect(page.get_by_role("heading", name=name)).to_be_visible()
        await expect(page.locator("#basket")).to_have_text("Cart (1)")
    await page.reload()
    await expect(page.locator("#you")).to_have_text("Signed in")


async def test_a_declined_card_is_told_and_another_buys_the_same_cart_once(visit: Visit, books: Books) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 0")).go_to_checkout(DECLINED)
    await buyer.pay()
    await buyer.told_no("Your bank declined the card. You have not been charged.")
    await books.are_the_same()
    await buyer.page.get_by_role("link", name="Try another card").click()
    await (await buyer.fill_in(GOOD)).pay()
    await books.have_one_more(await buyer.thanked())


async def test_a_challenge_is_met_on_the_banks_page_and_leads_back(visit: Visit, books: Books) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 3")).go_to_checkout(CHALLENGED)
    await buyer.pay()
    page = buyer.page
    await expect(page.get_by_text("Nothing is paid until you have confirmed.")).to_be_visible()
    await books.are_the_same()
    await page.get_by_role("link", name="Continue to your bank").click()
    await page.get_by_role("button", name="Complete authentication").click()
    await books.have_one_more(await buyer.thanked())
    assert "client_secret" not in page.url


async def test_pay_pressed_twice_a_reload_and_back_in_the_middle_make_one_order(visit: Visit, books: Books) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 4")).go_to_checkout()
    page = buyer.page
    await page.locator("#pay").dblclick()
    await page.reload()
    checkout_id = await buyer.thanked()
    await page.go_back()
    await expect(page.get_by_text("There is nothing to pay for.")).to_be_visible()
    await page.go_forward()
    assert await buyer.thanked() == checkout_id
    await page.reload()
    assert await buyer.thanked() == checkout_id
    await books.have_one_more(checkout_id)


async def test_back_while_the_bank_is_asked_shows_the_purchase_under_way_and_no_second_form(visit: Visit, books: Books) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 1")).go_to_checkout(CHALLENGED)
    await buyer.pay()
    page = buyer.page
    bank = page.get_by_role("link", name="Continue to your bank")
    await bank.wait_for()
    await page.go_back()
    await expect(page.get_by_text("You are buying what is in this cart just now.")).to_be_visible()
    assert await page.locator("#pay").count() == 0
    await page.get_by_role("link", name="See how far it is").click()
    await bank.click()
    await page.get_by_role("button", name="Fail authentication").click()
    await buyer.told_no("You have not been charged.")
    await books.are_the_same()


async def test_two_tabs_that_pay_at_once_make_one_order(visit: Visit, books: Books) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 2")).go_to_checkout()
    other = Buyer(await buyer.page.context.new_page())
    await other.page.goto(buyer.page.url)
    await other.fill_in()
    await asyncio.gather(buyer.pay(), other.pay())
    checkout_ids = {await each.thanked() for each in (buyer, other)}
    assert len(checkout_ids) == 1
    await books.have_one_more(checkout_ids.pop())


async def test_a_network_cut_during_pay_is_told_and_the_same_order_is_asked_for_again(visit: Visit, books: Books) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 3")).go_to_checkout()
    page, keys = buyer.page, list[str]()

    async def lose_the_first_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch(timeout=PATIENCE_SECONDS * 1000)  # it arrives, and the answer does not
            await route.abort("connectionreset")
        elif len(keys) == 2:
            await route.abort("internetdisconnected")
        else:
            await route.continue_()

    await page.route("**/v1/checkouts", lose_the_first_answer)
    await buyer.pay()
    await expect(page.locator("#connection")).to_contain_text("Nothing is lost, and nothing happens twice")
    checkout_id = await buyer.thanked()
    await expect(page.locator("#connection")).to_be_hidden()
    assert len(keys) >= 3
    assert len(set(keys)) == 1
    await books.have_one_more(checkout_id)


async def test_a_bank_that_does_not_answer_is_told_as_what_nobody_knows_until_somebody_does(
    market: Market, visit: Visit, books: Books
) -> None:
    buyer = await (await (await Buyer(await visit()).look()).choose("Product 4")).go_to_checkout()
    silence = {"match": {"path": "/v1/payment_intents/*"}, "fault": "reset_after"}
    unsaid = {"match": {"event": "payment_intent.*"}, "fault": "webhook_loss"}
    await market.stack.put_faults([{"match": {"path": "/v1/payment_intents/*/confirm"}, "fault": "reset_after"}, silence, unsaid])
    try:
        await buyer.pay()
        await expect(buyer.page.get_by_text("we do not know yet whether it said yes")).to_be_visible()
        await expect(buyer.page.get_by_text("You are never charged twice: do not order again.")).to_be_visible()
    finally:
        await market.stack.put_faults([])
    await books.have_one_more(await buyer.thanked())


async def test_what_is_sold_out_is_told_and_nothing_is_charged(market: Market, visit: Visit, books: Books) -> None:
    await market.stock_of("LAST-ONE", 1)
    buyer = await (await (await Buyer(await visit()).look()).choose("LAST-ONE", 2)).go_to_checkout()
    await buyer.pay()
    await buyer.told_no("Sold out: there are not as many left as you wanted. You have not been charged.")
    await books.are_the_same()


async def test_a_price_that_rises_before_pay_is_told_and_nobody_pays_more_without_saying_so(
    market: Market, visit: Visit, books: Books
) -> None:
    await market.stock_of("DEARER", 5)
    buyer = await (await (await Buyer(await visit()).look()).choose("DEARER")).go_to_checkout()
    page = buyer.page
    await expect(page.locator("#pay")).to_have_text("Pay £2.50")
    await market.reprice("DEARER", 300, sequence=3)
    await buyer.pay()
    await buyer.told_no("A price has risen since you put it in the cart. You have not been charged.")
    await books.are_the_same()
    await page.get_by_role("link", name="To the cart").click()
    await expect(page.get_by_text("it was £2.50")).to_be_visible()
    await buyer.go_to_checkout()
    await page.get_by_label("I buy at what is shown here").check()
    await expect(page.locator("#pay")).to_have_text("Pay £3.00")
    await buyer.pay()
    assert (await books.have_one_more(await buyer.thanked()))["total_minor"] == 300


async def test_two_shops_look_different_and_one_can_be_walked_by_keyboard(market: Market, visit: Visit) -> None:
    other = await market.another_shop("lantern")
    look = {"accent": "#ffcc00", "logo_text": "Lantern", "tagline": "Light for the dark months", "corners": "square"}
    path = f"/v1/tenants/{other.tenant_id}"
    await market.api.call("identity", "PATCH", path, token=await other.token(), body={"settings": {"storefront": look}})
    plain, dressed = (await Buyer(await visit(reduced_motion="reduce")).look()).page, await visit()
    await dressed.goto("/?shop=lantern")
    await expect(dressed.get_by_role("heading", name="Light for the dark months")).to_be_visible()
    seen = [(await page.locator("#logo").text_content(), await _colours(page)) for page in (plain, dressed)]
    assert seen == [("market", ["rgb(15, 107, 92)", "rgb(255, 255, 255)"]), ("Lantern", ["rgb(255, 204, 0)", "rgb(0, 0, 0)"])]
    await plain.keyboard.press("Tab")
    await expect(plain.get_by_role("link", name="Skip to the content")).to_be_focused()
    await plain.get_by_role("link", name="Product 0").focus()
    await plain.keyboard.press("Enter")
    await expect(plain.get_by_role("heading", name="Product 0")).to_be_focused()
    await plain.get_by_role("button", name="Put in the cart").focus()
    await plain.keyboard.press("Enter")
    await expect(plain.get_by_text("It is in your cart.")).to_be_visible()


async def _colours(page: Page) -> list[str]:
    script = "() => {const seen = getComputedStyle(document.querySelector('header')); return [seen.backgroundColor, seen.color]}"
    return list(await page.evaluate(script))


async def test_no_page_of_the_shop_breaks_a_rule_of_accessibility_by_day_or_by_night(visit: Visit) -> None:
    buyer = await Buyer(await visit(reduced_motion="reduce")).look()
    page, faults = buyer.page, list[str]()

    async def judge() -> None:
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            faults.extend(await barriers(page))

    await judge()
    await page.get_by_role("link", name="Product 0").click()
    await page.get_by_role("button", name="Put in the cart").wait_for()
    await judge()
    await page.go_back()
    await buyer.choose("Product 0")
    await page.get_by_role("link", name="Go to the checkout").wait_for()
    await judge()
    await buyer.go_to_checkout(DECLINED)
    await judge()
    await buyer.pay()
    await buyer.told_no("declined")
    await judge()
    await page.goto("/?shop=market#/you")
    await page.get_by_role("heading", name="You are a guest").wait_for()
    await judge()
    assert not faults, "\n".join(faults)


async def test_a_script_that_stands_in_a_page_is_not_run_and_a_visit_notices_that_it_was_tried(
    browser: Browser, front: Front
) -> None:
    visits = Visits(browser, front.url)
    page = await visits.begin()
    answer = await page.goto("/")
    assert answer is not None
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    await page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'run'";
            document.head.append(script);
        }"""
    )
    assert await page.title() != "run"
    with pytest.raises(AssertionError, match="Content Security Policy directive"):
        await visits.end()


async def test_what_up_ends_with_is_made_once_and_lets_buyers_and_staff_in(market: Market, visit: Visit) -> None:
    stack = market.stack.description()
    welcome, again = await prepare(stack, print), await prepare(stack, print)
    assert welcome is not None
    assert again is not None
    assert [each.role for each in welcome.logins] == ["owner", "support", "viewer"]
    assert again.logins == welcome.logins
    [kept] = stack.home.glob("tenants/*.log-ins.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    page = await visit()
    await page.goto(welcome.shop_url + welcome.shopper_link)
    await expect(page.locator("#you")).to_have_text("Signed in")
    await expect(page.get_by_role("link", name="Porcelain cup")).to_be_visible()
    [viewer] = [each for each in welcome.logins if each.role == "viewer"]
    assert await code_for(market, "demo", viewer.email, viewer.password)
    assert await code_for(market, "demo", viewer.email, welcome.logins[0].password) is None
