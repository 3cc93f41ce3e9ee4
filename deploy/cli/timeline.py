"""`timeline`: the whole story of one order, or of a checkout that became none, to be read at three in the morning."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from deploy.cli.api import Api, RefusedError, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.shop import Shop
from deploy.cli.tenants import shops
from libs.common.money import format_minor

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARKS: Final = {"request": "→", "webhook": "⇠", "timer": "◷", "event": "·", "provider-call": "$"}
_AMOUNTS: Final = {"amount_minor": "", "captured_minor": "captured in all ", "refunded_minor": "refunded in all "}
_IDS: Final = frozenset({"payment_id", "refund_id", "dispute_id", "currency"})


def run(*, order: str, tenant: str | None, json: bool) -> int:
    """Print the story of the order of this id, of the checkout of this id, or (with a tenant) of the order of this number."""

    async def told() -> dict[str, Any]:
        async with deployment(progress()) as stack, connected(stack) as api:
            return await story(api, [shop async for _, shop in shops(api, tenant)], order)

    found = asyncio.run(told())
    if json:
        print_json(found)
    else:
        print("\n".join(lines(found)))
    return ExitCode.DONE


async def story(api: Api, among: Sequence[Shop], order: str) -> dict[str, Any]:
    """The story, from whichever of these shops the order is of. Raises CommandError when it is none's."""
    for shop in among:
        named = await _ids(shop, order)
        for path in [f"/v1/{what}/{each}/timeline" for each in named for what in ("orders", "checkouts")]:
            try:
                found: dict[str, Any] = (await api.call("checkout", "GET", path, token=await shop.token())).body
            except RefusedError as error:
                if error.status != 404:
                    raise
            else:
                return found
    raise CommandError(f"no tenant here has an order or a checkout {order}", ExitCode.NOT_SO)


async def _ids(shop: Shop, order: str) -> list[str]:
    """What may be meant: an id as it is, or a number that the shop has given."""
    if not order.isdecimal():
        try:
            return [str(UUID(order))]
        except ValueError as error:
            raise CommandError(f"{order!r} is neither an id nor a number", ExitCode.USAGE) from error
    return [each["id"] for each in await shop.orders_numbered(int(order))]


def lines(found: dict[str, Any]) -> list[str]:
    """The story as lines of text: when, who, what, how long, and why."""
    items = found["items"]
    title = f"order {found['number']} ({found['order_id']})" if found.get("number") else "no order"
    text = [f"{title}, checkout {found['checkout_id']}"]
    text += [f"trace {trace_id}" for trace_id in found["trace_ids"]]
    if not items:
        return [*text, "nothing is known of it yet: the timeline is a moment behind"]
    begin = datetime.fromisoformat(items[0]["at"])
    text += [f"begun {items[0]['at']}", ""]
    currency = next((item["details"]["currency"] for item in items if "currency" in item["details"]), None)
    for item in items:
        offset_ms = round((datetime.fromisoformat(item["at"]) - begin).total_seconds() * 1000)
        text.append(_line(item, offset_ms, currency))
    return text


def _line(item: dict[str, Any], offset_ms: int, currency: str | None) -> str:
    took = f"{item['duration_ms']} ms" if "duration_ms" in item else ""
    marks = " ".join(word for word in ("retry", "compensation") if item[word])
    what = f"{_MARKS[item['kind']]} {item['name']}{_facts(item['details'], currency)}"
    line = f"{offset_ms:>8} ms  {item['service']:<9} {what:<62}{took:>8}  {_why(item)}"
    return f"{line}  [{marks}]" if marks else line.rstrip()


def _why(item: dict[str, Any]) -> str:
    if "cause" not in item:
        return f"by {_shortened(item['actor'])}" if item.get("actor") else ""
    likely = " (inferred)" if item["cause"]["inferred"] else ""
    return f"{item['after_ms']} ms after {item['cause']['name']}{likely}"


def _facts(details: dict[str, Any], currency: str | None) -> str:
    facts = [
        f"{_AMOUNTS[name]}{format_minor(value, currency)}" if name in _AMOUNTS and currency else f"{_named(name)} {value}"
        for name, value in details.items()
        if name not in _IDS
    ]
    return f" ({_shortened(', '.join(facts))})" if facts else ""


def _named(name: str) -> str:
    return name.removesuffix("_id").removesuffix("_minor")


def _shortened(text: str) -> str:
    """Cut ids to their end, which tells them apart: a line should fit a screen."""
    return _ID.sub(lambda found: f"…{found[0][-4:]}", text)
