"""PaymentIntents and charges."""

from __future__ import annotations

from dataclasses import replace
from secrets import token_hex
from typing import Any

from deploy.local.fake_stripe import intents
from deploy.local.fake_stripe.cards import CARDS, Card
from deploy.local.fake_stripe.currencies import CURRENCIES
from deploy.local.fake_stripe.endpoints.call import PAGE, Call, Done, Path, View, expansions, new_id, page_of
from deploy.local.fake_stripe.errors import StripeError, invalid, missing_object
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.objects.payments import CLIENT_MEMBERS, declined_body
from deploy.local.fake_stripe.records import Change, Intent, Status

MAX_AMOUNT = 99_999_999
_METHOD_CHOICES = ("allowed_payment_method_types", "automatic_payment_methods", "payment_method_types")
_WITHOUT_METHOD_TYPES = "2026-09-30"
"""The first API version that refuses `payment_method_types` (docs.stripe.com/changelog, endive)."""

_CREATE = frozenset(
    {
        *("allowed_payment_method_types", "amount", "automatic_payment_methods", "capture_method", "confirm"),
        *("confirmation_method", "currency", "customer", "description", "error_on_requires_action", "expand", "metadata"),
        *("off_session", "payment_method", "payment_method_options", "payment_method_types", "receipt_email"),
        *("return_url", "statement_descriptor", "statement_descriptor_suffix"),
    }
)
_CONFIRM = frozenset(
    {
        *("client_secret", "error_on_requires_action", "expand", "key", "off_session", "payment_method"),
        *("payment_method_options", "receipt_email", "return_url", "use_stripe_sdk"),
    }
)
_CAPTURE = frozenset({"amount_to_capture", "expand", "final_capture", "metadata"})
_TOLD_OF_INTENTS = ("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix")
_UPDATE = frozenset({"amount", "expand", "metadata", *_TOLD_OF_INTENTS})
_CANCEL = frozenset({"cancellation_reason", "expand"})


def create_intent(call: Call) -> Done:
    """POST /v1/payment_intents, with `confirm=true` confirmed at once."""
    form = call.form
    form.only(_CREATE)
    _refuse_retired(form, call.version)
    expand = expansions(form, "payment_intent")
    intent = _with_options(_new_intent(form, call.now), form)
    confirm = form.flag("confirm")
    if not confirm and any(form.text(name) for name in ("return_url", "off_session", "error_on_requires_action")):
        raise invalid("This parameter needs `confirm` to be `true`.", param="confirm")
    card = _card(form)
    if card is not None:
        intent = replace(intent, payment_method=card.payment_method, status=Status.REQUIRES_CONFIRMATION)
    created = Change(intent, events=("payment_intent.created",))
    if not confirm:
        return _answer(call, created, expand)
    change = _confirmed(call, intent, card)
    return _answer(call, replace(change, events=(*created.events, *change.events)), expand)


def confirm_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}/confirm, by the server or, with the client's secret, as Stripe.js does."""
    form = call.form
    form.only(_CONFIRM)
    expand = expansions(form, "payment_intent")
    receipt_email = form.text("receipt_email")
    intent = _with_options(_intent(call), form)
    card = _card(form) or (CARDS[intent.payment_method] if intent.payment_method else None)
    if receipt_email:
        intent = replace(intent, receipt_email=receipt_email)
    return _answer(call, _confirmed(call, intent, card), expand)


def capture_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}/capture."""
    form = call.form
    form.only(_CAPTURE)
    expand = expansions(form, "payment_intent")
    final = form.text("final_capture") is None or form.flag("final_capture")
    amount = form.integer("amount_to_capture", low=0, high=MAX_AMOUNT)
    metadata = form.metadata()
    intent = call.account.intents.get(call.object_id, param="intent")
    if amount == 0 and not intent.amount_received:  # nothing is taken only to release what captures have left
        raise invalid(
            "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount_to_capture"
        )
    charge = call.account.charge_of(intent)
    if charge is None:
        raise intents.WrongStateError(intent, "This PaymentIntent could not be captured because it has no charge.")
    change = intents.capture(intent, charge, amount, metadata, final=final, now=call.now, new_id=new_id)
    return _answer(call, change, expand)


def cancel_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}/cancel."""
    form = call.form
    form.only(_CANCEL)
    expand = expansions(form, "payment_intent")
    reason = form.one_of("cancellation_reason", ("duplicate", "fraudulent", "requested_by_customer", "abandoned"))
    intent = call.account.intents.get(call.object_id, param="intent")
    return _answer(call, intents.cancel(intent, reason=reason, now=call.now), expand)


