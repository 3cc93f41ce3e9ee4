"""Promotions: what a tenant's staff says of them, and which of them concern a cart."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from libs.common.decision import Aggregate, Message, Ref, UnreadableError, World
from services.cart.domain import Cart, CartState, Offers, Promotion, promotion
from services.cart.handlers.table import HANDLERS

A = TypeVar("A", bound=Aggregate)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPromotion:
    """Give a promotion, or give it on other terms."""

    promotion: Promotion


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePromotion:
    """Give it no more."""

    code: str


@HANDLERS.on(PutPromotion, lambda m: [Ref(Promotion, m.data.promotion.code), Ref(Offers, m.tenant_id)])
def put_promotion(world: World, message: Message[PutPromotion]) -> tuple[Promotion, bool]:
    """Answers the promotion as it is now, and whether it is new."""
    known = world.get(Promotion, message.data.promotion.code)
    wanted, event = promotion.define(known, message.data.promotion)
    if wanted == known:
        return wanted, False
    _list(world, wanted)
    return world.save(wanted, event), known is None or known.is_gone


@HANDLERS.on(RemovePromotion, lambda m: [Ref(Promotion, m.data.code), Ref(Offers, m.tenant_id)])
def remove_promotion(world: World, message: Message[RemovePromotion]) -> None:
    """Carts that are frozen keep what they were given."""
    removed, event = promotion.remove(world.get(Promotion, message.data.code), world.now)
    _list(world, removed)
    world.save(removed, event)


def _list(world: World, changed: Promotion) -> None:
    known = world.get(Offers, world.tenant_id) or Offers(tenant_id=world.tenant_id)
    offers = promotion.listed(known, changed)
    if offers != known:
        world.save(offers)


def offers_ref(message: Message[Any]) -> Ref:
    """What there is to know before promotions are looked up; it comes with the statement that reads the cart."""
    return Ref(Offers, message.tenant_id, shared=True)


def promotion_refs(world: World, cart: Cart | None, *, counting: bool = False) -> Iterable[Ref]:
    """Those that may be given to this cart: none, for a tenant without any, and then nothing more is read.

    `counting`: those with a limit are to be changed. One that got its limit just now was not locked, and whoever counts it then
    is too late for its version and decides again.
    """
    if cart is None:
        return ()
    offers = readable(world, Offers, world.tenant_id)
    limited = offers.limited if offers and counting else ()
    is_counted_for = counting and cart.state is CartState.FROZEN
    given = [each.promotion for each in cart.discounts if each.is_counted] if is_counted_for else []
    codes = [*(offers.automatic if offers else ()), *cart.coupons, *given]
    return [Ref(Promotion, code, shared=code not in limited and code not in given) for code in dict.fromkeys(codes)]


def offered(world: World, cart: Cart) -> list[Promotion]:
    """The promotions that may be given to this cart, as they are. One that cannot be read is not given."""
    found = [readable(world, Promotion, ref.key) for ref in promotion_refs(world, cart)]
    return [each for each in found if each is not None]


def readable(world: World, kind: type[A], key: Any) -> A | None:
    """What is there, if it can be read."""
    try:
        return world.get(kind, key)
    except UnreadableError:
        return None
