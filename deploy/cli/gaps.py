"""What others know and the databases do not, after these were put back to a moment before it happened. Pure.

The others are the topics and the provider. Each gap has one name, by what somebody has to decide about it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from deploy.cli.invariants.facts import AfterOrder, Charge, Facts, Order
from libs.common.money import format_minor
from libs.common.standings import ERASED, GONE


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Gap:
    """One thing that is known elsewhere alone."""

    tenant: str
    kind: str
    subject: str
    detail: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.tenant}  {self.kind:<12} {self.subject}: {self.detail}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """An order as the databases have it now."""

    is_canceled: bool
    refund_ids: frozenset[UUID] | None = None
    """None: nobody asked, because the topics know of no refund of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What was last said of a tenant, by the highest version."""

    slug: str
    version: int
    status: str
    is_erased: bool
    """Whether it has ever been said that it is gone, or is to go."""


def gaps(facts: Facts, known: Mapping[UUID, Known], unknown_checkouts: Collection[UUID]) -> list[Gap]:
    """All that the databases lack of one tenant. The checkouts are those of `unexplained` that are not known here."""
    found = [*_lost_orders(facts, known), *_numbers(facts, known), *_changes(facts, known)]
    return sorted([*found, *_lost_money(facts, unknown_checkouts)])


def unexplained(facts: Facts) -> dict[UUID, Charge]:
    """By checkout: the provider has the buyer's money, and no order was ever confirmed for it."""
    ordered = {order.checkout_id for order in facts.published.orders.values()}
    return {
        charge.checkout_id: charge
        for charge in facts.charges or ()
        if charge.holds_money and charge.checkout_id is not None and charge.checkout_id not in ordered
    }


def refunded(facts: Facts) -> dict[UUID, set[UUID]]:
    """By order: what was given back of it, as the topics tell."""
    orders = {order.payment_id: order_id for order_id, order in facts.published.orders.items()}
    found: dict[UUID, set[UUID]] = defaultdict(set)
    for refund_id, refund in facts.published.refunds.items():
        if refund.is_given and refund.payment_id in orders:
            found[orders[refund.payment_id]].add(refund_id)
    return found


def tenant_gaps(told: Mapping[UUID, Told], here: Mapping[UUID, str]) -> list[Gap]:
    """Tenants that identity has forgotten, and those that are to be erased once more and are not yet."""
    found = []
    for tenant_id, tenant in told.items():
        status = here.get(tenant_id)
        name = tenant.slug or str(tenant_id)
        if status is None and not tenant.is_erased:
            detail = f"it was onboarded, and {tenant.status}, and identity knows nothing of it"
            found.append(Gap(tenant=name, kind="tenant-lost", subject=str(tenant_id), detail=detail))
        elif status is not None and status != ERASED and tenant.is_erased:
            detail = f"it was erased, or about to be, and identity has it {status}" + ("" if status in GONE else " still")
            found.append(Gap(tenant=name, kind="tenant-back", subject=str(tenant_id), detail=detail))
    return sorted(found)


def _lost_orders(facts: Facts, known: Mapping[UUID, Known]) -> Iterator[Gap]:
    charges: dict[UUID | None, list[Charge]] = defaultdict(list)
    for charge in facts.charges or ():
        charges[charge.payment_id].append(charge)
    for order_id, order in facts.published.orders.items():
        if order_id not in known:
            after = facts.published.after.get(order_id, AfterOrder())
            detail = f"{_order(order)}; {_paid(charges[order.payment_id], order)}{_since(after)}"
            yield _gap(facts, "order-lost", order_id, detail)


def _numbers(facts: Facts, known: Mapping[UUID, Known]) -> Iterator[Gap]:
    holders: dict[int, list[UUID]] = defaultdict(list)
    for order_id, order in facts.published.orders.items():
        holders[order.number].append(order_id)
    for number, orders in holders.items():
        if len(orders) > 1:
            each = ", ".join(f"{order_id} ({'here' if order_id in known else 'lost'})" for order_id in sorted(orders))
            yield _gap(facts, "number-twice", number, f"it was given to {each}")


def _changes(facts: Facts, known: Mapping[UUID, Known]) -> Iterator[Gap]:
    """What became of orders that are here."""
    given = refunded(facts)
    for order_id, here in known.items():
        order, after = facts.published.orders.get(order_id), facts.published.after.get(order_id)
        if order is None:
            continue  # older than what the topics keep
        if after and after.canceled_at and not here.is_canceled:
            yield _gap(facts, "cancel-lost", order_id, f"{_order(order)} was canceled at {after.canceled_at:%F %T}")
        for refund_id in given[order_id] - here.refund_ids if here.refund_ids is not None else ():
            amount = format_minor(facts.published.refunds[refund_id].amount_minor, order.currency)
            yield _gap(facts, "refund-lost", order_id, f"of {_order(order)} the buyer has {amount} back: refund {refund_id}")


def _lost_money(facts: Facts, unknown_checkouts: Collection[UUID]) -> Iterator[Gap]:
    for checkout_id, charge in unexplained(facts).items():
        if checkout_id in unknown_checkouts:
            amount = format_minor(charge.captured_minor - charge.refunded_minor, charge.currency)
            what = f"{amount} was taken" if charge.captured_minor else "the buyer's money is held"
            yield _gap(facts, "money-lost", charge.id, f"{what}, for checkout {checkout_id}, which is not known")


def _order(order: Order) -> str:
    return f"number {order.number} of {order.placed_at:%F %T} UTC, {format_minor(order.total_minor, order.currency)}"


def _paid(charges: Collection[Charge], order: Order) -> str:
    if not charges:
        return "the provider was not asked, or has no payment of it"
    captured, back = sum(each.captured_minor for each in charges), sum(each.refunded_minor for each in charges)
    ids = ", ".join(each.id for each in charges)
    returned = f", {format_minor(back, order.currency)} given back" if back else ""
    return f"{format_minor(captured, order.currency)} captured ({ids}){returned}"


def _since(after: AfterOrder) -> str:
    happened = [f"canceled at {after.canceled_at:%F %T}"] if after.canceled_at else []
    happened += [f"shipped at {after.first_shipped_at:%F %T}"] if after.first_shipped_at else []
    return "".join(f"; {each}" for each in happened)


def _gap(facts: Facts, kind: str, subject: object, detail: str) -> Gap:
    return Gap(tenant=facts.tenant, kind=kind, subject=str(subject), detail=detail)
