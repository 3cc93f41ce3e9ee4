"""HTTP in: stock to look at, and how each product is sold when there is none."""

from fastapi import Response
from pydantic import BaseModel

from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed, of_the_tenant
from services.checkout import repository
from services.checkout.api.models import Body, SkuPath
from services.checkout.domain.stock import Stock, StockPolicy
from services.checkout.handlers.stock import PutStockPolicy

ROUTES = Routes(Facing.CUSTOMERS)
STOCK = Sight(repository.STOCK, "sku")


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
    return await listed(call, repository.STOCK, stock_model, limit, cursor)


@ROUTES.get("/v1/stock/{sku}", response_model=StockModel)
@guard("stock:read", sees=STOCK)
async def read_stock(call: Caller, sku: SkuPath) -> Response:
    """One product's stock."""
    return reply(200, stock_model(await STOCK.of(call, sku)))


@ROUTES.put("/v1/stock/{sku}", response_model=StockModel)
@guard("settings:write", sees=of_the_tenant)
async def put_stock_policy(call: Caller, sku: SkuPath, body: StockBody) -> Response:
    """Sell a product only while there is some, beyond that, or without counting. How many there are is inventory's to say."""
    stock: Stock = await call.execute(PutStockPolicy(sku=sku, policy=body.policy))
    return reply(200, stock_model(stock))
