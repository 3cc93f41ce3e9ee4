"""HTTP in: stock to look at, and how each product is sold when there is none."""

from fastapi import Response
from pydantic import BaseModel

from libs.common.errors import NotFoundError
from libs.common.http.paging import Page, decode_cursor, page, text_key
from libs.common.http.routes import Caller, Routes, guard, reply
from services.checkout import repository
from services.checkout.api.models import Body, Limit, SkuPath
from services.checkout.domain.stock import Stock, StockPolicy
from services.checkout.handlers.stock import PutStockPolicy

ROUTES = Routes()


class LevelModel(BaseModel):
    """Stock at one location."""

    location: str
    on_hand: int
    reserved: int
    sold: int


class StockModel(BaseModel):
    """Stock over all locations. `backordered` was let go beyond it and has not come yet."""

    sku: str
    policy: StockPolicy
    on_hand: int
    reserved: int
    sold: int
    backordered: int
    locations: list[LevelModel]


class StockBody(Body):
    """What happens when more of a product is wanted than there is. `untracked`: nobody counts it at all."""

    policy: StockPolicy


def stock_model(stock: Stock) -> StockModel:
    """Stock for an answer."""
    return StockModel(
        sku=stock.sku,
        policy=stock.policy,
        on_hand=stock.on_hand,
        reserved=stock.reserved,
        sold=stock.sold,
        backordered=stock.backordered,
        locations=[
            LevelModel(location=location, on_hand=level.on_hand, reserved=level.reserved, sold=level.sold)
            for location, level in sorted(stock.levels.items())
        ],
    )


@ROUTES.get("/v1/stock", response_model=Page[StockModel])
@guard("stock:read")
async def list_stock(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Stock, by SKU."""
    after = decode_cursor(cursor, "", text_key)
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.stock.stock(connection, call.tenant_id, after=after, limit=limit + 1)
    return page([stock_model(stock) for stock in found], limit, lambda stock: stock.sku)


@ROUTES.get("/v1/stock/{sku}", response_model=StockModel)
@guard("stock:read")
async def read_stock(call: Caller, sku: SkuPath) -> Response:
    """One product's stock."""
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.STOCK.load(connection, [(call.tenant_id, sku)], lock=False)
    if not found:
        raise NotFoundError("stock-not-found", "there is no stock of this SKU for you")
    return reply(200, stock_model(found[0]))


@ROUTES.put("/v1/stock/{sku}", response_model=StockModel)
@guard("settings:write")
async def put_stock_policy(call: Caller, sku: SkuPath, body: StockBody) -> Response:
    """Sell a product only while there is some, beyond that, or without counting. How many there are is inventory's to say."""
    stock: Stock = await call.execute(PutStockPolicy(sku=sku, policy=body.policy))
    return reply(200, stock_model(stock))
