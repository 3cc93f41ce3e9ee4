"""A buyer before the shop's pages, and what the services and the provider say of what they did."""

import re
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
from playwright.async_api import Page, expect

from deploy.cli.tenants import operator
from tests.browser.visits import PATIENCE_SECONDS
from tests.shared.market import Market

GOOD, CHALLENGED, DECLINED = "Visa 4242", "Visa 3184", "Visa 0002"
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@dataclass(frozen=True)
class Buyer:
    """Somebody at the shop's pages."""

    page: Page
    slug: str = "market"

    async def look(self) -> Self:
        await self.page.goto(f"/?shop={self.slug}")
        await self.page.locator(".card").first.wait_for()
        return self

    async def choose(self, name: str, many: int = 1) -> Self:
        await self.page.get_by_role("link", name=name).click()
        await self.page.get_by_label("How many").fill(str(many))
        await self.page.get_by_role("button", name="Put in the cart").click()
        await self.page.get_by_role("link", name="Go to the cart").click()
        return self

    async def go_to_checkout(self, card: str = GOOD) -> Self:
        await self.page.get_by_role("link", name="Go to the checkout").click()
        return await self.fill_in(card)

    async def fill_in(self, card: str = GOOD) -> Self:
        await self.page.get_by_label("E-mail").fill("ada@example.test")
        await self.page.get_by_label(card).check()
        return self

    async def pay(self) -> Self:
        await self.page.locator("#pay").click()
        return self

    async def thanked(self) -> str:
        """Waits until it is bought; answers the checkout's id."""
        await expect(self.page.get_by_role("heading", name="Thank you")).to_be_visible()
        return self.page.url.rpartition("/")[2]

    async def told_no(self, why: str) -> str:
        await expect(self.page.get_by_role("heading", name="Not bought")).to_be_visible()
        await expect(self.page.get_by_text(why)).to_be_visible()
        return self.page.url.rpartition("/")[2]


@dataclass(frozen=True)
class Books:
    """What there was before a test bought something: orders by id, money taken by intent."""

    market: Market
    orders: frozenset[str]
    taken: frozenset[str]

    @classmethod
    async def opened(cls, market: Market) -> Self:
        return cls(market, frozenset(await _orders(market)), frozenset(await _taken(market)))

    async def have_one_more(self, checkout_id: str) -> dict[str, Any]:
        """Hold that one order and one charge came, those of this checkout; answers the order."""
        await self.market.until(lambda: _is_captured(self.market, checkout_id))
        orders, taken = await _orders(self.market), await _taken(self.market)
        [order] = [order for order_id, order in orders.items() if order_id not in self.orders]
        [charge] = [intent for intent_id, intent in taken.items() if intent_id not in self.taken]
        assert order["checkout_id"] == charge["metadata"]["checkout_id"] == checkout_id
        assert charge["amount_received"] == order["total_minor"]
        return order

    async def are_the_same(self) -> None:
        assert set(await _orders(self.market)) == self.orders
        assert set(await _taken(self.market)) == self.taken


async def _orders(market: Market) -> dict[str, dict[str, Any]]:
    return {order["id"]: order async for order in market.shop.orders()}


async def _taken(market: Market) -> dict[str, dict[str, Any]]:
    """Every intent that holds or took money, by the provider's own word."""
    charges = await market.all_charges()
    return {
        each["id"]: each
        for intents in charges.values()
        for each in intents
        if each["status"] in {"succeeded", "requires_capture"}
    }


async def _is_captured(market: Market, checkout_id: str) -> bool:
    return any(charge["status"] == "succeeded" for charge in await market.charges(checkout_id))


async def sign_in_link(market: Market, ref: str) -> tuple[str, UUID]:
    """What the shop's server sends somebody whom it knows; answers it with who that is."""
    body = {"shopper_ref": ref}
    token = await market.shop.token()
    granted = (await market.api.call("identity", "POST", "/v1/sessions", token=token, body=body)).body
    return f"#/in/{granted['refresh_token']}", UUID(granted["subject_id"])


async def code_for(market: Market, slug: str, email: str, password: str) -> str | None:
    """What somebody's browser brings back to an application when they sign in; None when they are not let in."""
    back = "http://127.0.0.1:5173/back"
    tenant_id = str((await market.another_shop(slug)).tenant_id)
    wanted = {"tenant_id": tenant_id, "name": "App", "redirect_uris": [back], "scopes": ["orders:read"]}
    token = await operator(market.api).token()
    made = (await market.api.call("identity", "POST", "/v1/clients", token=token, body=wanted, key=uuid4().hex)).body
    asked = {"response_type": "code", "client_id": made["client_id"], "redirect_uri": back, "code_challenge_method": "S256"}
    form = {**asked, "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "email": email, "password": password}
    async with httpx.AsyncClient(base_url=market.stack.description().url("identity")) as browser:
        answer = await browser.post("/oauth/authorize", data=form)
    found = re.search(r"[?&]code=([^&]+)", answer.headers.get("Location", ""))
    return found[1] if found else None
