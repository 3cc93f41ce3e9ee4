"""The databases go back to a random second, while Kafka and the provider do not: what is lost is told, and selling goes on."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy.cli.api import RefusedError, connected
from deploy.cli.erasing import erased
from deploy.cli.settlement import settled
from deploy.cli.shop import FINAL_STATES
from deploy.cli.standing import settled as stands
from deploy.cli.supply import supply
from deploy.local.stack import Stack
from services import SERVICES
from tests.shared.market import OFFERS, Market, shop_at
from tests.shared.places import Place, counted
from tests.shared.variables import without_ours
from tests.shared.verbs import ROOT, Said, buy, cartwright, paid

pytestmark = pytest.mark.asyncio(loop_scope="session")

PREFIX = "backup_"
SHOPPERS = 3
STAYING = {"audit_entry", "audit_head", "erasure", "outbox_event"}
"""That it is erased, and the event that says so."""


@dataclass
class Sold:
    """What was bought, and when it began and was answered."""

    order_id: str
    checkout_id: str
    begun_at: datetime
    answered_at: datetime


@dataclass
class Sales:
    """Shoppers who buy one thing after the other."""

    market: Market
    done: list[Sold] = field(default_factory=list)
    _left: bool = False

    async def _go_on(self, name: str) -> None:
        number = 0
        while not self._left:
            begun, number = datetime.now(UTC), number + 1
            _, checkout = await buy(self.market, f"{name}-{number}", {"SKU-1": 1})
            assert checkout["state"] == "confirmed"
            self.done.append(Sold(checkout["order_id"], checkout["id"], begun, datetime.now(UTC)))

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as shoppers:
            for number in range(SHOPPERS):
                shoppers.create_task(self._go_on(f"shopper-{number}"))
            try:
                yield
            finally:
                self._left = True


@asynccontextmanager
async def _market(home: Path) -> AsyncIterator[Market]:
    """On servers of its own, whose files stay."""
    stack = Stack(home, database_prefix=PREFIX, say=print)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=50))
        yield Market(stack, api, await shop_at(api, "shop"))


@asynccontextmanager
async def _backing_up(home: Path, folder: Path) -> AsyncIterator[None]:
    """The verb, as it runs beside a stack: it outlives that, and what is put in its place."""
    environment = without_ours() | {"CARTWRIGHT_HOME": str(home)}
    command = (sys.executable, "-m", "deploy.cli", "backup", "--folder", str(folder))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment)
    try:
        yield
        assert process.returncode is None, "it goes on until it is told"
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def _reaches(market: Market, folder: Path, at: datetime | None = None, *, bases: int = 1) -> dict[str, Any]:
    """Wait until the backup has all until then."""
    told: dict[str, Any] = {}

    async def reached() -> bool:
        nonlocal told
        told = (await cartwright(market, "backup", "--status", "--folder", str(folder), "--json")).told
        until = told["reaches_until"]
        return len(told["base_backups"]) >= bases and until is not None and (at is None or datetime.fromisoformat(until) >= at)

    await market.until(reached)
    return told


async def _leaves(market: Market, tenant_id: UUID, slug: str) -> None:
    await stands(market.api, str(tenant_id), "close")
    assert "erased_at" in await erased(market.api, str(tenant_id)), slug


async def _rows(market: Market, tenant_id: UUID) -> dict[str, int]:
    """What there is of a tenant in the four databases, but that it was there."""
    found: dict[str, int] = {}
    for service in SERVICES:
        counts = await counted(Place(market.stack.admin_url, service, PREFIX), tenant_id)
        found |= {f"{service}.{name}": count for name, count in counts.items() if count and name not in STAYING}
    return found


async def _order_ids(market: Market) -> set[str]:
    return {order["id"] async for order in market.shop.orders()}


async def _is_decided(market: Market, sold: Sold) -> bool:
    """Whether a checkout that was restored has come to its end once more, or is not there."""
    try:
        path = f"/v1/checkouts/{sold.checkout_id}"
        checkout = (await market.api.call("checkout", "GET", path, token=await market.shop.token())).body
    except RefusedError as error:
        if error.status != 404:
            raise
        return True
    return checkout["state"] in FINAL_STATES


def _of(report: Said, kind: str) -> set[str]:
    return {gap["subject"] for gap in report.told["gaps"] if gap["kind"] == kind}


@pytest.mark.long(
    "a deployment of its own, backed up under load and restored: two minutes; a cluster alone is in tests/integration"
)
@pytest.mark.timeout(900)
async def test_a_random_second_comes_back_every_gap_is_told_the_erased_stay_erased_and_selling_goes_on(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "backups"
    async with _backing_up(home, folder):
        async with _market(home) as market:
            await supply(market.shop, "GBP", OFFERS, print)
            leaver = await market.another_shop("leaver")
            await supply(leaver, "GBP", OFFERS, print)
            await paid(Market(market.stack, market.api, leaver), "last")
            sales = Sales(market)
            async with sales.going_on():
                await _reaches(market, folder)
                begun_at = datetime.now(UTC)
                await asyncio.sleep(6)
                to = begun_at + random.uniform(0.2, 0.9) * (datetime.now(UTC) - begun_at)
                await _leaves(market, leaver.tenant_id, "leaver")
            last = datetime.now(UTC)
            ids = [each.checkout_id for each in sales.done]
            await settled(market.api, market.shop.tenant_id, ids, ids)
            await _reaches(market, folder, last)
            assert (await cartwright(market, "restore", "--to", to.isoformat(), "--folder", str(folder))).code == 3, "it runs"

        begun = time.monotonic()
        said = await cartwright(market, "restore", "--to", to.isoformat(), "--folder", str(folder), "--json")
        assert said.code == 0
        async with _market(home) as market:
            again = await paid(market, "again")
            rto = time.monotonic() - begun
            for each in sales.done:
                await market.until(partial(_is_decided, market, each))

            here, sold = await _order_ids(market), {each.order_id for each in sales.done}
            early = {each.order_id for each in sales.done if each.answered_at < to}
            late = {each.order_id for each in sales.done if each.begun_at > to}
            assert early <= here, "what was answered by then is there"
            assert not late & here
            assert late, "something was lost"

            report = await cartwright(market, "restore", "--report", "--json")
            assert report.code == 1
            assert _of(report, "order-lost") == sold - here
            number = next(
                [order["number"] async for order in market.shop.orders() if order["id"] == again["order_id"]].__iter__()
            )
            assert str(number) in _of(report, "number-twice"), "it had been given to one that is lost"
            assert not _of(report, "tenant-back")
            assert await _rows(market, leaver.tenant_id) == {"identity.tenant": 1}, "who was erased stays so"

            more = [await paid(market, f"more-{number}") for number in range(3)]
            assert {each["order_id"] for each in more} <= await _order_ids(market)
            await _reaches(market, folder, datetime.now(UTC), bases=2)
    lost, seconds = len(sold - here), said.told["seconds"]
    told = f"RTO {rto:.1f} s, of them {seconds} s for the databases; {len(sold)} sold, {lost} lost by going back to {to}"
    print(told, file=sys.stderr)
