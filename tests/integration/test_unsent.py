"""What is sold and still lies in the house, of orders that were made before that was kept."""

from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from libs.common.contracts.fulfilment import FulfilmentLine, ReturnReceived, ShipmentDispatched
from libs.common.decision import Viewer
from services.checkout.handlers.orders import CancelOrder
from tests.integration.shop import Shop, shop_at
from tests.shared.callers import message
from tests.shared.places import Place, Places

UNSENT: str = import_module("services.checkout.migrations.versions.0014_prices").UNSENT


async def _levels(admin: Any, tenant_id: UUID) -> dict[str, Any]:
    found = await admin.fetchval("SELECT levels FROM stock WHERE tenant_id = $1 AND sku = 'tea'", tenant_id)
    levels: dict[str, Any] = orjson.loads(found)
    return levels


async def test_the_migration_finds_of_every_order_what_would_have_been_kept(empty: Places) -> None:
    place: Place = empty("checkout")
    async with shop_at(place) as shop:
        await _trade(shop)
        admin: asyncpg.Connection = await place.as_admin()
        try:
            kept = await _levels(admin, shop.tenant_id)
            assert {where: level["unsent"] for where, level in kept.items()} == {"main": 2 + 1}
            forgotten = {where: {**level, "unsent": 0} for where, level in kept.items()}
            text = orjson.dumps(forgotten).decode()
            await admin.execute("UPDATE stock SET levels = $2 WHERE tenant_id = $1 AND sku = 'tea'", shop.tenant_id, text)
            await admin.execute(UNSENT)
            assert await _levels(admin, shop.tenant_id) == kept
        finally:
            await admin.close()


async def _trade(shop: Shop) -> None:
    """Two of tea each: untouched, sent whole, sent in part, canceled, and sent with one that came back for sale."""
    for sent, is_canceled, back in ((0, False, 0), (2, False, 0), (1, False, 0), (0, True, 0), (2, False, 1)):
        order_id = (await shop.ordered(is_captured=not is_canceled)).order_id
        if is_canceled:
            await shop.worker.execute(
                message(CancelOrder(order_id=order_id, caller=Viewer(subject_id=order_id, sees_all=True)), shop.tenant_id)
            )
        if sent:
            lines = (FulfilmentLine(line_id="1", quantity=sent),)
            await shop.tell(ShipmentDispatched(order_id=order_id, shipment_id=str(uuid4()), lines=lines))
        if back:
            lines = (FulfilmentLine(line_id="1", quantity=back),)
            await shop.tell(ReturnReceived(order_id=order_id, return_id=str(uuid4()), lines=lines, restock=True))
