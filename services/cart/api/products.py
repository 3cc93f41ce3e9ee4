"""HTTP in: the products that may go in carts."""

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from libs.common.clock import now
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight
from services.cart import repository
from services.cart.api.models import SkuPath
from services.cart.domain import Product

ROUTES = Routes(Facing.CUSTOMERS)
PRODUCT = Sight(repository.PRODUCTS, "sku")


class ProductModel(BaseModel):
    """A product as clients see it, at its price in the tenant's currency."""

    sku: str
    name: str
    category: str
    currency: str | None
    unit_minor: int | None
    sequence: int
    withdrawn: bool


def product_model(product: Product, currency: str) -> ProductModel:
    """A product for an answer."""
    price = product.price_in(currency, now())
    return ProductModel(
        sku=product.sku,
        name=product.name,
        category=product.category,
        currency=currency if price else None,
        unit_minor=price.unit_minor if price else None,
        sequence=product.catalog_sequence,
        withdrawn=product.withdrawn,
    )


async def _tenant_currency(call: Call, connection: Any) -> str:
    found = await repository.TENANTS.load(connection, [(call.tenant_id, call.tenant_id)], lock=False)
    return found[0].currency if found else ""


@ROUTES.get("/v1/products", response_model=Page[ProductModel])
@guard("products:read")
async def list_products(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """What the catalogue told us, by SKU."""
    asked = Paging(limit, cursor, str)
    async with call.transaction() as connection:
        currency = await _tenant_currency(call, connection)
        found = await repository.PRODUCTS.judged_page(connection, call.tenant_id, after=asked.after, limit=asked.most)
    return asked.reply(found, lambda product: product_model(product, currency), lambda product: [product.sku])


@ROUTES.get("/v1/products/{sku}", response_model=ProductModel)
@guard("products:read", sees=PRODUCT)
async def read_product(call: Caller, sku: SkuPath) -> Response:
    """One product."""
    async with call.transaction() as connection:
        currency = await _tenant_currency(call, connection)
        product = await PRODUCT.within(connection, call, sku)
    return reply(200, product_model(product, currency))
