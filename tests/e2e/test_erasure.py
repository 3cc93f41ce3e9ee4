"""A shop sells, gives money back, closes, takes its own away, and is erased: nothing is left of it, and nobody else lacks any."""

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from deploy.cli.api import RefusedError
from deploy.cli.audit.run import verify
from deploy.cli.publisher import Fact, publishing
from deploy.cli.standing import settled
from deploy.cli.supply import supply
from deploy.cli.tenants import operator
from services import SERVICES
from tests.shared.market import OFFERS, Market, shop_at
from tests.shared.verbs import buy, cartwright, paid

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITH_TENANTS = """SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1"""
STAYING = {"audit_entry", "audit_head", "erasure", "identity.tenant"}
"""That it was erased, and who did what, with nobody in it. What it said last leaves the outbox within half an hour."""
MOVING = {"outbox_event", "idempotency_key", "timer"}
"""What comes and goes of a shop that nothing happens in."""


async def _counts(market: Market, admin_url: str, tenant_id: UUID) -> dict[str, int]:
    """How many rows a tenant has in each table of each service."""
    counts: dict[str, int] = {}
    for service in SERVICES:
        database = f"{admin_url.rpartition('/')[0]}/{market.stack._prefixes[0]}{service}"
        admin = await asyncpg.connect(database)
        for table in await admin.fetch(WITH_TENANTS):
            found = await admin.fetchval(f"SELECT count(*) FROM {table['name']} WHERE tenant_id = $1", tenant_id)
            counts[f"{service}.{table['name']}"] = found
        await admin.close()
    return counts


def _is_left(table: str) -> bool:
    return table in STAYING or table.partition(".")[2] in STAYING | {"outbox_event"}


async def _gave_back(market: Market, checkout: dict[str, Any]) -> None:
    path, body = f"/v1/orders/{checkout['order_id']}/refunds", {"restock": True, "reason": "the end"}
    await market.api.call("checkout", "POST", path, token=await market.shop.token(), body=body, key="back")

    async def is_given_back() -> bool:
        return bool((await market.shop.order(checkout["order_id"]))["payment_state"] == "refunded")

    await market.until(is_given_back)


async def _exported(market: Market, folder: Path) -> dict[str, Any]:
    """The second of two exports that are the same: webhooks of money that has ended are still being taken."""
    taken: list[dict[str, Any]] = []

    async def stands_still() -> bool:
        said = await cartwright(market, "tenants", "export", "leaving", str(folder / str(len(taken))), "--json")
        assert said.code == 0, said.out
        taken.append(said.told)
        digests = [[part["sha256"] for part in each["parts"]] for each in taken[-2:]]
        return len(taken) > 1 and digests[0] == digests[1]

    await market.until(stands_still, 120)
    return taken[-1]


async def _feeds(market: Market, tenant_id: UUID) -> None:
    """What the catalogue and the shelf go on saying of it, and of a shop that is there, which is known to be read then."""
    facts = [
        Fact("catalog.v1", "product.published", "/test/late", tenant_id, "SKU-9", 1, {"name": "Late", "category": "things"}),
        Fact("inventory.v1", "stock.counted", "/test/late", tenant_id, "SKU-9", 1, {"location": "shop", "quantity": 9}),
        Fact("inventory.v1", "stock.counted", "/test/late", tenant_id, "SKU-9", 2, {"location": "shop", "quantity": "many"}),
    ]
    async with publishing(market.api.stack) as publisher:
        await publisher.publish(fact.record() for fact in facts)
    await market.stock_of(f"after-{tenant_id}", 3)


async def test_a_shop_that_closed_is_erased_everywhere_and_for_good(market: Market, tmp_path: Path, admin_url: str) -> None:
    leaving = Market(market.stack, market.api, await shop_at(market.api, "leaving"))
    tenant_id, stays = leaving.shop.tenant_id, market.shop.tenant_id
    await supply(leaving.shop, "GBP", OFFERS, print)
    await paid(market, "neighbour")
    bought, kept = await paid(leaving, "first"), await paid(leaving, "second")
    early = await cartwright(market, "tenants", "erase", "leaving", "--yes", "--json")
    assert early.code != 0, "only of one that is closing anything is deleted"
    await settled(market.api, str(tenant_id), "close")
    leaving.shop = await shop_at(market.api, "leaving")
    await _gave_back(leaving, bought)
    assert (await leaving.shop.order(kept["order_id"]))["payment_state"] == "captured"
    reading, theirs = await leaving.shop.token(), await _counts(market, admin_url, stays)
    exported = await _exported(leaving, tmp_path)
    # Comparing with the provider goes on by the clock, while somebody reads what was taken away.
    again = await cartwright(market, "reconcile", "--tenant", "leaving", "--json")
    assert (again.code, again.told["reconciled"]) == (0, True), again.out

    said = await cartwright(market, "tenants", "erase", "leaving", "--yes", "--json")
    assert (said.code, said.told["status"], said.told["slug"], said.told["name"]) == (0, "erased", "", ""), said.out
    digests = "".join(f"{part['service']} {part['sha256']}\n" for part in exported["parts"])
    assert said.told["export_sha256"] == hashlib.sha256(digests.encode()).hexdigest(), "what was deleted is what was taken away"
    counts = await _counts(market, admin_url, tenant_id)
    assert {table for table, count in counts.items() if count and not _is_left(table)} == set()
    for service, path in (("cart", "/v1/carts"), ("checkout", "/v1/orders"), ("payments", "/v1/payments")):
        with pytest.raises(RefusedError, match=r"tenant-erased|invalid-token"):
            await market.api.call(service, "GET", path, token=reading)

    # What others go on saying of it makes nothing of it again, and its neighbour has what it had.
    await _feeds(market, tenant_id)
    late = await _counts(market, admin_url, tenant_id)
    assert {table for table, count in late.items() if count and not _is_left(table)} == set()
    now = await _counts(market, admin_url, stays)
    assert {table for table, count in theirs.items() if now[table] < count and table.partition(".")[2] not in MOVING} == set()

    # Said again it is the same answer; its slug is another's to take, who has nothing of it.
    again = await cartwright(market, "tenants", "erase", str(tenant_id), "--yes", "--json")
    assert (again.code, again.told) == (0, said.told)
    successor = await shop_at(market.api, "leaving")
    assert successor.tenant_id != tenant_id
    assert [order async for order in successor.orders()] == []
    shown = await market.api.call("identity", "GET", f"/v1/tenants/{tenant_id}", token=await operator(market.api).token())
    assert shown.body["status"] == "erased"
    _, checkout = await buy(market, "after", {"SKU-3": 1})
    assert checkout["state"] == "confirmed"
    chains = await verify(admin_url, prefix=market.stack._prefixes[0])
    trails = [(chain.number, chain.broken) for chain in chains if chain.tenant_id == tenant_id]
    assert [broken for number, broken in trails if number] == [None] * len(trails) != [], "who did what stays told"
