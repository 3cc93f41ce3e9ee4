"""Two cells on one machine: a tenant moves from one to the other while people buy from it and from its neighbour."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from deploy.cells.moving import Moved, Way, emptied, moved
from deploy.cli.api import connected
from deploy.cli.moving import MOVING
from deploy.cli.supply import supply
from deploy.cli.tenants import operator
from deploy.local.databases import cell_prefix, database_url
from deploy.local.stack import Stack
from tests.shared.custom import Custom, shop_of
from tests.shared.market import OFFERS, Market, market_in

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1_800)]

STAYS = frozenset({"audit_entry", "audit_head", "tenant", "outbox_event", "inbox_position", "inbox_message"})


class InterruptedMoveError(Exception):
    """Somebody ended the move."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    stack = Stack(tmp_path_factory.mktemp("cells"), database_prefix="cells_", cells=("east",), say=print)
    async with stack, connected(stack.description(), connections=100) as api:
        yield await market_in((stack, api))


class Removal:
    """Moves the market's tenant."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self.tenant_id = market.shop.tenant_id

    def owner(self, service: str, cell: str) -> str:
        return database_url(self._market.stack.admin_url, service, "owner", f"cells_{cell_prefix(cell)}")

    async def tenant(self) -> dict[str, Any]:
        api = self._market.api
        return (await api.call("identity", "GET", f"/v1/tenants/{self.tenant_id}", token=await operator(api).token())).body

    async def to(self, target: str, say: Callable[[str], None] = print) -> Moved:
        """Take it there. Whoever is told of a step may raise, and take it there again."""
        tenant = await self.tenant()
        way = Way(tenant_id=self.tenant_id, source=tenant["cell"], target=target)

        async def switch() -> None:
            path, token = f"/v1/tenants/{self.tenant_id}/cell", await operator(self._market.api).token()
            await self._market.api.call("identity", "PUT", path, token=token, body={"cell": target})

        result = await moved(way, MOVING, self.owner, version=tenant["version"], switch=switch, say=say)
        result.deleted = await emptied(way, MOVING, self.owner)
        return result

    async def left_in(self, cell: str) -> dict[str, int]:
        """How many rows a cell's databases have of it, by table."""
        found: dict[str, int] = {}
        for service in MOVING:
            url = database_url(self._market.stack.admin_url, service, "owner", f"cells_{cell_prefix(cell)}")
            admin = await asyncpg.connect(f"{self._market.stack.admin_url.rpartition('/')[0]}/{url.rpartition('/')[2]}")
            tables = await admin.fetch(
                "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'"
            )
            for table in {row["table_name"] for row in tables} - STAYS:
                count = await admin.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", self.tenant_id)
                found |= {f"{service}.{table}": count} if count else {}
            await admin.close()
        return found


async def test_a_tenant_moves_there_and_back_while_people_buy_and_every_order_happens_once(market: Market) -> None:
    neighbour = await market.another_shop("neighbour")
    await supply(neighbour, "GBP", OFFERS, print)
    removal = Removal(market)
    moving, staying = Custom(market, market.shop, "moving"), Custom(market, neighbour, "staying")
    async with staying.comes(), moving.comes():
        await moving.goes_on()
        for target in ("east", "main"):
            result = await removal.to(target)
            assert result.rows > 0
            await moving.goes_on()
            other = "main" if target == "east" else "east"
            assert await removal.left_in(other) == {}
            print(f"to {target}: {result}")
    await moving.left_all_well()
    await staying.was_served_once_each()


@pytest.mark.parametrize("at", range(1, 7))
async def test_a_move_that_is_interrupted_at_any_step_goes_on_when_it_is_said_again(market: Market, at: int) -> None:
    removal, told = Removal(market), list[str]()
    here = (await removal.tenant())["cell"]
    target = "main" if here == "east" else "east"

    def interrupt(step: str) -> None:
        told.append(step)
        if len(told) == at:
            raise InterruptedMoveError(step)

    custom = Custom(market, shop_of(market, market.api), f"interrupted-{at}")
    async with custom.comes():
        await custom.goes_on()
        try:
            await removal.to(target, interrupt)
        except InterruptedMoveError as error:
            print(f"interrupted: {error}")
            if (await removal.tenant())["cell"] != target:
                await removal.to(target)
            else:
                way = Way(tenant_id=removal.tenant_id, source=here, target=target)
                await emptied(way, MOVING, removal.owner)
        await custom.goes_on()
    assert (await removal.tenant())["cell"] == target
    assert await removal.left_in(here) == {}
    await custom.left_all_well()
