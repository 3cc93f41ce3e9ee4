"""What is done while processes die: a checkout, a cancellation, a refund, a tenant made; and what must be true afterwards."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import asyncpg

from deploy.cli.api import RefusedError
from deploy.cli.shop import FINAL_STATES, Shopper
from deploy.cli.standing import settled
from deploy.cli.tenants import operator
from services import SERVICES
from tests.shared.market import Market, shop_at

VISA, CHALLENGED = "pm_card_visa", "pm_card_authenticationRequired"
PATIENCE_SECONDS = 90


@dataclass
class Journey(ABC):
    """A way through the shop: prepared in peace, gone while somebody dies, checked, and asked for again."""

    NAME: ClassVar[str]

    market: Market
    admin_url: str
    name: str
    sku: str = "SKU-1"
    checkout: dict[str, Any] = field(init=False)

    @abstractmethod
    async def prepare(self) -> None:
        """What comes before it."""

    @abstractmethod
    async def go(self) -> None:
        """The way itself: whatever is not answered is asked again, as a client does."""

    @abstractmethod
    async def is_settled(self) -> bool:
        """Whether all of its consequences are there."""

    @abstractmethod
    async def check(self) -> None:
        """What must be true, whoever died."""

    # --- What they share ------------------------------------------------------------------------------------------

    async def set_out(self) -> None:
        """A shopper with a cart, and the stock as it is before."""
        self.shopper: Shopper = self.market.shop.shopper(f"customer:{self.name}")
        self.before = await self.market.level(self.sku)
        self.cart_id = await self.market.cart(self.shopper, {self.sku: 2})
        await self.market.shop.token()

    async def check_out(self, method: str) -> dict[str, Any]:
        """Buy it; asked again it is the same question."""
        return await self.shopper.check_out(self.cart_id, key=f"buy-{self.name}", method=method, wait_seconds=2)

    async def end_of(self, checkout: dict[str, Any]) -> dict[str, Any]:
        """Follow a checkout to its end, with short waits: the hint that ends a wait may have died with whoever owed it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while checkout["state"] not in FINAL_STATES:
                checkout = await self.shopper.read_checkout(checkout["id"], wait_seconds=1)
        return checkout

    async def post(self, path: str, key: str, *, token: str, body: object = None) -> dict[str, Any]:
        """Ask something of checkout; asked again under its key it is the same question."""
        answer = await self.market.api.call("checkout", "POST", path, token=token, key=key, body=body, prefer="wait=2")
        found: dict[str, Any] = answer.body
        return found

    async def orders(self) -> list[dict[str, Any]]:
        """The shopper's own orders, whom nobody else buys for."""
        token = await self.shopper._tokens.token()
        return [order async for order in self.market.api.everything("checkout", "/v1/orders", token)]

    async def cart_state(self) -> str:
        token = await self.shopper._tokens.token()
        return str((await self.market.api.call("cart", "GET", f"/v1/carts/{self.cart_id}", token=token)).body["state"])

    async def moved(self) -> tuple[int, int, int]:
        """By how much stock is on hand, reserved and sold more than before."""
        level = await self.market.level(self.sku)
        on_hand, reserved, sold = (level[name] - self.before[name] for name in ("on_hand", "reserved", "sold"))
        return on_hand, reserved, sold

    async def check_nothing_was_bought(self, state: str, reason: str) -> None:
        ended = await self.shopper.read_checkout(self.checkout["id"], wait_seconds=0)
        assert (ended["state"], ended["reason"]) == (state, reason)
        assert await self.orders() == []
        charges = await self.market.charges(self.checkout["id"])
        # Held and let go of; or it was over before anybody was asked for money, and then nobody is any more.
        assert [(charge["status"], charge["amount_received"]) for charge in charges] in ([("canceled", 0)], [])
        assert await self.moved() == (0, 0, 0)

    async def is_undone(self) -> bool:
        """Whether nothing is held any more, and the cart can be bought."""
        charges = await self.market.charges(self.checkout["id"])
        held = [charge for charge in charges if charge["status"] != "canceled"]
        return not held and await self.cart_state() == "open" and (await self.moved())[1] == 0


