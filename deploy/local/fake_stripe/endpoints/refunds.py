"""Refunds."""

from __future__ import annotations

from dataclasses import replace

from deploy.local.fake_stripe import refunds
from deploy.local.fake_stripe.disputes import is_inquiry
from deploy.local.fake_stripe.endpoints.call import PAGE, Call, Done, View, expansions, new_id, page_of
from deploy.local.fake_stripe.endpoints.payment_intents import MAX_AMOUNT
from deploy.local.fake_stripe.errors import StripeError, invalid
from deploy.local.fake_stripe.records import Change, Charge, DisputeStatus, Intent

_CREATE = frozenset({"amount", "charge", "expand", "metadata", "payment_intent", "reason"})


def create_refund(call: Call) -> Done:
    """POST /v1/refunds, of an intent or of a charge, whole or in part, as often as something is left."""
    form = call.form
    form.only(_CREATE)
    expand = expansions(form, "refund")
    amount = form.integer("amount", low=1, high=MAX_AMOUNT)
    reason, metadata = form.one_of("reason", refunds.REASONS), form.metadata()
    intent, charge = _what(call)
    change = refunds.create(
        intent,
        charge,
        amount=amount,
        reason=reason,
        metadata=metadata,
        withheld=_withheld(call, charge),
        now=call.now,
        new_id=new_id,
    )
    assert change.refund
    return Done(View(call, change).render(change.refund, expand), 200, change)


def retrieve_refund(call: Call) -> Done:
    """GET /v1/refunds/{id}."""
    call.form.only({"expand"})
    return Done(View(call).render(call.account.refunds.get(call.object_id), expansions(call.form, "refund")))


def update_refund(call: Call) -> Done:
    """POST /v1/refunds/{id}: its metadata, which is all that can be changed."""
    form = call.form
    form.only({"expand", "metadata"})
    expand = expansions(form, "refund")
    refund = call.account.refunds.get(call.object_id)
    updated = replace(refund, metadata=form.metadata_over(refund.metadata))
    change = Change(refund=updated, events=("refund.updated", "charge.refund.updated"))
    return Done(View(call, change).render(updated, expand), 200, change)


def list_refunds(call: Call) -> Done:
    """GET /v1/refunds: newest first, of the account, of an intent or of a charge."""
    form = call.form
    form.only(PAGE | {"charge", "payment_intent"})
    shelf = call.account.refunds
    listing = shelf.listing(charge=form.text("charge"), payment_intent=form.text("payment_intent"))
    return page_of(call, shelf, listing, "refund", url="/v1/refunds")


def cancel_refund(call: Call) -> Done:
    """POST /v1/refunds/{id}/cancel, which a card's refund never allows."""
    call.form.only({"expand"})
    raise refunds.refuse_cancel(call.account.refunds.get(call.object_id))


def _withheld(call: Call, charge: Charge) -> bool:
    """Tell whether a dispute holds the charge's money, or has lost it."""
    disputes = call.account.disputes
    cases = (disputes.get(dispute_id) for dispute_id in disputes.listing(charge=charge.id)) if charge.disputed else ()
    return any(not is_inquiry(case) and case.status is not DisputeStatus.WON for case in cases)


def _what(call: Call) -> tuple[Intent, Charge]:
    """Find the charge to refund, by its own id or by its intent's."""
    account, form = call.account, call.form
    intent_id, charge_id = form.text("payment_intent"), form.text("charge")
    if intent_id is None and charge_id is None:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise invalid(message, code="parameter_missing", param="payment_intent")
    if charge_id is not None:
        charge = account.charges.get(charge_id, param="charge")
        if intent_id not in {None, charge.payment_intent}:
            raise invalid(f"Charge {charge_id} does not belong to {intent_id}.", param="charge")
        return account.intents.get(charge.payment_intent), charge
    intent = account.intents.get(intent_id or "", param="payment_intent")
    latest = account.charge_of(intent)
    if latest is None:
        message = f"This PaymentIntent ({intent.id}) does not have a successful charge to refund."
        raise StripeError(400, "invalid_request_error", message, executed=True)
    return intent, latest
