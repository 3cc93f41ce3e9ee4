"""Clients that come and go in a running market."""

from typing import Any
from uuid import uuid4

from deploy.cli.tenants import operator
from tests.shared.market import Market


class Machine:
    """A client of the market's own."""

    def __init__(self, market: Market, made: dict[str, Any]) -> None:
        self._market = market
        self.id = made["client_id"]
        self.first = made["secret_id"]
        self.secret = made["client_secret"]

    @classmethod
    async def of(cls, market: Market) -> "Machine":
        body = {"name": "machine", "scopes": ["clients:manage", "carts:read", "orders:read", "payments:read", "sessions:issue"]}
        return cls(market, await _told(market, "POST", "/v1/clients", {**body, "tenant_id": str(market.shop.tenant_id)}))

    async def token(self) -> str:
        granted = await self._market.api.grant(self.id, self.secret)
        return str(granted["access_token"])

    async def ended(self, rest: str = "") -> None:
        await _told(self._market, "DELETE", f"/v1/clients/{self.id}{rest}")

    async def another_secret(self) -> None:
        self.secret = (await _told(self._market, "POST", f"/v1/clients/{self.id}/secrets"))["client_secret"]


async def _told(market: Market, method: str, path: str, body: object = None) -> Any:
    token = await operator(market.api).token()
    return (await market.api.call("identity", method, path, token=token, body=body, key=str(uuid4()))).body
