"""Which command or event goes to which decision, and what is loaded for it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.common.contracts.cart import CartFreezeRefused, FreezeRefusal, TenantProvisioned
from libs.common.contracts.catalog import PriceChanged, ProductPublished, ProductWithdrawn
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutRequested,
    OrderConfirmed,
)
from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Handlers, Message, Ref, UnreadableError, Viewer, World
from libs.common.errors import ConflictError, NotYetError, UnavailableError
from libs.common.tenancy import Tenant, project_tenant, tenant_ref
from services.cart import domain
from services.cart.domain import Cart, CartState, Product

HANDLERS = Handlers()
SHOPPING = "a cart is its shopper's, whoever fills it for them"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCart:
    """Make a cart, unless it is there."""

    cart_id: UUID
    caller: Viewer
    currency: str | None
    is_new_id: bool = False
    """Nobody has it yet, so there is nothing to look up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutLines:
    """Put these quantities: in the place of all lines, or each in the place of its own."""

    cart_id: UUID
    caller: Viewer
    quantities: dict[str, int]
    replace_all: bool = False
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCart:
    """Make a guest's cart that of the shopper whom the guest turned out to be."""

    cart_id: UUID
    claimer_id: UUID
    former_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddQuantity:
    """Put so many more of a SKU."""

    cart_id: UUID
    caller: Viewer
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveLines:
    """Take away the line of one SKU, or every line."""

    cart_id: UUID
    caller: Viewer
    sku: str | None
    if_match: int | None = None


def _product(sku: str) -> Ref:
    return Ref(Product, sku, shared=True)


def _cart_to_be(message: Message[CreateCart]) -> list[Ref]:
    command = message.data
    return [tenant_ref(message), *([] if command.is_new_id else [Ref(Cart, command.cart_id)])]


@HANDLERS.on(CreateCart, _cart_to_be, unaudited=SHOPPING)
def create_cart(world: World, message: Message[CreateCart]) -> tuple[Cart, bool]:
    """Answers the cart and whether it is new."""
    command = message.data
    cart = None if command.is_new_id else world.get(Cart, command.cart_id)
    if cart is not None:
        if cart.subject_id != command.caller.subject_id:
            # Word for word what the unique index says of another tenant's cart: which of the two it is stays ours to know.
            raise ConflictError("id-not-available", "this cart cannot be: id not available")
        return cart, False
    tenant = world.get(Tenant, world.tenant_id)
    if tenant is None:
        raise UnavailableError("tenant-not-ready", "this tenant is still being set up; try again shortly", retry_after=1)
    currency = command.currency or tenant.currency
    cart = domain.create(world.tenant_id, command.cart_id, command.caller.subject_id, currency, world.now)
    return world.save(cart), True


@HANDLERS.on(PutLines, lambda m: [Ref(Cart, m.data.cart_id), *map(_product, m.data.quantities)], unaudited=SHOPPING)
def put_lines(world: World, message: Message[PutLines]) -> tuple[Cart, bool]:
    """Answers the cart and whether a line is new."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    lines = [
        domain.priced_line(world.get(Product, sku), sku, quantity, cart.currency, world.now, cart.line(sku))
        for sku, quantity in command.quantities.items()
    ]
    changed = domain.replace_lines(cart, lines) if command.replace_all else cart
    if not command.replace_all:
        for line in lines:
            changed = domain.put_line(changed, line)
    domain.demand_changeable(cart, command.if_match)
    if changed == cart:
        return cart, False
    return world.save(changed), any(cart.line(line.sku) is None for line in lines)


@HANDLERS.on(ClaimCart, lambda m: [Ref(Cart, m.data.cart_id)], unaudited=SHOPPING)
def claim_cart(world: World, message: Message[ClaimCart]) -> Cart:
    """Answers the claimer's cart."""
    command = message.data
    cart = world.get(Cart, command.cart_id)
    claimed = domain.claim(cart, command.claimer_id, command.former_id)
    return claimed if claimed == cart else world.save(claimed)