def update_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}: what is said of it, and the amount while none is held."""
    form = call.form
    form.only(_UPDATE)
    expand = expansions(form, "payment_intent")
    amount = _amount(form) if "amount" in form else None
    intent = call.account.intents.get(call.object_id, param="intent")
    if amount is not None:
        intents.require_open(intent)
    told: dict[str, Any] = {name: form.text(name) for name in _TOLD_OF_INTENTS if name in form}
    metadata = form.metadata_over(intent.metadata)
    updated = replace(intent, amount=intent.amount if amount is None else amount, metadata=metadata, **told)
    return _answer(call, Change(updated), expand)


def retrieve_intent(call: Call) -> Done:
    """GET /v1/payment_intents/{id}."""
    call.form.only({"client_secret", "expand", "key"})
    expand = expansions(call.form, "payment_intent")
    return Done(_seen(call, View(call).render(_intent(call), expand)))


def list_intents(call: Call) -> Done:
    """GET /v1/payment_intents: newest first, by cursor, time and customer."""
    call.form.only(PAGE | {"customer"})
    shelf = call.account.intents
    listing = shelf.listing(customer=call.form.text("customer"))
    return page_of(call, shelf, listing, "payment_intent", url="/v1/payment_intents")


def retrieve_charge(call: Call) -> Done:
    """GET /v1/charges/{id}."""
    call.form.only({"expand"})
    expand = expansions(call.form, "charge")
    return Done(View(call).render(call.account.charges.get(call.object_id), expand))


def update_charge(call: Call) -> Done:
    """POST /v1/charges/{id}: what is said of it."""
    form = call.form
    form.only({"description", "expand", "metadata", "receipt_email"})
    expand = expansions(form, "charge")
    charge = call.account.charges.get(call.object_id)
    told: dict[str, Any] = {name: form.text(name) for name in ("description", "receipt_email") if name in form}
    change = Change(charge=replace(charge, metadata=form.metadata_over(charge.metadata), **told), events=("charge.updated",))
    assert change.charge
    return Done(View(call, change).render(change.charge, expand), 200, change)


def list_charges(call: Call) -> Done:
    """GET /v1/charges: newest first, of the account or of one intent."""
    call.form.only(PAGE | {"payment_intent"})
    shelf = call.account.charges
    listing = shelf.listing(payment_intent=call.form.text("payment_intent"))
    return page_of(call, shelf, listing, "charge", url="/v1/charges")


def _intent(call: Call) -> Intent:
    """Return the intent of the path; a publishable key needs its secret as well."""
    intent = call.account.intents.find(call.object_id)
    secret = call.form.text("client_secret")
    if intent is not None and (secret == intent.client_secret or (secret is None and not call.public)):
        return intent
    if intent is None and not call.public:
        raise missing_object("payment_intent", call.object_id, param="intent")
    message = (
        "The client_secret provided does not match any associated PaymentIntent on this account. Ensure the "
        "publishable key used belongs to the same account that created the PaymentIntent."
    )
    raise StripeError(404, "invalid_request_error", message, executed=True, code="resource_missing", param="client_secret")


def _answer(call: Call, change: Change, expand: list[Path]) -> Done:
    """Render a change: 402 when the card said no just now, else the intent."""
    assert change.intent
    if change.charge is not None and change.charge.decline is not None:
        body = declined_body(change.charge.decline, change.intent)
        body["error"]["payment_intent"] = _seen(call, body["error"]["payment_intent"])
        return Done(body, 402, change)
    return Done(_seen(call, View(call, change).render(change.intent, expand)), 200, change)


def _seen(call: Call, body: dict[str, object]) -> dict[str, object]:
    """Leave out of an intent what is the server's alone."""
    return {name: value for name, value in body.items() if name in CLIENT_MEMBERS} if call.public else body