class Buying(Journey):
    """A cart is bought, paid, and its money taken."""

    NAME = "checkout"

    async def prepare(self) -> None:
        await self.set_out()

    async def go(self) -> None:
        started = await self.check_out(VISA)
        self.checkout = await self.end_of(started)

    async def is_settled(self) -> bool:
        orders = await self.orders()
        return bool(orders) and orders[0]["payment_state"] == "captured" and await self.cart_state() == "ordered"

    async def check(self) -> None:
        assert self.checkout["state"] == "confirmed"
        [order] = await self.orders()
        [charge] = await self.market.charges(self.checkout["id"])
        assert (order["checkout_id"], order["total_minor"]) == (self.checkout["id"], 2 * 101)
        assert (charge["status"], charge["amount_received"]) == ("succeeded", order["total_minor"])
        assert await self.moved() == (-2, 0, 2)
        assert await self.check_out(VISA) == self.checkout, "who asks again gets the same answer"


class Canceling(Journey):
    """A purchase that waits for its payer is canceled."""

    NAME = "cancel"

    async def prepare(self) -> None:
        await self.set_out()

    async def go(self) -> None:
        self.checkout = await self.check_out(CHALLENGED)
        token = await self.shopper._tokens.token()
        self.path = f"/v1/checkouts/{self.checkout['id']}/cancel"
        canceled = await self.post(self.path, f"cancel-{self.name}", token=token)
        self.ended = await self.end_of(canceled)

    async def is_settled(self) -> bool:
        return await self.is_undone()

    async def check(self) -> None:
        await self.check_nothing_was_bought("canceled", "canceled")
        token = await self.shopper._tokens.token()
        assert await self.post(self.path, f"cancel-{self.name}", token=token) == self.ended
        assert await self.check_out(CHALLENGED) == self.ended, "who asks again gets the same answer"


class Expiring(Journey):
    """A purchase waits for its payer until its time is up."""

    NAME = "expiry"

    async def prepare(self) -> None:
        await self.set_out()
        started = await self.check_out(CHALLENGED)
        waiting = await self.shopper.outcome(started, patience_seconds=1) if started["state"] == "started" else started
        assert waiting["action_required"], waiting
        self.checkout = waiting

    async def go(self) -> None:
        database = self.market.stack._prefixes[0] + "checkout"
        admin = await asyncpg.connect(f"{self.admin_url.rpartition('/')[0]}/{database}")
        await admin.execute(
            "UPDATE checkout SET expires_at = now(), version = version + 1 WHERE id = $1::text::uuid", self.checkout["id"]
        )
        await admin.execute("UPDATE timer SET due_at = now(), free_at = now() WHERE key = $1::text::uuid", self.checkout["id"])
        await admin.close()
        self.ended = await self.end_of(self.checkout)

    async def is_settled(self) -> bool:
        return await self.is_undone()

    async def check(self) -> None:
        await self.check_nothing_was_bought("expired", "timed-out")
        assert await self.check_out(CHALLENGED) == self.ended, "who asks again gets the same answer"


class Refunding(Journey):
    """All of an order's money is given back, and its goods."""

    NAME = "refund"

    async def prepare(self) -> None:
        await self.set_out()
        started = await self.check_out(VISA)
        self.checkout = await self.end_of(started)

        async def captured() -> bool:
            orders = await self.orders()
            return bool(orders) and orders[0]["payment_state"] == "captured"

        await self.market.until(captured)

    async def go(self) -> None:
        self.path = f"/v1/orders/{self.checkout['order_id']}/refunds"
        await self._ask()

    async def is_settled(self) -> bool:
        [order] = await self.orders()
        return bool(order["payment_state"] == "refunded" and await self.moved() == (0, 0, 0))

    async def check(self) -> None:
        [order] = await self.orders()
        [charge] = await self.market.charges(self.checkout["id"])
        refunds = [each async for each in self.market.api.provider_refunds() if each["payment_intent"] == charge["id"]]
        assert [(refund["status"], refund["amount"]) for refund in refunds] == [("succeeded", order["total_minor"])]
        assert (order["refunded_minor"], charge["amount_received"]) == (order["total_minor"], order["total_minor"])
        told = await self.market.shop.order(order["id"])
        assert [(refund["id"], refund["state"]) for refund in told["refunds"]] == [((await self._ask())["id"], "succeeded")]

    async def _ask(self) -> dict[str, Any]:
        body = {"restock": True, "reason": "regret"}
        return await self.post(self.path, f"refund-{self.name}", token=await self.market.shop.token(), body=body)


