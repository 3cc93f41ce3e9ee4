"""A shop as its own backend and its shoppers use the public APIs."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from deploy.cli.api import LONGEST_WAIT_SECONDS, Api, RefusedError, TokenSource

FINAL_STATES: Final = frozenset({"confirmed", "failed", "canceled", "expired"})


class Shop:
    """One tenant's shop: what its backend asks for with the client's token, and what opens a shopper's session."""

    def __init__(self, api: Api, tenant_id: UUID, client_id: str, secret: str, *, only_looks: bool = False) -> None:
        """Act for the tenant with its client's credentials; with a platform operator's, only look at it."""
        self.api = api
        self.tenant_id = tenant_id
        form = {"tenant_id": str(tenant_id)} if only_looks else {}
        self._client = TokenSource(lambda: api.grant(client_id, secret, **form))

    @classmethod
    def looked_at(cls, api: Api, tenant_id: UUID) -> "Shop":
        """The tenant's shop as a platform operator sees it, who needs no client of the tenant's."""
        stack = api.stack
        return cls(api, tenant_id, stack.platform_client_id, stack.platform_client_secret(), only_looks=True)

    async def token(self) -> str:
        """Return a token of the shop's own client."""
        return await self._client.token()

    async def orders(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every order of the tenant."""
        async for order in self._everything("checkout", "/v1/orders"):
            yield order

    async def orders_numbered(self, number: int) -> list[dict[str, Any]]:
        """Return the order of this number, if there is one."""
        token = await self._client.token()
        return [order async for order in self.api.everything("checkout", "/v1/orders", token, {"number": str(number)})]

    async def order(self, order_id: str) -> dict[str, Any]:
        """Return one order, with its refunds."""
        found: dict[str, Any] = (
            await self.api.call("checkout", "GET", f"/v1/orders/{order_id}", token=await self._client.token())
        ).body
        return found

    async def refund(self, order_id: str, *, key: str, lines: Mapping[str, int], reason: str) -> dict[str, Any]:
        """Give so many of some lines of an order back, by line id, and put the goods back on the shelf."""
        body = {
            "lines": [{"line_id": line_id, "quantity": quantity} for line_id, quantity in lines.items()],
            "restock": True,
            "reason": reason,
        }
        path, token = f"/v1/orders/{order_id}/refunds", await self._client.token()
        asked: dict[str, Any] = (await self.api.call("checkout", "POST", path, token=token, body=body, key=key)).body
        return asked

    async def ledger_entries(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every entry of the tenant's ledger."""
        async for entry in self._everything("payments", "/v1/ledger/entries"):
            yield entry

    async def products(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every product that can be put in a cart."""
        async for product in self._everything("cart", "/v1/products"):
            yield product

    async def stock(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the stock of every SKU."""
        async for level in self._everything("checkout", "/v1/stock"):
            yield level

    def shopper(self, ref: str, *, guest: bool = False, api: Api | None = None) -> "Shopper":
        """Return the shopper of this reference; the same reference is the same subject for ever."""
        at = api or self.api

        async def issue() -> dict[str, Any]:
            body = {"shopper_ref": ref, "guest": guest}
            token = await self._client.token()
            granted: dict[str, Any] = (await at.call("identity", "POST", "/v1/sessions", token=token, body=body)).body
            return granted

        return Shopper(at, TokenSource(issue))

    async def _everything(self, service: str, path: str) -> AsyncIterator[dict[str, Any]]:
        async for item in self.api.everything(service, path, await self._client.token()):
            yield item


class Shopper:
    """One shopper, buying through the public APIs."""

    def __init__(self, api: Api, tokens: TokenSource) -> None:
        """Buy with this shopper's tokens."""
        self._api = api
        self._tokens = tokens

    async def token(self) -> str:
        """Return a token of this shopper."""
        return await self._tokens.token()

    async def new_cart(self) -> str:
        """Open a cart and return its id."""
        reply = await self._api.call("cart", "POST", "/v1/carts", token=await self._tokens.token(), body={})
        return str(reply.body["id"])

    async def put_cart(self, cart_id: UUID) -> None:
        """Open a cart under an id of our choice, or find it again."""
        token = await self._tokens.token()
        await self._api.call("cart", "PUT", f"/v1/carts/{cart_id}", token=token, prefer="return=minimal")

    async def put_line(self, cart_id: str, sku: str, quantity: int) -> None:
        """Put so many of a SKU."""
        path = f"/v1/carts/{cart_id}/lines/{quote(sku, safe='')}"
        await self._api.call("cart", "PUT", path, token=await self._tokens.token(), body={"quantity": quantity})

    async def put_lines(self, cart_id: UUID, lines: Sequence[Mapping[str, object]]) -> bool:
        """Put these lines in the place of all; False when the cart is not open any more."""
        path, token = f"/v1/carts/{cart_id}/lines", await self._tokens.token()
        try:
            await self._api.call("cart", "PUT", path, token=token, body={"lines": lines}, prefer="return=minimal")
        except RefusedError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            return False
        return True

    async def check_out(self, cart_id: str, *, key: str, method: str, wait_seconds: int) -> dict[str, Any]:
        """Buy a cart, or find the purchase this key or this cart already has; it may not be final yet."""
        body = {"cart_id": cart_id, "payment": {"method": method}}
        token, prefer = await self._tokens.token(), f"wait={wait_seconds}"
        try:
            reply = await self._api.call("checkout", "POST", "/v1/checkouts", token=token, body=body, key=key, prefer=prefer)
        except RefusedError as error:
            if "checkout_id" not in error.problem:
                raise
            return await self.read_checkout(str(error.problem["checkout_id"]), wait_seconds=wait_seconds)
        found: dict[str, Any] = reply.body
        return found

    async def read_checkout(self, checkout_id: str, *, wait_seconds: int) -> dict[str, Any]:
        """Return a checkout once it is final, or as it stands after the wait."""
        path, token = f"/v1/checkouts/{checkout_id}", await self._tokens.token()
        found: dict[str, Any] = (await self._api.call("checkout", "GET", path, token=token, prefer=f"wait={wait_seconds}")).body
        return found

    async def outcome(self, checkout: dict[str, Any], *, patience_seconds: float) -> dict[str, Any]:
        """Follow a checkout until it is final or patience ends."""
        end = time.monotonic() + patience_seconds
        while checkout["state"] not in FINAL_STATES and time.monotonic() < end:
            asked = time.monotonic()
            checkout = await self.read_checkout(checkout["id"], wait_seconds=LONGEST_WAIT_SECONDS)
            # A service that does not honour the wait must not be asked in a tight loop.
            if checkout["state"] not in FINAL_STATES and time.monotonic() - asked < 1:
                await asyncio.sleep(0.2)
        return checkout