def _confirmed(call: Call, intent: Intent, card: Card | None) -> Change:
    form = call.form

    def page_of_challenge(intent: Intent) -> str:
        return f"{call.base}/redirect/authenticate/{intent.id}?client_secret={intent.client_secret}"

    occasion = intents.Occasion(
        now=call.now,
        new_id=new_id,
        return_url=form.text("return_url"),
        off_session=form.text("off_session") not in {None, "false"},
        refuse_challenge=form.flag("error_on_requires_action"),
        page_of=page_of_challenge,
    )
    return intents.confirm(intent, card, occasion)


def _new_intent(form: Form, now: int) -> Intent:
    intent_id = new_id("pi")
    types = _method_types(form)
    automatic = form.nested("automatic_payment_methods")
    return Intent(
        id=intent_id,
        client_secret=f"{intent_id}_secret_{token_hex(12)}",
        amount=_amount(form),
        currency=_currency(form),
        created=now,
        status=Status.REQUIRES_PAYMENT_METHOD,
        capture_method=form.one_of("capture_method", ("automatic", "automatic_async", "manual")) or "automatic_async",
        confirmation_method=form.one_of("confirmation_method", ("automatic", "manual")) or "automatic",
        metadata=form.metadata(),
        payment_method_types=types or ["card"],
        allowed_payment_method_types=form.strings("allowed_payment_method_types") or None,
        automatic=not types,  # Stripe's default since API version 2023-08-16
        allow_redirects=automatic.one_of("allow_redirects", ("always", "never")),
        customer=form.text("customer"),
        description=form.text("description"),
        receipt_email=form.text("receipt_email"),
        statement_descriptor=form.text("statement_descriptor"),
        statement_descriptor_suffix=form.text("statement_descriptor_suffix"),
    )


def _with_options(intent: Intent, form: Form) -> Intent:
    """Read `payment_method_options[card]`: whether to capture several times, and whether to ask for 3-D Secure."""
    if "payment_method_options" not in form:
        return intent
    options = form.nested("payment_method_options")
    options.only({"card"})
    card = options.nested("card")
    card.only({"request_multicapture", "request_three_d_secure"})
    multicapture = card.one_of("request_multicapture", ("if_available", "never"))
    challenge = card.one_of("request_three_d_secure", ("any", "automatic", "challenge"))
    return replace(
        intent,
        multicapture=intent.multicapture if multicapture is None else multicapture == "if_available",
        request_challenge=challenge or intent.request_challenge,
    )


def _method_types(form: Form) -> list[str]:
    """Read which methods the intent may use; empty leaves it to the dashboard, which here means cards."""
    given = [name for name in _METHOD_CHOICES if name in form]
    if len(given) > 1:
        message = f"You may only specify one of these parameters: {', '.join(given)}."
        raise invalid(message, param=given[0])
    types = form.strings("payment_method_types") or form.strings("allowed_payment_method_types")
    if types and "card" not in types:
        message = f"The payment method type provided: {types[0]} is invalid. This fake has cards alone."
        raise invalid(message, param=given[0])
    return ["card"] if types else []


def _refuse_retired(form: Form, version: str) -> None:
    if "payment_method_types" in form and version >= _WITHOUT_METHOD_TYPES:
        message = (
            "`payment_method_types` is no longer supported. Use dynamic payment methods or "
            "`allowed_payment_method_types` instead."
        )
        raise invalid(message, code="payment_method_types_no_longer_supported", param="payment_method_types")


def _amount(form: Form) -> int:
    form.required("amount")
    amount = form.integer("amount") or 0
    if amount <= 0:
        raise invalid("Amount must be greater than zero.", code="amount_too_small", param="amount")
    if amount > MAX_AMOUNT:
        raise invalid("Amount must be no more than 999,999.99.", code="amount_too_large", param="amount")
    return amount


def _currency(form: Form) -> str:
    currency = form.required("currency").lower()
    if currency not in CURRENCIES:
        known = ", ".join(sorted(CURRENCIES))
        message = f"Invalid currency: {currency}. Stripe currently supports these currencies: {known}"
        raise invalid(message, param="currency")
    return currency


def _card(form: Form) -> Card | None:
    name = form.text("payment_method")
    if name is None:
        return None
    card = CARDS.get(name)
    if card is None:
        raise missing_object("PaymentMethod", name, param="payment_method", status=400)
    return card