class Onboarding(Journey):
    """A tenant is made, with the invitation of its owner."""

    NAME = "onboarding"

    async def prepare(self) -> None:
        self.operator = await operator(self.market.api).token()
        self.slug = f"made-{self.name}"

    async def go(self) -> None:
        self.tenant = await self._ask()

    async def is_settled(self) -> bool:
        [tenant] = await self._tenants()
        return bool(tenant["status"] == "active")

    async def check(self) -> None:
        [tenant] = await self._tenants()
        assert (tenant["tenant_id"], {*tenant["ready"].values()}) == (self.tenant["tenant_id"], {True})
        again = await self._ask()
        assert (again["tenant_id"], again["owner"]) == (self.tenant["tenant_id"], self.tenant["owner"]), "and one owner"
        shop = await shop_at(self.market.api, self.slug)
        assert str(shop.tenant_id) == self.tenant["tenant_id"]
        await shop.shopper("customer:first").new_cart()

    async def _ask(self) -> dict[str, Any]:
        body = {"slug": self.slug, "name": "Made", "currency": "GBP", "country": "GB", "admin_email": "owner@made.test"}
        key, place = f"make-{self.name}", "/v1/tenants"
        answer = await self.market.api.call("identity", "POST", place, token=self.operator, body=body, key=key, prefer="wait=2")
        made: dict[str, Any] = answer.body
        return made

    async def _tenants(self) -> list[dict[str, Any]]:
        named = {"slug": self.slug}
        return [each async for each in self.market.api.everything("identity", "/v1/tenants", self.operator, named)]


class Suspending(Onboarding):
    """A tenant is suspended, and every service says that it knows."""

    NAME = "suspension"

    async def prepare(self) -> None:
        await super().prepare()
        await super().go()
        await self.market.until(super().is_settled)
        self.old = await (await shop_at(self.market.api, self.slug)).shopper("customer:first").token()

    async def go(self) -> None:
        await settled(self.market.api, self.tenant["tenant_id"], "suspend")

    async def is_settled(self) -> bool:
        [tenant] = await self._tenants()
        return all(tenant["acknowledged"].values())

    async def check(self) -> None:
        [tenant] = await self._tenants()
        assert tenant["status"] == "suspended"
        await self.market.until(self._is_turned_away)
        assert (await settled(self.market.api, self.tenant["tenant_id"], "resume"))["status"] == "active"

    async def _is_turned_away(self) -> bool:
        try:
            await self.market.api.call("cart", "POST", "/v1/carts", token=self.old, body={})
        except RefusedError as error:
            return error.code == "tenant-suspended"
        return False


class Erasing(Onboarding):
    """A tenant that is closing is erased, and every service says that it has nothing of it any more."""

    NAME = "erasure"

    async def prepare(self) -> None:
        await super().prepare()
        await super().go()
        await self.market.until(super().is_settled)
        await settled(self.market.api, self.tenant["tenant_id"], "close")

    async def go(self) -> None:
        await self.market.api.call("identity", "POST", f"/v1/tenants/{self.tenant['tenant_id']}/erase", token=self.operator)

    async def is_settled(self) -> bool:
        return bool((await self._shown())["status"] == "erased")

    async def check(self) -> None:
        shown = await self._shown()
        assert (shown["slug"], {*shown["erased"].values()}) == ("", {True})
        assert await self._tenants() == [], "its slug is free"
        for service in SERVICES:
            database = f"{self.admin_url.rpartition('/')[0]}/{self.market.stack._prefixes[0]}{service}"
            admin = await asyncpg.connect(database)
            ends = await admin.fetch("SELECT erased_at FROM erasure WHERE tenant_id = $1::text::uuid", shown["tenant_id"])
            await admin.close()
            assert [row["erased_at"] is not None for row in ends] == [True], service

    async def _shown(self) -> dict[str, Any]:
        path = f"/v1/tenants/{self.tenant['tenant_id']}"
        found: dict[str, Any] = (await self.market.api.call("identity", "GET", path, token=self.operator)).body
        return found


JOURNEYS: tuple[type[Journey], ...] = (Buying, Canceling, Expiring, Refunding, Onboarding, Suspending, Erasing)
