"""The demo itself: buy, wait until the money has settled, compare both sides, and tell the story of one order."""

import asyncio
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.cli.api import Api, connected
from deploy.cli.demo.purchases import BASKETS, CURRENCY, Purchase, buy_all, offers
from deploy.cli.demo.timeline import Kind, Moment, timeline
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import echo, print_json, progress
from deploy.cli.settlement import Settlement, settled
from deploy.cli.shop import Shop
from deploy.cli.supply import supply
from deploy.cli.tenants import Client, Wish, onboarded
from deploy.local.description import StackDescription
from deploy.local.sessions import running_stack
from deploy.local.state import Home, default_home
from deploy.local.supervisor import start_in_background
from libs.common.money import format_minor

_SLUG = "demo"
_DECLINES = 1
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARKS: dict[Kind, str] = {"request": "→", "event": "·", "provider-call": "$"}


@dataclass(frozen=True, slots=True)
class Result:
    """What the ten purchases came to, by our own orders and by the provider's list."""

    purchases: Sequence[Purchase]
    orders: Sequence[dict[str, Any]]
    settlement: Settlement
    story: Sequence[Moment]

    @property
    def declined(self) -> int:
        """How many purchases an issuer refused."""
        return sum(purchase.is_declined for purchase in self.purchases)

    @property
    def orders_total_minor(self) -> int:
        """What our orders come to."""
        return sum(order["total_minor"] for order in self.orders)

    @property
    def lost(self) -> int:
        """Purchases without an answer, and confirmed ones without an order or without their money."""
        ordered = {order["checkout_id"] for order in self.orders}
        paid = self.settlement.captured.keys()
        whole = sum(it.is_declined or it.checkout["id"] in ordered & paid for it in self.purchases)
        return len(self.purchases) - whole

    @property
    def duplicated(self) -> int:
        """Orders and captures beyond the one that each purchase may have."""
        orders = Counter(order["checkout_id"] for order in self.orders)
        return sum(orders.values()) - len(orders) + sum(len(it) - 1 for it in self.settlement.captured.values())

    @property
    def is_ok(self) -> bool:
        """Whether ordered is captured, nothing is lost and nothing happened twice."""
        balanced = self.orders_total_minor == self.settlement.captured_total_minor
        complete = len(self.orders) == len(BASKETS) - _DECLINES and self.declined == _DECLINES
        return balanced and complete and not self.lost and not self.duplicated and not self.settlement.pending

    def as_json(self) -> dict[str, Any]:
        """Return the object that `demo --json` prints."""
        return {
            "orders": len(self.orders),
            "declined": self.declined,
            "orders_total_minor": self.orders_total_minor,
            "captured_total_minor": self.settlement.captured_total_minor,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "timeline": [moment.as_json() for moment in self.story],
            "ok": self.is_ok,
        }


def run(*, keep: bool, json: bool) -> int:
    """Buy something and show what became of it; 1 when it is not as it should be. `keep` leaves the stack running."""
    if keep:
        _start_to_stay()
    say = progress()

    async def demo() -> tuple[Result, StackDescription, Client]:
        async with running_stack(say=say) as stack, connected(stack) as api:
            found = await onboarded(api, Wish.of(_SLUG, currency=CURRENCY))
            say(f"tenant {_SLUG} is {found.tenant['status']}")
            return await play(api, found.shop(api), say), stack, found.client

    result, stack, client = asyncio.run(demo())
    if json:
        print_json(result.as_json())
    else:
        _tell(result)
        _tell_how_to_look_around(stack, client, keep=keep)
    return ExitCode.DONE if result.is_ok else ExitCode.NOT_SO


async def play(api: Api, shop: Shop, say: Callable[[str], None]) -> Result:
    """Stock a shop, buy from it, and wait until its money has settled."""
    await supply(shop, CURRENCY, offers(), say)
    purchases = await buy_all(shop, say)
    checkout_ids = {purchase.checkout["id"] for purchase in purchases}
    confirmed = [purchase for purchase in purchases if purchase.is_confirmed]
    say("waiting for every capture to settle")
    settlement = await settled(api, shop.tenant_id, checkout_ids, [it.checkout["id"] for it in confirmed])
    orders = [it async for it in shop.orders() if it["checkout_id"] in checkout_ids and it["state"] == "confirmed"]
    told = (confirmed or purchases)[0]
    return Result(purchases, orders, settlement, await timeline(api.stack, told.checkout["id"], told.requests))


def _start_to_stay() -> None:
    home = Home(default_home())
    code = 0 if home.holder() else start_in_background(home, ["--behind"], echo)
    if code:
        raise CommandError("the stack does not start: see ./cartwright logs up", code)


def _tell(result: Result) -> None:
    print("One order, from its first request to its money:\n")
    begin = result.story[0].at
    for moment in result.story:
        offset_ms = round((moment.at - begin).total_seconds() * 1000)
        took = "" if moment.duration_ms is None else f"{moment.duration_ms} ms"
        print(f"{offset_ms:>6} ms  {moment.service:<8}  {_MARKS[moment.kind]} {_shortened(moment.name):<48}{took:>8}".rstrip())
    print(f"\n{len(result.orders)} orders, {result.declined} declined")
    print(f"ordered   {format_minor(result.orders_total_minor, CURRENCY):>14}")
    print(f"captured  {format_minor(result.settlement.captured_total_minor, CURRENCY):>14} by the provider's own list")
    print(f"lost {result.lost}, duplicated {result.duplicated}: {'all is well' if result.is_ok else 'NOT as it should be'}")


def _shortened(name: str) -> str:
    """Cut ids to their end, which tells them apart: a line should fit a screen."""
    return _ID.sub(lambda found: f"…{found[0][-4:]}", name.replace(" /v1/", " /"))


def _tell_how_to_look_around(stack: StackDescription, client: Client, *, keep: bool) -> None:
    orders, secret = f"{stack.door('checkout')}/v1/orders", shlex.quote(str(client.secret_file))
    print("\nLook around:" if keep else "\nLook around with ./cartwright up, then:")
    if stack.gateway_url:
        print(f"  gateway   {stack.gateway_url}")
    for name, service in stack.services.items():
        print(f"  {name:<9} {service.url}")
    print(
        f"  TOKEN=$(curl -s {stack.door('identity')}/oauth/token -u {client.client_id}:$(cat {secret}) \\\n"
        "    -d grant_type=client_credentials | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])')\n"
        f'  curl -s "{orders}?limit=1" -H "Authorization: Bearer $TOKEN"'
    )
