"""A tenant that is loud, in a process of its own, so that what it takes to be loud is not in the figures of the quiet one."""

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from deploy.cli.api import Api, RefusedError, connected
from deploy.cli.bench.orders import anything, bought
from deploy.cli.bench.staff import signing_in
from deploy.cli.publisher import Fact, Record, publishing
from deploy.cli.shop import Shop
from deploy.local.description import StackDescription

EVENTS_PER_SECOND: Final = 6_000
"""The generator shares the machine, so it publishes no faster than this."""
_CHUNK: Final = 200
_LAST: Final = 19
_SOURCE: Final = "/bench/loud"
_DECLINED: Final = "pm_card_chargeDeclined"
_SHOPPERS: Final = 8
_EVENTS_OF_A_TENANT: Final = 100
_QUOTA: Final = 20
_TIMES_ITS_QUOTA: Final = 10


@dataclass(frozen=True, slots=True)
class Loud:
    """Who is loud, where, and how much."""

    stack: StackDescription
    tenant_id: UUID
    client_id: str
    secret: str
    count: int
    seconds: float
    """When it ends, whether all was done or not."""


def carry_out(name: str, loud: Loud) -> dict[str, Any]:
    """Be loud in this way until it is done; answers what was done.

    The process gives way to the stack beside it: a real neighbour is loud from a machine of his own.
    """
    os.setpriority(os.PRIO_PROCESS, 0, _LAST)
    return asyncio.run(KINDS[name](loud))


async def _feed(loud: Loud) -> dict[str, Any]:
    """As many products as a large catalogue has, each with its price and stock."""

    def facts() -> Iterator[Fact]:
        for number in range(loud.count):
            sku = f"LOUD-{number}"
            named, priced = {"name": sku, "category": "bench"}, {"currency": "GBP", "unit_minor": 100}
            yield Fact("catalog.v1", "product.published", _SOURCE, loud.tenant_id, sku, 1, named)
            yield Fact("catalog.v1", "price.changed", _SOURCE, loud.tenant_id, sku, 2, priced)
            counted = {"location": "main", "quantity": 9}
            yield Fact("inventory.v1", "stock.counted", _SOURCE, loud.tenant_id, sku, 1, counted)

    return await _published(loud, (fact.record() for fact in facts()))


