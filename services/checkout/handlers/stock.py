"""Stock, as inventory tells of it and as tenants want it sold; and what checkouts do with it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.common.contracts.inventory import StockAdjusted, StockCounted
from libs.common.decision import Message, Ref, World
from libs.common.errors import ConflictError, NotYetError
from libs.common.tenancy import Tenant, tenant_ref
from services.checkout import domain
from services.checkout.domain.stock import Allocation, Bounds, Returned, Stock, StockPolicy
from services.checkout.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class PutStockPolicy:
    """Say what happens when more of a product is wanted than there is."""

    sku: str
    policy: StockPolicy


def _stocked(world: World, sku: str) -> Stock:
    if world.get(Tenant, world.tenant_id) is None:
        raise NotYetError("unknown-tenant", f"tenant {world.tenant_id} is not known here yet")
    return world.get(Stock, sku) or Stock(tenant_id=world.tenant_id, sku=sku)


def _save(world: World, stock: Stock) -> Stock:
    """Save it, and tell when it is to be had otherwise than before: that is rare, while sales are not."""
    return world.save(stock, *domain.stock.news(world.get(Stock, stock.sku), stock))


@HANDLERS.on(StockCounted, lambda m: [Ref(Stock, m.data.sku), tenant_ref(m)])
def stock_counted(world: World, message: Message[StockCounted]) -> None:
    """Take a count."""
    fact = message.data
    physical_at = message.time if fact.basis == "physical" else None
    _save(world, domain.stock.count(_stocked(world, fact.sku), fact.location, fact.quantity, message.sequence, physical_at))


@HANDLERS.on(StockAdjusted, lambda m: [Ref(Stock, m.data.sku), tenant_ref(m)], is_delta=True)
def stock_adjusted(world: World, message: Message[StockAdjusted]) -> None:
    """Take an adjustment."""
    fact = message.data
    _save(world, domain.stock.adjust(_stocked(world, fact.sku), fact.location, fact.delta, message.sequence))


@HANDLERS.on_discard(StockAdjusted, lambda m: [Ref(Stock, m.data.sku), tenant_ref(m)])
def stock_adjustment_discarded(world: World, message: Message[StockAdjusted]) -> None:
    """An operator says that this one will never be applied: those behind it need not wait for it."""
    _save(world, domain.stock.skip(_stocked(world, message.data.sku), message.sequence))


@HANDLERS.on(PutStockPolicy, lambda m: [Ref(Stock, m.data.sku)])
def put_stock_policy(world: World, message: Message[PutStockPolicy]) -> Stock:
    """Answers the product's stock. Inventory need not have heard of it: nobody counts what is untracked."""
    known = world.get(Stock, message.data.sku)
    stock = domain.stock.set_policy(known or Stock(tenant_id=world.tenant_id, sku=message.data.sku), message.data.policy)
    return stock if stock == known else _save(world, stock)


def reserve_all(world: World, wanted: Mapping[str, int]) -> list[Allocation] | None:
    """Reserve so many of each product, or nothing at all and answer None. The stock must be among the refs.

    Where there is not enough, what others hold and let expire unpaid is given up first, and it is tried once more.
    """
    allocations: list[Allocation] = []
    reserved: list[Stock] = []
    for sku, quantity in sorted(wanted.items()):
        found = _reserve(world.get(Stock, sku), quantity, world.now)
        if found is None:
            return None
        stock, taken = found
        if taken:
            reserved.append(stock)
            allocations.extend(taken)
    for stock in reserved:
        _save(world, stock)
    return allocations


def _reserve(stock: Stock | None, quantity: int, now: datetime) -> tuple[Stock, list[Allocation]] | None:
    found = domain.stock.reserve(stock, quantity)
    if found is None and stock is not None and stock.holds:
        return domain.stock.reserve(domain.stock.sweep(stock, now), quantity)
    return found


def may_hold_all(world: World, wanted: Mapping[str, int], buyers: Iterable[str], bounds: Bounds) -> bool:
    """Whether so many of each may be held unpaid; what is held and has expired is given up for it."""
    for sku, quantity in wanted.items():
        stock = world.get(Stock, sku)
        if stock is None:
            continue  # there is none to hold
        swept = domain.stock.sweep(stock, world.now)
        if not domain.stock.may_hold(swept if swept == stock else _save(world, swept), quantity, buyers, bounds):
            return False
    return True


def hold_all(world: World, holder: UUID, allocations: Iterable[Allocation], expires_at: datetime, buyers: Iterable[str]) -> None:
    """What was reserved just now is not being paid for yet."""
    for sku, held in _by_sku(allocations).items():
        _save(world, domain.stock.hold(_stock(world, sku), str(holder), held, expires_at, buyers))


def keep_all(world: World, holder: UUID, allocations: Iterable[Allocation]) -> list[Allocation] | None:
    """The holds are being paid for now; what has been swept is reserved again. None, and nothing is held, if it is gone."""
    swept: dict[str, int] = {}
    kept: list[Allocation] = []
    for sku, held in _by_sku(allocations).items():
        stock = domain.stock.keep(_stock(world, sku), str(holder))
        if stock is None:
            swept[sku] = sum(allocation.quantity for allocation in held)
        else:
            _save(world, stock)
            kept.extend(held)
    again = reserve_all(world, swept)
    if again is None:
        release_all(world, kept)
        return None
    return [*kept, *again]


def give_up_all(world: World, holder: UUID, allocations: Iterable[Allocation]) -> None:
    """What is held unpaid, and was not swept, is free again."""
    for sku in _by_sku(allocations):
        stock = _stock(world, sku)
        given_up = domain.stock.give_up(stock, str(holder))
        if given_up != stock:
            _save(world, given_up)


def _by_sku(allocations: Iterable[Allocation]) -> dict[str, list[Allocation]]:
    found: dict[str, list[Allocation]] = {}
    for allocation in allocations:
        found.setdefault(allocation.sku, []).append(allocation)
    return found


def release_all(world: World, allocations: Iterable[Allocation]) -> None:
    """What was held is free again."""
    for allocation in allocations:
        _save(world, domain.stock.release(_stock(world, allocation.sku), allocation))


def sell_all(world: World, allocations: Iterable[Allocation]) -> None:
    """What was held is sold."""
    for allocation in allocations:
        _save(world, domain.stock.sell(_stock(world, allocation.sku), allocation))


def restock_all(world: World, goods: Iterable[Returned]) -> None:
    """What was sold is free again: of an order that is off, or for goods that came back (`stock.returning`)."""
    for back in goods:
        _save(world, domain.stock.restock(_stock(world, back.sku), back.location, back.quantity, back.unsent))


def send_all(world: World, goods: Iterable[Allocation], at: datetime) -> None:
    """What was sold left the house at that moment."""
    for gone in goods:
        known = _stock(world, gone.sku)
        sent = domain.stock.send(known, gone.location, gone.quantity, at)
        if sent != known:
            _save(world, sent)


def _stock(world: World, sku: str) -> Stock:
    stock = world.get(Stock, sku)
    if stock is None:
        raise ConflictError("stock-missing", f"{sku} was reserved and is not there")
    return stock
