"""Two cells on one machine: a tenant moves from one to the other while people buy from it and from its neighbour."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.cells import doors
from deploy.cells.moving import Moved, Way, emptied, moved
from deploy.cli.api import connected
from deploy.cli.publisher import Fact, publishing
from deploy.cli.tenants import operator
from deploy.local.cells import CELLED
from deploy.local.databases import cell_prefix, database_url
from deploy.local.stack import Stack
from tests.shared.custom import Custom
from tests.shared.market import Market, market_in
from tests.shared.places import Place, counted
from tests.shared.verbs import cartwright

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1_800)]

PREFIX = "cells_"
CELLS = ("main", "east")
STAYS = frozenset({"audit_entry", "audit_head", "tenant", "erasure", "outbox_event"})
"""That it is elsewhere, who did what, and what has been published and goes with the rest of its time."""


class InterruptedMoveError(Exception):
    """Somebody ended the move."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    stack = Stack(tmp_path_factory.mktemp("cells"), database_prefix=PREFIX, cells=("east",), say=print)
    async with stack, connected(stack.description(), connections=100) as api:
        yield await market_in((stack, api))


class Removal:
    """Moves the market's tenant."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self.tenant_id = market.shop.tenant_id
        self._fails: Callable[[], None] = lambda: None

    def owner(self, service: str, cell: str) -> str:
        return database_url(self._market.stack.admin_url, service, "owner", PREFIX + cell_prefix(cell))

    async def cell(self) -> str:
        api = self._market.api
        shown = await api.call("identity", "GET", f"/v1/tenants/{self.tenant_id}", token=await operator(api).token())
        return str(shown.body["cell"])

    async def to(self, target: str, *, fails: str = "") -> Moved:
        """Take it there; or only as far as the step that fails."""
        api = self._market.api
        tenant = (await api.call("identity", "GET", f"/v1/tenants/{self.tenant_id}", token=await operator(api).token())).body
        way = Way(tenant_id=self.tenant_id, source=tenant["cell"], target=target)

        def say(step: str) -> None:
            print(step)
            if fails and fails in step:
                raise InterruptedMoveError(step)

        async def switch() -> None:
            if fails == "switch":
                raise InterruptedMoveError(fails)
            path = f"/v1/tenants/{self.tenant_id}/cell"
            await api.call("identity", "PUT", path, token=await operator(api).token(), body={"cell": target})

        result = await moved(way, CELLED, self.owner, version=tenant["version"], switch=switch, say=say)
        result.deleted = await emptied(way, CELLED, self.owner)
        return result

    async def left_in(self, cell: str) -> dict[str, int]:
        """How many rows a cell's databases have of it, by table."""
        found: dict[str, int] = {}
        for service in CELLED:
            counts = await counted(Place(self._market.stack.admin_url, service, PREFIX + cell_prefix(cell)), self.tenant_id)
            found |= {f"{service}.{table}": count for table, count in counts.items() if count and table not in STAYS}
        return found


class Deliveries:
    """A warehouse that says again and again that a unit more has come."""

    def __init__(self, market: Market, sku: str) -> None:
        self._market, self._sku = market, sku
        self.count = 0

    async def come(self) -> None:
        async with publishing(self._market.api.stack) as publisher:
            while True:
                self.count += 1
                facts = {"location": "shop", "delta": 1, "reason": "delivery"}
                fact = Fact(
                    "inventory.v1",
                    "stock.adjusted",
                    "/test/inventory",
                    self._market.shop.tenant_id,
                    self._sku,
                    self.count + 1,
                    facts,
                )
                await publisher.publish([fact.record()])
                await asyncio.sleep(0.1)

    async def all_are_there(self) -> bool:
        return await self._on_hand() == 100 + self.count

    async def make_a_million(self) -> None:
        """Have as many of it as of everything else."""
        counted, tenant_id = {"location": "shop", "quantity": 1_000_000}, self._market.shop.tenant_id
        fact = Fact("inventory.v1", "stock.counted", "/test/inventory", tenant_id, self._sku, self.count + 2, counted)
        async with publishing(self._market.api.stack) as publisher:
            await publisher.publish([fact.record()])

        async def are_there() -> bool:
            return await self._on_hand() == 1_000_000

        await self._market.until(are_there)

    async def _on_hand(self) -> int:
        return int((await self._market.level(self._sku))["on_hand"])


