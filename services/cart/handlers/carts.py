"""What shoppers do with their carts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, Viewer, World
from libs.common.errors import ConflictError, UnavailableError
from libs.common.tenancy import Tenant, tenant_ref
from services.cart import domain
from services.cart.domain import Availability, Cart, Product, Promotion, StockHint
from services.cart.handlers.promotions import offered, offers_ref, promotion_refs, readable
from services.cart.handlers.table import HANDLERS

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PutCoupon:
    """Enter a coupon."""

    cart_id: UUID
    caller: Viewer
    code: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveCoupon:
    """Take a coupon away."""

    cart_id: UUID
    caller: Viewer
    code: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A cart as it was just written, and how what was put is to be had."""

    cart: Cart
    is_new: bool = False
    """Whether a line is."""
    availability: Mapping[str, Availability] = field(default_factory=dict)


def _goods(sku: str) -> Iterable[Ref]:
    return Ref(Product, sku, shared=True), Ref(StockHint, sku, shared=True)


def _of_cart(message: Message[Any], skus: Iterable[str] = ()) -> list[Ref]:
    return [Ref(Cart, message.data.cart_id), offers_ref(message), *(ref for sku in skus for ref in _goods(sku))]


def _promotions(world: World, message: Message[Any]) -> Iterable[Ref]:
    return promotion_refs(world, readable(world, Cart, message.data.cart_id))


def _put(world: World, cart: Cart, changed: Cart, skus: Iterable[str] = (), *, is_new: bool = False) -> Written:
    """Save a cart that its shopper changed, with what it is given now."""
    shown = domain.put(changed, offered(world, changed), world.now)
    return Written(cart=shown if shown == cart else world.save(shown), is_new=is_new, availability=_availability(world, skus))


def _availability(world: World, skus: Iterable[str]) -> dict[str, Availability]:
    found: dict[str, Availability] = {}
    for sku in skus:
        hint = readable(world, StockHint, sku)
        if hint is not None:
            found[sku] = hint.availability
    return found


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


@HANDLERS.on(PutLines, lambda m: _of_cart(m, m.data.quantities), _promotions, unaudited=SHOPPING)
def put_lines(world: World, message: Message[PutLines]) -> Written:
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
    is_new = changed != cart and any(cart.line(line.sku) is None for line in lines)
    return _put(world, cart, changed, command.quantities, is_new=is_new)


@HANDLERS.on(ClaimCart, lambda m: [Ref(Cart, m.data.cart_id)], unaudited=SHOPPING)
def claim_cart(world: World, message: Message[ClaimCart]) -> Cart:
    """Answers the claimer's cart."""
    command = message.data
    cart = world.get(Cart, command.cart_id)
    claimed = domain.claim(cart, command.claimer_id, command.former_id)
    return claimed if claimed == cart else world.save(claimed)


@HANDLERS.on(AddQuantity, lambda m: _of_cart(m, [m.data.sku]), _promotions, unaudited=SHOPPING)
def add_quantity(world: World, message: Message[AddQuantity]) -> Written:
    """Answers the cart with the higher quantity."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    present = cart.line(command.sku)
    quantity = command.quantity + (present.quantity if present else 0)
    line = domain.priced_line(world.get(Product, command.sku), command.sku, quantity, cart.currency, world.now, present)
    changed = domain.put_line(cart, line)
    domain.demand_changeable(cart, None)
    return _put(world, cart, changed, [command.sku])


@HANDLERS.on(RemoveLines, _of_cart, _promotions, unaudited=SHOPPING)
def remove_lines(world: World, message: Message[RemoveLines]) -> Written:
    """Answers the cart without them."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    changed = domain.replace_lines(cart, ()) if command.sku is None else domain.remove_line(cart, command.sku)
    domain.demand_changeable(cart, command.if_match)
    return _put(world, cart, changed)


def _coupon_refs(message: Message[PutCoupon]) -> list[Ref]:
    return [*_of_cart(message), *(Ref(Promotion, code, shared=True) for code in _spellings(message.data.code))]


def _spellings(code: str) -> list[str]:
    """A coupon is read off something and typed: as it is written, or else in capitals."""
    return [*dict.fromkeys((code, code.upper()))]


@HANDLERS.on(PutCoupon, _coupon_refs, _promotions, unaudited=SHOPPING)
def put_coupon(world: World, message: Message[PutCoupon]) -> Written:
    """Answers the cart with it."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    found = [world.get(Promotion, code) for code in _spellings(command.code)]
    changed = domain.put_coupon(cart, next((each for each in found if each is not None and not each.is_gone), None))
    domain.demand_changeable(cart, command.if_match)
    also = [each for each in found if each is not None and each.code not in cart.coupons]
    shown = domain.put(changed, [*offered(world, cart), *also], world.now)
    return Written(cart=shown if shown == cart else world.save(shown))


@HANDLERS.on(RemoveCoupon, _of_cart, _promotions, unaudited=SHOPPING)
def remove_coupon(world: World, message: Message[RemoveCoupon]) -> Written:
    """Answers the cart without it."""
    command = message.data
    cart = command.caller.demand(Cart, world.get(Cart, command.cart_id))
    changed = domain.remove_coupon(cart, command.code)
    domain.demand_changeable(cart, command.if_match)
    return _put(world, cart, changed)
