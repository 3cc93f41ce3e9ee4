"""Drops: who opens a waiting room, who arrives, who is let in; and who of them buys."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from libs.common.contracts.cart import CartFrozen
from libs.common.decision import Message, Ref, World
from libs.common.errors import NotYetError
from libs.common.telemetry import Counter
from libs.common.tenancy import Tenant, tenant_ref
from services.checkout.domain import drop
from services.checkout.domain.drop import Drop, Place, Terms
from services.checkout.domain.saga import Checkout
from services.checkout.domain.stock import Stock
from services.checkout.handlers.table import HANDLERS

ARRIVED: Final = Counter("cartwright_drop_arrivals_total", "Buyers who took a place in a drop's queue")
ADMITTED: Final = Counter("cartwright_drop_admitted_total", "Buyers who were let in from a drop's queue")
TURNED_AWAY: Final = Counter("cartwright_drop_turned_away_total", "Checkouts that ended because their buyer was not let in yet")

QUEUEING = "a place in a queue is its buyer's, and changes nothing of the tenant's"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutDrop:
    """Sell a product to those alone who are let in, in the order of their arrival."""

    sku: str
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDrop:
    """Sell it like any other again."""

    sku: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinQueue:
    """Take a place in the queue."""

    sku: str
    subject_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class LetIn:
    """Let in whose turn it is. It was decided on when so many had been, of whom so many had not come."""

    drop_id: UUID
    served_number: int
    unused: int
    crowded: float = 0.0
    """Which part of the time whoever looked had to wait for a processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """How somebody stands in a queue, and whether they have just come."""

    drop: Drop
    place: Place
    is_new: bool
    at: datetime


def _drop(message: Message[PutDrop] | Message[DeleteDrop] | Message[JoinQueue]) -> Ref:
    return Ref(Drop, drop.drop_id(message.data.sku))


@HANDLERS.on(PutDrop, lambda m: [_drop(m), tenant_ref(m)])
def put_drop(world: World, message: Message[PutDrop]) -> Drop:
    """Answers the drop as it is now."""
    if world.get(Tenant, world.tenant_id) is None:
        raise NotYetError("unknown-tenant", f"tenant {world.tenant_id} is not known here yet")
    sku = message.data.sku
    known = world.get(Drop, drop.drop_id(sku))
    opened = drop.put(known, world.tenant_id, sku, message.data.terms, world.now)
    return opened if opened == known else world.save(opened)


@HANDLERS.on(DeleteDrop, lambda m: [_drop(m)])
def delete_drop(world: World, message: Message[DeleteDrop]) -> None:
    """Nobody waits for it any more."""
    world.save(drop.take_away(world.get(Drop, drop.drop_id(message.data.sku)), world.now))


@HANDLERS.on(
    JoinQueue,
    lambda m: [_drop(m), Ref(Place, drop.place_id(drop.drop_id(m.data.sku), m.data.subject_id))],
    unaudited=QUEUEING,
)
def join_queue(world: World, message: Message[JoinQueue]) -> Stands:
    """Answers the place; said again, the same."""
    found = world.get(Drop, drop.drop_id(message.data.sku))
    place = world.get(Place, drop.place_id(drop.drop_id(message.data.sku), message.data.subject_id))
    joined = drop.join(found, place, message.data.subject_id, world.now)
    if joined is not None:
        ARRIVED.inc()
        return Stands(drop=world.save(joined[0]), place=world.save(joined[1]), is_new=True, at=world.now)
    if found is None or place is None:
        message_ = "who does not join has a place, at a drop that is there"
        raise TypeError(message_)
    return Stands(drop=found, place=place, is_new=False, at=world.now)


@HANDLERS.on(LetIn, lambda m: [Ref(Drop, m.data.drop_id)], more=lambda world, m: _stock(world, m.data.drop_id))
def let_in(world: World, message: Message[LetIn]) -> int:
    """Answers how many were let in. Where somebody else has let in others meanwhile, none: what was counted is no more so."""
    found = world.get(Drop, message.data.drop_id)
    if found is None or found.served_number != message.data.served_number:
        return 0
    after = drop.admit(found, world.get(Stock, found.sku), message.data.unused, world.now, message.data.crowded)
    if after == found:
        return 0
    world.save(after)
    count = after.served_number - found.served_number
    ADMITTED.inc(count)
    return count


def _stock(world: World, drop_id: UUID) -> list[Ref]:
    """The stock of its product, to look at: whoever holds it is in the middle of buying."""
    found = world.get(Drop, drop_id)
    return [Ref(Stock, found.sku, shared=True)] if found else []


# --- At the checkout -------------------------------------------------------------------------------------------------


def guarding(frozen: CartFrozen) -> list[Ref]:
    """What may stand before the products of a cart, to look at: nothing does before nearly all."""
    return [Ref(Drop, drop.drop_id(sku), shared=True) for sku in {line.sku for line in frozen.lines}]


def places(world: World, checkout: Checkout, frozen: CartFrozen) -> list[Ref]:
    """The buyer's places in the queues of what is in the cart."""
    return [Ref(Place, drop.place_id(each.id, checkout.subject_id)) for each in _guards(world, frozen)]


def to_queue_for(world: World, checkout: Checkout, frozen: CartFrozen) -> str | None:
    """The product of the cart that its buyer has to queue for first, if there is one."""
    for each in _guards(world, frozen):
        place = world.get(Place, drop.place_id(each.id, checkout.subject_id))
        if not drop.may_buy(each, place, world.now):
            TURNED_AWAY.inc()
            return each.sku
    return None


def use_all(world: World, checkout: Checkout, frozen: CartFrozen) -> None:
    """What the buyer was let in for is this checkout, which has reserved it."""
    for each in _guards(world, frozen):
        place = world.get(Place, drop.place_id(each.id, checkout.subject_id))
        if place is not None:
            world.save(drop.use(place, checkout.id))


def _guards(world: World, frozen: CartFrozen) -> Iterator[Drop]:
    """The drops of what is in the cart, of those that are on."""
    for sku in sorted({line.sku for line in frozen.lines}):
        found = world.get(Drop, drop.drop_id(sku))
        if found is not None and found.guards(world.now):
            yield found
