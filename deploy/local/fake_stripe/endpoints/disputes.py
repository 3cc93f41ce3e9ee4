"""Disputes."""

from __future__ import annotations

from deploy.local.fake_stripe import disputes
from deploy.local.fake_stripe.endpoints.call import PAGE, Call, Done, View, expansions, new_id, page_of
from deploy.local.fake_stripe.errors import invalid
from deploy.local.fake_stripe.objects.money import EVIDENCE
from deploy.local.fake_stripe.records import Change


def retrieve_dispute(call: Call) -> Done:
    """GET /v1/disputes/{id}."""
    call.form.only({"expand"})
    return Done(View(call).render(call.account.disputes.get(call.object_id), expansions(call.form, "dispute")))


def list_disputes(call: Call) -> Done:
    """GET /v1/disputes: newest first, of the account, of an intent or of a charge."""
    form = call.form
    form.only(PAGE | {"charge", "payment_intent"})
    shelf = call.account.disputes
    listing = shelf.listing(charge=form.text("charge"), payment_intent=form.text("payment_intent"))
    return page_of(call, shelf, listing, "dispute", url="/v1/disputes")


def update_dispute(call: Call) -> Done:
    """POST /v1/disputes/{id}: evidence, submitted at once unless `submit=false`."""
    form = call.form
    form.only({"evidence", "expand", "submit"})
    submit = form.text("submit") is None or form.flag("submit")
    fields = form.nested("evidence")
    fields.only(EVIDENCE)
    evidence = {name: fields.text(name) or "" for name in fields.names()}
    if len(str(evidence)) > 150_000:
        raise invalid("Evidence may hold up to 150,000 characters in all.", param="evidence")
    dispute = call.account.disputes.get(call.object_id)
    return _answer(call, disputes.answered(dispute, evidence, submit=submit, now=call.now, new_id=new_id))


def close_dispute(call: Call) -> Done:
    """POST /v1/disputes/{id}/close: acknowledged as lost."""
    call.form.only({"expand"})
    dispute = call.account.disputes.get(call.object_id)
    return _answer(call, disputes.closed(dispute, now=call.now, new_id=new_id))


def _answer(call: Call, change: Change) -> Done:
    (dispute,) = change.disputes
    return Done(View(call, change).render(dispute, expansions(call.form, "dispute")), 200, change)
