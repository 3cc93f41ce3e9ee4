"""Refunds of an order: asked of payments, and never more than was taken. Payments alone says what became of one.

A refund that fails, also one that had succeeded, frees its amount and its lines: they may be refunded again. Goods that were
put back on the shelf for it stay there. What payments says is written down whatever it comes to: money that went back went back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from libs.common.contracts.checkout import OrderQuantity, OrderRefunded, OrderRefundFailed, RefundRequested
from libs.common.contracts.payments import RefundFailed, RefundPending, RefundSucceeded
from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, RejectedError
from libs.common.money import step_minor
from services.checkout.domain.order import Order, shelve, with_money
from services.checkout.domain.stock import Returned
from services.checkout.domain.worth import worths


class RefundState(StrEnum):
    """Where a refund stands."""

    REQUESTED = "requested"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


R = RefundState
REFUND_TRANSITIONS: dict[RefundState, frozenset[RefundState]] = {
    R.REQUESTED: frozenset({R.PENDING, R.SUCCEEDED, R.FAILED}),
    R.PENDING: frozenset({R.SUCCEEDED, R.FAILED}),
    R.SUCCEEDED: frozenset({R.FAILED}),
    R.FAILED: frozenset(),
}

Told = RefundPending | RefundSucceeded | RefundFailed
"""What payments says of a refund."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundLine:
    """So many of one line of an order, and what they cost: their part of the line, whatever is given back for them."""

    line_id: str
    quantity: int
    worth_minor: int | None = None
    """None: from before that was written down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refund(Aggregate):
    """So much of an order's money that goes back to the buyer."""

    id: UUID
    order_id: UUID
    payment_id: UUID
    state: RefundState
    code: str | None = None
    """Why it failed."""
    amount_minor: int
    currency: str
    lines: tuple[RefundLine, ...] = ()
    restock: bool = False
    is_restocked: bool = False
    reason: str
    requested_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundWish:
    """What is to be given back: an amount, lines, both, or with neither all that is left."""

    amount_minor: int | None
    quantities: Mapping[str, int]
    restock: bool
    reason: str


def refundable_minor(order: Order) -> int:
    """What was taken and has not gone back, nor is on its way."""
    return max(order.captured_minor - order.refunding_minor - order.refunded_minor, 0)


def beyond_minor(order: Order) -> int:
    """How much more has gone back than was taken; than it cost, as long as nobody has told of its capture.

    Refunds are told of one by one, in any order: before one that failed is heard of, its successor seems too much.
    """
    return max(order.refunded_minor - (order.captured_minor or order.total_minor), 0)


def request(order: Order, refund_id: UUID, wish: RefundWish, now: datetime) -> tuple[Order, Refund, RefundRequested]:
    """Set the amount and the lines aside, and ask payments.

    Raises RejectedError for no amount that the provider moves, and ConflictError for more than there is left.
    """
    _demand_payable(order, wish)
    lines = _lines(order, _quantities(order, wish))
    amount = _amount(order, wish, lines)
    left = refundable_minor(order)
    if not order.captured_minor:
        detail = "no money of this order was taken yet: cancel it instead"
        raise ConflictError("order-not-captured", detail, order_id=str(order.id), payment_state=str(order.payment_state))
    if not 0 < amount <= left:
        detail = f"{amount} minor units of {left} that are left cannot be refunded"
        raise ConflictError("refund-exceeds-capture", detail, order_id=str(order.id), refundable_minor=left)
    refund = Refund(
        tenant_id=order.tenant_id,
        id=refund_id,
        order_id=order.id,
        payment_id=order.payment_id,
        state=R.REQUESTED,
        amount_minor=amount,
        currency=order.currency,
        lines=lines,
        restock=wish.restock,
        reason=wish.reason,
        requested_at=now,
    )
    return _set_aside(order, refund, 1), refund, _asked(order, refund)


def _asked(order: Order, refund: Refund) -> RefundRequested:
    return RefundRequested(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        checkout_id=order.checkout_id,
        order_id=order.id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
    )


def _demand_payable(order: Order, wish: RefundWish) -> None:
    """Refuse at once what would only fail at the provider."""
    step = step_minor(order.currency)
    if wish.amount_minor is not None and wish.amount_minor % step:
        detail = f"{wish.amount_minor} of {order.currency} cannot be paid: give a multiple of {step}"
        raise RejectedError("amount-not-payable", detail, step_minor=step)


def _quantities(order: Order, wish: RefundWish) -> dict[str, int]:
    """Of which lines, and how many: with neither lines nor amount, all that have not been refunded."""
    if wish.restock and wish.amount_minor is not None and not wish.quantities:
        raise RejectedError("restock-needs-lines", "to put goods back with an amount, say which lines and how many")
    left = {line.line_id: line.quantity - order.progress_of(line.line_id).refunded for line in order.lines}
    if not wish.quantities and wish.amount_minor is None:
        return {line_id: count for line_id, count in left.items() if count}
    for line_id in wish.quantities:
        if line_id not in left:
            raise RejectedError("unknown-line", f"the order has no line {line_id!r}", line_id=line_id)
    for line_id, quantity in wish.quantities.items():
        if quantity > left[line_id]:
            detail = f"of line {line_id} only {left[line_id]} have not been refunded"
            raise ConflictError("line-refunded", detail, line_id=line_id, refundable_quantity=left[line_id])
    return dict(wish.quantities)