@HANDLERS.on(AddQuantity, lambda m: [Ref(Cart, m.data.cart_id), _product(m.data.sku)], unaudited=SHOPPING)
def add_quantity(world: World, message: Message[AddQuantity]) -> Cart:
    """Answers the cart with the higher quantity."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    present = cart.line(command.sku)
    quantity = command.quantity + (present.quantity if present else 0)
    line = domain.priced_line(world.get(Product, command.sku), command.sku, quantity, cart.currency, world.now, present)
    changed = domain.put_line(cart, line)
    domain.demand_changeable(cart, None)
    return world.save(changed)


@HANDLERS.on(RemoveLines, lambda m: [Ref(Cart, m.data.cart_id)], unaudited=SHOPPING)
def remove_lines(world: World, message: Message[RemoveLines]) -> Cart:
    """Answers the cart without them."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    changed = domain.replace_lines(cart, ()) if command.sku is None else domain.remove_line(cart, command.sku)
    domain.demand_changeable(cart, command.if_match)
    return world.save(changed)


def _products_of_cart(world: World, message: Message[CheckoutRequested]) -> Iterable[Ref]:
    try:
        cart = world.get(Cart, message.data.cart_id)
    except UnreadableError:
        return []
    return [_product(line.sku) for line in cart.lines] if cart else []


@HANDLERS.on(CheckoutRequested, lambda m: [Ref(Cart, m.data.cart_id)], more=_products_of_cart)
def freeze_cart(world: World, message: Message[CheckoutRequested]) -> None:
    """Freeze the cart for a checkout at the prices of this moment, or say why not."""
    request = message.data
    try:
        cart = world.get(Cart, request.cart_id)
    except UnreadableError:
        _refuse(world, request, "cart-unavailable")
        return
    if cart is not None and cart.checkout_id == request.checkout_id:
        return
    if cart is None:
        _refuse(world, request, "cart-not-found")
        return
    attempt = request.attempt or 0
    products = _for_sale(world, cart)
    unavailable = any(line.sku not in products for line in cart.lines)
    priced = domain.repriced(cart, products, world.now)
    reason = domain.freeze_refusal(priced, request.subject_id, unavailable, attempt)
    if reason is not None:
        _refuse(world, request, reason)
        return
    opened, given_back = domain.release(priced)
    valid_until = domain.prices_valid_until(opened, products.values())
    frozen, event = domain.freeze(opened, request.checkout_id, attempt, valid_until)
    world.save(frozen, *given_back, event)


def _refuse(world: World, request: CheckoutRequested, reason: FreezeRefusal) -> None:
    """What the checkout may not see must not move either: the refusal is the first and only event of its own key."""
    refused = CartFreezeRefused(cart_id=request.cart_id, checkout_id=request.checkout_id, reason=reason)
    world.publish(refused, 1, by="checkout_id")


def _for_sale(world: World, cart: Cart) -> dict[str, Product]:
    """The cart's products that are sold in its currency at present."""
    found: dict[str, Product] = {}
    for line in cart.lines:
        try:
            product = world.get(Product, line.sku)
        except UnreadableError:
            continue
        if product is not None and product.price_in(cart.currency, world.now) is not None:
            found[line.sku] = product
    return found


def _cart_of_checkout(message: Message[Any]) -> list[Ref]:
    return [Ref(Cart, message.data.cart_id)]


@HANDLERS.on(CheckoutFailed, _cart_of_checkout)
def reopen_cart(world: World, message: Message[CheckoutFailed]) -> None:
    """Give the cart back, if it is this checkout's."""
    _reopen(world, message.data.cart_id, message.data.checkout_id)


@HANDLERS.on(CheckoutCanceled, _cart_of_checkout)
def reopen_canceled_cart(world: World, message: Message[CheckoutCanceled]) -> None:
    """Give the cart back, if it is this checkout's."""
    _reopen(world, message.data.cart_id, message.data.checkout_id)


@HANDLERS.on(CheckoutExpired, _cart_of_checkout)
def reopen_expired_cart(world: World, message: Message[CheckoutExpired]) -> None:
    """Give the cart back, if it is this checkout's."""
    _reopen(world, message.data.cart_id, message.data.checkout_id)


def _reopen(world: World, cart_id: UUID, checkout_id: UUID) -> None:
    cart = world.get(Cart, cart_id)
    if cart is not None and cart.state is CartState.FROZEN and cart.checkout_id == checkout_id:
        world.save(*domain.reopen(cart, checkout_id))


@HANDLERS.on(OrderConfirmed, lambda m: [Ref(Cart, m.data.cart_id)])
def order_cart(world: World, message: Message[OrderConfirmed]) -> None:
    """The cart has become an order."""
    cart = world.get(Cart, message.data.cart_id)
    if cart is not None and cart.state is CartState.FROZEN:
        world.save(*domain.order(cart, message.data.order_id))


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