async def _misfortune(market: Market) -> None:
    """Workers of both cells die while it moves."""
    for name in ("payments.worker", "checkout.worker@east", "cart.worker", "payments.worker@east", "checkout.worker"):
        await market.stack.kill(name)
        await market.stack.start_process(name)


async def _moved_by_the_verb(market: Market, owners: Path, target: str) -> dict[str, Any]:
    said = await cartwright(market, "tenants", "move", "market", "--to", target, "--owners", str(owners), "--json")
    assert said.code == 0, said.err
    return said.told


async def test_a_tenant_moves_there_and_back_while_people_buy_and_workers_die_and_everything_happens_once(
    market: Market, tmp_path: Path
) -> None:
    neighbour = await market_in((market.stack, market.api), "neighbour")
    removal, owners = Removal(market), tmp_path / "owners.json"
    owners.write_text(json.dumps({cell: {service: removal.owner(service, cell) for service in CELLED} for cell in CELLS}))
    await market.stock_of("DELIVERED", 100)
    deliveries = Deliveries(market, "DELIVERED")
    moving, staying = Custom(market, market.shop, "moving"), Custom(neighbour, neighbour.shop, "staying")
    coming = asyncio.create_task(deliveries.come())
    async with staying.comes(), moving.comes():
        await moving.goes_on()
        for source, target in (CELLS, CELLS[::-1]):
            told, _ = await asyncio.gather(_moved_by_the_verb(market, owners, target), _misfortune(market))
            print(told)
            assert (await removal.cell(), told["rows"] > 0) == (target, True)
            await moving.goes_on()
            assert await removal.left_in(source) == {}
    coming.cancel()
    await asyncio.wait([coming])
    await market.until(deliveries.all_are_there)
    await deliveries.make_a_million()
    await moving.left_all_well()
    await staying.left_all_well()


def _once(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The step, for the first service alone; the others are interrupted."""
    first: list[Any] = []

    async def stepped(database: Any, *arguments: Any) -> Any:
        first.append(database)
        if database is not first[0]:
            raise InterruptedMoveError(step.__name__)
        return await step(database, *arguments)

    return stepped


LONG = pytest.mark.long("a move is interrupted at three other steps in every build")


@pytest.mark.parametrize(
    "at",
    [
        "depart",
        "arrive",
        "switch",
        pytest.param("look 1", marks=LONG),
        pytest.param("is closed", marks=LONG),
        pytest.param("have the same", marks=LONG),
        pytest.param("is open", marks=LONG),
    ],
)
async def test_a_move_that_is_interrupted_at_any_step_goes_on_when_it_is_said_again(
    market: Market, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    removal = Removal(market)
    here = await removal.cell()
    target = next(cell for cell in CELLS if cell != here)
    custom = Custom(market, market.shop, f"interrupted-{at.replace(' ', '-')}")
    async with custom.comes():
        await custom.goes_on()
        with monkeypatch.context() as broken:
            if is_door := hasattr(doors, at):
                broken.setattr(doors, at, _once(getattr(doors, at)))
            with pytest.raises(InterruptedMoveError):
                await removal.to(target, fails="" if is_door else at)
        if await removal.cell() == here:
            await removal.to(target)
        else:
            await emptied(Way(tenant_id=removal.tenant_id, source=here, target=target), CELLED, removal.owner)
        await custom.goes_on()
    assert await removal.cell() == target
    assert await removal.left_in(here) == {}
    await custom.left_all_well()


async def test_a_tenant_may_begin_in_another_cell_and_sell_there(market: Market) -> None:
    body = {
        "slug": "eastern",
        "name": "Eastern",
        "currency": "GBP",
        "country": "GB",
        "admin_email": "a@eastern.test",
        "cell": "east",
    }
    token = await operator(market.api).token()
    await market.api.call("identity", "POST", "/v1/tenants", token=token, body=body, key="eastern")
    eastern = await market_in((market.stack, market.api), "eastern")
    custom = Custom(eastern, eastern.shop, "eastern")
    async with custom.comes():
        await custom.goes_on()
    await custom.left_all_well()
    assert await Removal(eastern).left_in("main") == {}
    assert await Removal(eastern).left_in("east") != {}