def _amount(order: Order, wish: RefundWish, lines: Sequence[RefundLine]) -> int:
    """What was asked for; else what the lines cost; else all that is left. Line by line it comes to no more than the line."""
    if wish.amount_minor is not None:
        return wish.amount_minor
    if not wish.quantities:
        return refundable_minor(order)
    return sum(line.worth_minor or 0 for line in lines)


def _lines(order: Order, quantities: Mapping[str, int]) -> tuple[RefundLine, ...]:
    known = worths(order) if quantities else {}
    return tuple(
        RefundLine(line_id=line_id, quantity=count, worth_minor=known[line_id].of(count)) for line_id, count in quantities.items()
    )


def _set_aside(order: Order, refund: Refund, sign: int) -> Order:
    """Take a refund's lines and amount into account as under way, or no longer."""
    progress, known_worths = dict(order.progress), worths(order) if refund.lines else {}
    for line in refund.lines:
        known, worth, gone_minor = order.progress_of(line.line_id), known_worths.get(line.line_id), None
        if worth is not None and line.worth_minor is not None:
            gone_minor = worth.gone_minor + sign * line.worth_minor
        progress[line.line_id] = replace(known, refunded=known.refunded + sign * line.quantity, refunded_minor=gone_minor)
    return replace(order, progress=progress, refunding_minor=order.refunding_minor + sign * refund.amount_minor)


# --- What payments says -------------------------------------------------------------------------------------------


def heard_of(order: Order, told: Told, now: datetime) -> tuple[Order, Refund]:
    """A refund that payments made without being asked by this service: staff did there, or it owed money back."""
    refund = Refund(
        tenant_id=order.tenant_id,
        id=told.refund_id,
        order_id=order.id,
        payment_id=told.payment_id,
        state=R.REQUESTED,
        amount_minor=told.amount_minor,
        currency=told.currency,
        reason="refunded by payments",
        requested_at=now,
    )
    return replace(order, refunding_minor=order.refunding_minor + refund.amount_minor), refund


def follow(order: Order, refund: Refund, told: Told) -> tuple[Order, Refund] | None:
    """Take payments' word. None: nothing new."""
    to = {RefundPending: R.PENDING, RefundSucceeded: R.SUCCEEDED, RefundFailed: R.FAILED}[type(told)]
    if to not in REFUND_TRANSITIONS[refund.state]:
        return None
    moved = replace(refund, state=to, code=told.code if isinstance(told, RefundFailed) else None)
    match to:
        case R.PENDING | R.REQUESTED:
            return order, moved
        case R.SUCCEEDED:
            return with_money(_given(order, refund, 1)), moved
        case R.FAILED:
            order = _given(order, refund, -1) if refund.state is R.SUCCEEDED else order
            order = _shelved(order, refund, -1) if refund.is_restocked else order
            return with_money(_set_aside(order, refund, -1)), moved


def _given(order: Order, refund: Refund, sign: int) -> Order:
    """Count a refund's amount as given and not under way, or the other way round again."""
    amount_minor = sign * refund.amount_minor
    return replace(
        order, refunding_minor=order.refunding_minor - amount_minor, refunded_minor=order.refunded_minor + amount_minor
    )


def said(order: Order, refund: Refund) -> OrderRefunded:
    """The buyer has it back."""
    return OrderRefunded(**_told_of(order, refund), restock=refund.is_restocked)


def took_back(order: Order, refund: Refund) -> OrderRefundFailed:
    """It was said that the buyer has it back, and they have not."""
    return OrderRefundFailed(**_told_of(order, refund), code=refund.code or "")


def _told_of(order: Order, refund: Refund) -> dict[str, Any]:
    """What all who hear of a refund are told of it."""
    return {
        "order_id": order.id,
        "refund_id": refund.id,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "refunded_minor": order.refunded_minor,
        "lines": tuple(OrderQuantity(line_id=line.line_id, quantity=line.quantity) for line in refund.lines),
    }


def put_back(order: Order, refund: Refund) -> tuple[Order, Refund, list[Returned]]:
    """The goods go back on the shelf, if that was asked for: once, for a refund succeeds once."""
    if not refund.restock:
        return order, refund, []
    order, goods = shelve(_shelved(order, refund, 1))
    return order, replace(refund, is_restocked=True), goods


def _shelved(order: Order, refund: Refund, sign: int) -> Order:
    """Count a refund's goods among those that refunds say belong on the shelf, or no longer."""
    progress = dict(order.progress)
    for line in refund.lines:
        known = order.progress_of(line.line_id)
        progress[line.line_id] = replace(known, shelved_by_refunds=known.shelved_by_refunds + sign * line.quantity)
    return replace(order, progress=progress)
