"""What is asked of a payment: by the checkout and its order, by a shipment, by hand. One decision a function, no I/O."""

import re
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from libs.common.contracts.checkout import PAYMENT_METHOD, PaymentRequested, PaymentVoidRequested
from libs.common.errors import ConflictError, RejectedError
from libs.common.money import CURRENCIES, step_minor
from libs.common.sensitive import is_sensitive, without_sensitive
from services.payments.domain.payment.payment import (
    NO_CURRENCY,
    Decision,
    OrderPayment,
    OrderStanding,
    Payment,
    S,
    decline,
    move,
    release,
)
from services.payments.domain.payment.planning import let_go, take, work
from services.payments.domain.payment.recording import money_held

AMOUNT_NOT_PAYABLE = "amount-not-payable"
CURRENCY_NOT_SUPPORTED = "currency-not-supported"
METHOD_MISSING = "payment-method-missing"
METHOD_REFUSED = "payment-method-refused"
"""It is no name of a method, but perhaps a card's number or a key."""
_METHOD = re.compile(PAYMENT_METHOD, re.ASCII)
TIMED_OUT = "timed-out"
"""Why a checkout wants nothing held any more that it would still take if it had been held in time."""
MAX_AMOUNT_MINOR = 99_999_999
"""What the provider takes at most in one payment, in any currency."""
MOST_MINOR = 2**63 - 1
"""The largest amount that can be written down."""

# --- What the checkout asks ---------------------------------------------------------------------------------------


def request(known: Payment | None, tenant_id: UUID, asked: PaymentRequested, now: datetime) -> Decision | None:
    """Begin a payment; one that is there stays as it is. None: nothing to do."""
    if known is not None and (known.is_requested or known.state is S.DECLINED):
        return None
    payment = replace(
        known or Payment(tenant_id=tenant_id, id=asked.payment_id, checkout_id=asked.checkout_id, created_at=now),
        order_id=asked.order_id,
        subject_id=asked.subject_id,
        amount_minor=asked.amount_minor,
        currency=asked.currency,
        method=asked.method,
        capture=asked.capture,
        confirmation="client" if asked.confirmation == "client" else "server",
        challenge=asked.challenge == "any",
        return_url=asked.return_url,
        quote_hash=asked.quote_hash,
    )
    refusal = _refusal(payment)
    if refusal is not None:
        payment = _as_kept(payment)
    if known is not None:
        return Decision(payment)
    if refusal is not None:
        return Decision(*decline(payment, refusal))
    return work(move(payment, S.AUTHORIZING), (), now)


def paid_at_shipment(tenant_id: UUID, asked: PaymentRequested) -> OrderPayment | None:
    """Which payment the order is paid with, if a shipment captures it. None: its confirmation does."""
    if asked.capture != "on-shipment":
        return None
    return OrderPayment(tenant_id=tenant_id, order_id=asked.order_id, payment_id=asked.payment_id)


def _refusal(payment: Payment) -> str | None:
    """Why the provider need not even be asked, if so."""
    if payment.currency not in CURRENCIES:
        return CURRENCY_NOT_SUPPORTED
    if not is_payable(payment.amount_minor, payment.currency) or payment.amount_minor > MAX_AMOUNT_MINOR:
        return AMOUNT_NOT_PAYABLE
    if payment.method and not _is_method(payment.method):
        return METHOD_REFUSED
    return METHOD_MISSING if payment.confirmation == "server" and not payment.method else None


def _is_method(text: str) -> bool:
    return _METHOD.fullmatch(text) is not None and not is_sensitive(text)


def _as_kept(refused: Payment) -> Payment:
    """What is kept of a payment that cannot be: what is no amount or no currency is kept as none, and a method by no other's."""
    refused = replace(refused, method=refused.method if _is_method(refused.method) else "")
    if len(refused.currency) != len(NO_CURRENCY) or refused.currency == NO_CURRENCY:
        return replace(refused, currency=NO_CURRENCY, amount_minor=0)
    return replace(refused, amount_minor=kept_minor(refused.amount_minor))


def kept_minor(amount_minor: int) -> int:
    """An amount of something that was refused, as far as there can be such a one."""
    return amount_minor if 0 < amount_minor <= MOST_MINOR else 0


def is_payable(amount_minor: int, currency: str) -> bool:
    """Whether the provider moves amounts like this one in that currency."""
    return amount_minor > 0 and amount_minor % step_minor(currency) == 0