async def _refused(loud: Loud) -> dict[str, Any]:
    """Prices that cannot be, and goods that were sent for orders that nobody has."""

    def records() -> Iterator[Record]:
        for number in range(loud.count // 2):
            price = {"currency": "GBP", "unit_minor": -1}
            yield Fact("catalog.v1", "price.changed", _SOURCE, loud.tenant_id, f"LOUD-{number}", 3, price).record()
            order_id = str(uuid4())
            sent = {"order_id": order_id, "shipment_id": f"S{number}", "lines": [{"line_id": "1", "quantity": 1}]}
            fact = Fact("fulfilment.v1", "shipment.dispatched", _SOURCE, loud.tenant_id, order_id, 1, sent)
            yield fact.record()

    return await _published(loud, records())


async def _unknown(loud: Loud) -> dict[str, Any]:
    """Prices and stock of tenants that are not here."""

    def facts() -> Iterator[Fact]:
        for number in range(loud.count // 2):
            if number % (_EVENTS_OF_A_TENANT // 2) == 0:
                nobody = uuid4()
            sku = f"LOST-{number}"
            yield Fact("catalog.v1", "price.changed", _SOURCE, nobody, sku, 1, {"currency": "GBP", "unit_minor": 1})
            yield Fact("inventory.v1", "stock.counted", _SOURCE, nobody, sku, 1, {"location": "main", "quantity": 1})

    return await _published(loud, (fact.record() for fact in facts()))


async def _published(loud: Loud, records: Iterator[Record]) -> dict[str, Any]:
    begun, count = time.monotonic(), 0
    async with publishing(loud.stack) as publisher:
        while time.monotonic() < begun + loud.seconds and (chunk := list(itertools.islice(records, _CHUNK))):
            count += await publisher.publish(chunk)
            await asyncio.sleep(begun + count / EVENTS_PER_SECOND - time.monotonic())
    return {"events": count, "events_per_second": round(count / (time.monotonic() - begun))}


async def _declined(loud: Loud) -> dict[str, Any]:
    """Stolen cards, one after the other."""
    outcomes, left, end = Counter[str](), iter(range(loud.count)), time.monotonic() + loud.seconds
    async with _shop(loud) as shop:

        async def shopper() -> None:
            while time.monotonic() < end and next(left, None) is not None:
                outcomes[await _ended(bought(shop, anything(), _DECLINED))] += 1

        await _together(shopper)
    return {"cards": sum(outcomes.values()), "outcomes": dict(outcomes)}


async def _shoppers(loud: Loud) -> dict[str, Any]:
    """Sessions and carts, as fast as they are given."""
    answers, end = Counter[str](), time.monotonic() + loud.seconds
    async with _shop(loud) as shop:
        url, token = {name: loud.stack.url(name) for name in ("identity", "cart")}, await shop.token()

        async def answered(service: str, path: str, token: str, body: dict[str, Any]) -> Any:
            try:
                reply = await shop.api.ask(f"{url[service]}{path}", "POST", token=token, seconds=30, body=body)
            except RefusedError as error:
                answers[f"{service} {error.status}"] += 1
                return None
            answers[f"{service} {reply.status}"] += 1
            return reply.body

        async def shopper() -> None:
            while time.monotonic() < end:
                session = await answered("identity", "/v1/sessions", token, {"shopper_ref": f"guest:{uuid4()}", "guest": True})
                if session:
                    await answered("cart", "/v1/carts", session["access_token"], {})

        await _together(shopper)
    return {"answers": dict(sorted(answers.items()))}


async def _over_quota(loud: Loud) -> dict[str, Any]:
    """Ten times as many requests as its limit lets through."""
    answers, begun = Counter[str](), time.monotonic()
    async with connected(loud.stack, connections=_SHOPPERS * _SHOPPERS) as api:
        shop = _of(api, loud)
        token, path = await shop.token(), f"/v1/tenants/{loud.tenant_id}"
        await api.call("identity", "PATCH", path, token=token, body={"settings": {"limits": {"tenant_per_second": _QUOTA}}})
        url = f"{loud.stack.url('cart')}/v1/products?limit=1"

        async def asked() -> None:
            try:
                reply = await api.ask(url, "GET", token=token, seconds=30)
            except RefusedError as error:
                answers[str(error.status)] += 1
            else:
                answers[str(reply.status)] += 1

        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                at = begun + number / (_TIMES_ITS_QUOTA * _QUOTA)
                if at > begun + loud.seconds:
                    break
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                group.create_task(asked())
        await api.call("identity", "PATCH", path, token=await shop.token(), body={"settings": {"limits": None}})
    return {"quota_per_second": _QUOTA, "answers": dict(sorted(answers.items()))}


async def _staff(loud: Loud) -> dict[str, Any]:
    """Two hundred who sign in at once: each password takes as long to look at as it would take somebody to guess at it."""
    async with connected(loud.stack) as api:
        return await signing_in(api, loud.tenant_id, loud.seconds)


async def _ended(buying: Coroutine[Any, Any, str]) -> str:
    try:
        return await buying
    except RefusedError as error:
        return f"{error.status} {error.code}"


async def _together(shopper: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(_SHOPPERS):
            group.create_task(shopper())


@asynccontextmanager
async def _shop(loud: Loud) -> AsyncIterator[Shop]:
    async with connected(loud.stack, connections=_SHOPPERS) as api:
        yield _of(api, loud)


def _of(api: Api, loud: Loud) -> Shop:
    return Shop(api, loud.tenant_id, loud.client_id, loud.secret)


KINDS: Final = {
    "feed": _feed,
    "refused": _refused,
    "unknown_tenants": _unknown,
    "declined_cards": _declined,
    "sessions_and_carts": _shoppers,
    "over_quota": _over_quota,
    "staff_signing_in": _staff,
}
