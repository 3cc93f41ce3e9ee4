"""The refund machine: what may be given back, and how a test card's refund ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from deploy.local.fake_stripe import balance
from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.currencies import spelled
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.records import Change, Charge, Intent, Refund, RefundStatus

SETTLING_SECONDS = 3
"""After how long `pm_card_pendingRefund` succeeds and `pm_card_refundFail` fails; Stripe says only "some time later"."""

REASONS = ("duplicate", "fraudulent", "requested_by_customer")
FAILURES = (
    "charge_for_pending_refund_disputed",
    "declined",
    "expired_or_canceled_card",
    "insufficient_funds",
    "lost_or_stolen_card",
    "merchant_request",
    "unknown",
)
TRANSITIONS: Mapping[RefundStatus, frozenset[RefundStatus]] = MappingProxyType(
    {
        RefundStatus.PENDING: frozenset({RefundStatus.SUCCEEDED, RefundStatus.FAILED, RefundStatus.CANCELED}),
        RefundStatus.SUCCEEDED: frozenset({RefundStatus.FAILED}),  # a bank may send it back days later
        RefundStatus.FAILED: frozenset(),
        RefundStatus.CANCELED: frozenset(),
    }
)

NewId = Callable[[str], str]


def create(
    intent: Intent,
    charge: Charge,
    *,
    amount: int | None,
    reason: str | None,
    metadata: dict[str, str],
    withheld: bool,
    now: int,
    new_id: NewId,
) -> Change:
    """Give back what was captured, or a part of it; `withheld` when a dispute has taken the money already."""
    given = _refundable(intent, charge, amount, withheld=withheld)
    ending = CARDS[charge.payment_method].refund
    refund = Refund(
        id=new_id("re"),
        payment_intent=intent.id,
        charge=charge.id,
        amount=given,
        currency=charge.currency,
        created=now,
        metadata=metadata,
        status=RefundStatus.PENDING if ending == "pending" else RefundStatus.SUCCEEDED,
        reason=reason,
        settles_at=None if ending == "at-once" else now + SETTLING_SECONDS,
    )
    transaction = balance.refunded(refund, now=now, new_id=new_id)
    return Change(
        charge=replace(charge, amount_refunded=charge.amount_refunded + given),
        refund=replace(refund, balance_transaction=transaction.id),
        transactions=(transaction,),
        events=("refund.created", "charge.refunded"),
    )


def settle(refund: Refund, charge: Charge, *, now: int, new_id: NewId) -> Change:
    """Let a test card's refund become what it is there to become."""
    if CARDS[charge.payment_method].refund == "pending":
        return end(refund, charge, RefundStatus.SUCCEEDED, now=now, new_id=new_id)
    return end(refund, charge, RefundStatus.FAILED, now=now, new_id=new_id)


def end(refund: Refund, charge: Charge, to: RefundStatus, *, now: int, new_id: NewId, failure: str | None = None) -> Change:
    """Move the refund on; one that failed or was canceled returns the money, and may be asked for again."""
    if to not in TRANSITIONS[refund.status]:
        raise _refused(f"A refund with a status of {refund.status} cannot become {to}.")
    after = replace(refund, status=to, settles_at=None)
    if to is RefundStatus.SUCCEEDED:
        return Change(charge=charge, refund=after, events=("refund.updated", "charge.refund.updated"))
    returned = balance.refund_returned(refund, now=now, new_id=new_id)
    after = replace(after, failure_balance_transaction=returned.id)
    events: tuple[str, ...] = ("refund.updated", "charge.refund.updated")
    if to is RefundStatus.FAILED:
        after = replace(after, failure_reason=failure or "expired_or_canceled_card")
        events = ("refund.failed", *events)
    less = replace(charge, amount_refunded=charge.amount_refunded - refund.amount)
    return Change(charge=less, refund=after, transactions=(returned,), events=events)


def refuse_cancel(refund: Refund) -> StripeError:
    """Say what Stripe says of every card refund: only those in `requires_action` can be canceled."""
    message = f"Refund {refund.id} cannot be canceled because it has a status of {refund.status}, not requires_action."
    return _refused(message)


def _refundable(intent: Intent, charge: Charge, amount: int | None, *, withheld: bool) -> int:
    """Return the amount to give back, or refuse in Stripe's words."""
    if charge.decline is not None:
        raise _refused(f"This PaymentIntent ({intent.id}) does not have a successful charge to refund.")
    if not charge.amount_captured:
        message = (
            f"This uncaptured Charge was created by a PaymentIntent ({intent.id}). You must cancel the PaymentIntent to "
            "reverse the authorization instead of refunding the Charge directly."
        )
        raise _refused(message)
    if withheld:
        message = f"Charge {charge.id} has been charged back; cannot issue a refund."
        raise _refused(message, code="charge_disputed")
    left = charge.amount_captured - charge.amount_refunded
    if not left:
        raise _refused(f"Charge {charge.id} has already been refunded.", code="charge_already_refunded")
    given = left if amount is None else amount
    if given > left:
        wanted, rest = spelled(given, charge.currency), spelled(left, charge.currency)
        raise _refused(f"Refund amount ({wanted}) is greater than unrefunded amount on charge ({rest})", param="amount")
    return given


def _refused(message: str, **members: str) -> StripeError:
    return StripeError(400, "invalid_request_error", message, executed=True, **members)