def void(known: Payment | None, tenant_id: UUID, asked: PaymentVoidRequested, now: datetime) -> Decision | None:
    """Let go of what is held, or as soon as it is known to be; of nothing, at once. None: nothing to do."""
    if known is None:
        never = Payment(tenant_id=tenant_id, id=asked.payment_id, checkout_id=asked.checkout_id, created_at=now)
        return Decision(*release(replace(never, void_reason=without_sensitive(asked.reason))))
    if known.void_reason is not None:
        return None
    if asked.reason == TIMED_OUT and known.state is S.AUTHORIZED and known.order_standing is OrderStanding.AWAITED:
        # It was held in time, and the checkout will make an order of it. We have said so, and that word may be lost: again.
        return Decision(known, (money_held(known),))
    return _unwanted(replace(known, void_reason=without_sensitive(asked.reason)), now)


def cancel_order(payment: Payment, reason: str, now: datetime) -> Decision | None:
    """The order is off: hold nothing for it. What was taken already is for a refund to give back. None: nothing to do."""
    if payment.order_standing is OrderStanding.CANCELED:
        return None
    payment = replace(
        payment, order_standing=OrderStanding.CANCELED, void_reason=payment.void_reason or without_sensitive(reason)
    )
    return _unwanted(payment, now) or Decision(payment)


def _unwanted(payment: Payment, now: datetime) -> Decision | None:
    match payment.state:
        case S.AUTHORIZED | S.REQUIRES_ACTION:
            return let_go(payment, (), now)
        case S.CREATED | S.AUTHORIZING | S.UNKNOWN:
            return Decision(payment)
        case S.CAPTURING | S.CAPTURED | S.VOIDING:
            # Remembered as well: money that was taken although it was not wanted is owed back.
            return Decision(payment)
        case S.VOIDED | S.DECLINED | S.EXPIRED:
            return None


def confirm_order(payment: Payment, now: datetime) -> Decision | None:
    """The order is confirmed: take the money, or as soon as it is held, unless a shipment decides. None: nothing to do."""
    if payment.order_standing is not OrderStanding.AWAITED:
        return None
    payment = replace(payment, order_standing=OrderStanding.CONFIRMED)
    return _take_all(payment, now) if payment.capture == "on-confirmation" else Decision(payment)


def dispatch(payment: Payment, now: datetime) -> Decision | None:
    """Goods of the order have left the house: where that is what captures, take the money. None: nothing to do."""
    if payment.capture != "on-shipment" or payment.requested_capture or payment.void_reason is not None:
        return None
    return _take_all(payment, now)


def _take_all(payment: Payment, now: datetime) -> Decision:
    payment = replace(payment, requested_capture=True)
    if payment.state is S.AUTHORIZED:
        return take(payment, payment.held_minor, final=True, now=now)
    return Decision(payment)


# --- What somebody asks for by hand -------------------------------------------------------------------------------


def capture(payment: Payment, amount_minor: int | None, *, final: bool, now: datetime) -> Decision:
    """Take so much of what is held, or all of it; what a final capture leaves is let go.

    Raises RejectedError for no amount that can be paid, and ConflictError for more than is held.
    """
    if amount_minor is not None and not is_payable(amount_minor, payment.currency):
        raise RejectedError(AMOUNT_NOT_PAYABLE, f"{amount_minor} of {payment.currency} is no amount that can be paid")
    if payment.state is not S.AUTHORIZED:
        message = f"a payment that is {payment.state} holds nothing that can be captured now"
        raise ConflictError("payment-state", message, state=str(payment.state))
    amount_minor = payment.held_minor if amount_minor is None else amount_minor
    if amount_minor > payment.held_minor:
        message = f"{payment.held_minor} is held, and {amount_minor} was asked for"
        raise ConflictError("capture-exceeds-authorization", message, held_minor=payment.held_minor)
    return take(payment, amount_minor, final=final, now=now)


def void_by_hand(payment: Payment, reason: str, now: datetime) -> Decision | None:
    """Let go of what is held, or will turn out to be. None: it is already so. Raises ConflictError."""
    match payment.state:
        case S.VOIDING | S.VOIDED:
            return None
        case S.CREATED | S.AUTHORIZING | S.UNKNOWN if payment.order_standing is not OrderStanding.CONFIRMED:
            return None if payment.void_reason else Decision(replace(payment, void_reason=reason))
        case S.REQUIRES_ACTION | S.AUTHORIZED:
            return let_go(replace(payment, void_reason=payment.void_reason or reason), (), now)
        case S.CREATED | S.AUTHORIZING | S.UNKNOWN | S.CAPTURING | S.CAPTURED | S.DECLINED | S.EXPIRED:
            message = f"a payment that is {payment.state} cannot be voided"
            raise ConflictError("payment-state", message, state=str(payment.state))
