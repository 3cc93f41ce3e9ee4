"""What the catalogue, identity and checkout tell of products, tenants and stock."""

from collections.abc import Callable
from typing import Any

from libs.common.contracts.cart import TenantProvisioned
from libs.common.contracts.catalog import PriceChanged, ProductPublished, ProductWithdrawn
from libs.common.contracts.checkout import StockAvailabilityChanged
from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Message, Ref, World
from libs.common.errors import NotYetError
from libs.common.tenancy import Tenant, project_tenant, tenant_ref
from services.cart import domain
from services.cart.domain import Product, StockHint
from services.cart.handlers.table import HANDLERS


def _demand_tenant(world: World) -> None:
    if world.get(Tenant, world.tenant_id) is None:
        raise NotYetError("unknown-tenant", f"tenant {world.tenant_id} is not known here yet")


def _keep(world: World, message: Message[Any], fact: Callable[[Product], Product]) -> None:
    """Save what the fact makes of the product, if it makes a difference: then a rebuilt product is the same to the bit."""
    _demand_tenant(world)
    sku = message.data.sku
    known = world.get(Product, sku) or Product(tenant_id=world.tenant_id, sku=sku)
    domain.demand_next(known, message.sequence)
    product = fact(known)
    if product != known:
        world.save(product)


@HANDLERS.on(ProductPublished, lambda m: [Ref(Product, m.data.sku), tenant_ref(m)])
def publish_product(world: World, message: Message[ProductPublished]) -> None:
    """Keep the newest description."""
    _keep(world, message, lambda product: domain.publish_product(product, message.data, message.sequence))


@HANDLERS.on(PriceChanged, lambda m: [Ref(Product, m.data.sku), tenant_ref(m)])
def change_price(world: World, message: Message[PriceChanged]) -> None:
    """Keep the newest price in each currency."""
    _keep(world, message, lambda product: domain.change_price(product, message.data, message.sequence))


@HANDLERS.on(ProductWithdrawn, lambda m: [Ref(Product, m.data.sku), tenant_ref(m)])
def withdraw_product(world: World, message: Message[ProductWithdrawn]) -> None:
    """Take it off sale."""
    _keep(world, message, lambda product: domain.withdraw_product(product, message.data, message.sequence))


@HANDLERS.on(TenantUpdated, lambda m: [Ref(Tenant, m.data.tenant_id)])
def update_tenant(world: World, message: Message[TenantUpdated]) -> None:
    """Know the tenant, and say so."""
    project_tenant(
        world,
        message,
        lambda tenant_id, version: TenantProvisioned(tenant_id=tenant_id, service="cart", tenant_version=version),
        erased_after={"checkout"},
    )


@HANDLERS.on(StockAvailabilityChanged, lambda m: [Ref(StockHint, m.data.sku), tenant_ref(m)])
def hear_of_stock(world: World, message: Message[StockAvailabilityChanged]) -> None:
    """Keep the newest hint of how a product is to be had."""
    _demand_tenant(world)
    sku = message.data.sku
    known = world.get(StockHint, sku) or StockHint(tenant_id=world.tenant_id, sku=sku)
    hint = domain.stock_hint.tell(known, message.data, message.sequence)
    if hint != known:
        world.save(hint)
