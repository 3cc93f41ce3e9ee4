"""Stripe's endpoints: read the parameters, ask the machine, say what to answer. No HTTP and no clock in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from deploy.local.fake_stripe import intents
from deploy.local.fake_stripe.books import Account
from deploy.local.fake_stripe.cards import CARDS, Card
from deploy.local.fake_stripe.currencies import CURRENCIES
from deploy.local.fake_stripe.errors import invalid, missing_object
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.intents import Change, Intent, Status
from deploy.local.fake_stripe.listing import Listing, read_window
from deploy.local.fake_stripe.objects import charge_object, declined_body, intent_view, list_object

MAX_AMOUNT = 99_999_999
_METHOD_CHOICES = ("allowed_payment_method_types", "automatic_payment_methods", "payment_method_types")
_WITHOUT_METHOD_TYPES = "2026-09-30"
"""The first API version that refuses `payment_method_types` (docs.stripe.com/changelog, endive)."""

_CREATE = frozenset(
    {
        "allowed_payment_method_types",
        "amount",
        "automatic_payment_methods",
        "capture_method",
        "confirm",
        "confirmation_method",
        "currency",
        "customer",
        "description",
        "expand",
        "metadata",
        "off_session",
        "payment_method",
        "payment_method_types",
        "receipt_email",
        "return_url",
        "statement_descriptor",
        "statement_descriptor_suffix",
    }
)
_CONFIRM = frozenset({"expand", "off_session", "payment_method", "receipt_email", "return_url"})
_CAPTURE = frozenset({"amount_to_capture", "expand", "metadata"})
_CANCEL = frozenset({"cancellation_reason", "expand"})
_PAGE = frozenset({"created", "customer", "ending_before", "expand", "limit", "starting_after"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request past the door: whose it is, the id in its path, its parameters, when, and Stripe's API version."""

    account: Account
    object_id: str
    form: Form
    now: int
    version: str


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a call and the effect it has once recorded."""

    body: dict[str, Any]
    status: int = 200
    change: Change | None = None


Endpoint = Callable[[Call], Done]


def new_id(prefix: str) -> str:
    """Make an id in Stripe's form: `pi_` and 24 characters."""
    return f"{prefix}_{token_hex(12)}"


def create_intent(call: Call) -> Done:
    """POST /v1/payment_intents, with `confirm=true` confirmed at once."""
    form = call.form
    form.only(_CREATE)
    _refuse_retired(form, call.version)
    expand = _expansions(form)
    intent = _new_intent(form, call.now)
    confirm = form.flag("confirm")
    if not confirm and (form.text("return_url") or form.text("off_session")):
        raise invalid("This parameter needs `confirm` to be `true`.", param="confirm")
    card = _card(form)
    if card is not None:
        intent = replace(intent, payment_method=card.payment_method, status=Status.REQUIRES_CONFIRMATION)
    if not confirm:
        return _answer(call, Change(intent), expand)
    return _answer(call, _confirmed(call, intent, card), expand)


def confirm_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}/confirm."""
    form = call.form
    form.only(_CONFIRM)
    expand = _expansions(form)
    receipt_email = form.text("receipt_email")
    intent = call.account.intent(call.object_id)
    card = _card(form) or (CARDS[intent.payment_method] if intent.payment_method else None)
    if receipt_email:
        intent = replace(intent, receipt_email=receipt_email)
    return _answer(call, _confirmed(call, intent, card), expand)


def capture_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}/capture."""
    form = call.form
    form.only(_CAPTURE)
    expand = _expansions(form)
    amount = form.integer("amount_to_capture", low=1, high=MAX_AMOUNT)
    metadata = form.metadata()
    intent = call.account.intent(call.object_id)
    charge = call.account.charge_of(intent)
    if charge is None:
        raise intents.WrongStateError(intent, "This PaymentIntent could not be captured because it has no charge.")
    return _answer(call, intents.capture(intent, charge, amount, metadata), expand)


def cancel_intent(call: Call) -> Done:
    """POST /v1/payment_intents/{id}/cancel."""
    form = call.form
    form.only(_CANCEL)
    expand = _expansions(form)
    reason = form.one_of("cancellation_reason", ("duplicate", "fraudulent", "requested_by_customer", "abandoned"))
    intent = call.account.intent(call.object_id)
    charge = call.account.charge_of(intent)
    return _answer(call, intents.cancel(intent, charge, reason=reason, now=call.now), expand)


def retrieve_intent(call: Call) -> Done:
    """GET /v1/payment_intents/{id}."""
    call.form.only({"client_secret", "expand"})
    view = intent_view(_expansions(call.form), call.account.charge_of)
    return Done(view(call.account.intent(call.object_id)))


def list_intents(call: Call) -> Done:
    """GET /v1/payment_intents: newest first, by cursor, time and customer."""
    account, form = call.account, call.form
    form.only(_PAGE)
    customer = form.text("customer")
    listing = account.intent_order if customer is None else account.intents_of_customer.get(customer, Listing())
    page = listing.page(read_window(form, listing, "payment_intent"))
    view = intent_view(_expansions(form, within="data."), account.charge_of)
    rows = [view(account.intents[intent_id]) for intent_id in page.ids]
    return Done(list_object("/v1/payment_intents", rows, has_more=page.has_more))


def retrieve_charge(call: Call) -> Done:
    """GET /v1/charges/{id}."""
    call.form.only({"expand"})
    charge = call.account.charge(call.object_id)
    expanded = "payment_intent" in _expansions(call.form, known=("payment_intent",))
    return Done(charge_object(charge, call.account.intents[charge.payment_intent] if expanded else None))


def list_charges(call: Call) -> Done:
    """GET /v1/charges: newest first, of the account or of one intent."""
    account, form = call.account, call.form
    form.only(_PAGE - {"customer", "expand"} | {"payment_intent"})
    intent_id = form.text("payment_intent")
    listing = account.charge_order if intent_id is None else account.charges_of_intent.get(intent_id, Listing())
    page = listing.page(read_window(form, listing, "charge"))
    rows = [charge_object(account.charges[charge_id]) for charge_id in page.ids]
    return Done(list_object("/v1/charges", rows, has_more=page.has_more))


def _answer(call: Call, change: Change, expand: frozenset[str]) -> Done:
    """Render a change: 402 when the card said no just now, else the intent."""
    declined = change.charge.decline if change.charge else None
    if declined is not None:
        return Done(declined_body(declined, change.intent), 402, change)

    def charge_of(intent: Intent) -> intents.Charge | None:
        return change.charge or call.account.charge_of(intent)

    return Done(intent_view(expand, charge_of)(change.intent), 200, change)


def _confirmed(call: Call, intent: Intent, card: Card | None) -> Change:
    return intents.confirm(intent, card, now=call.now, new_id=new_id, return_url=call.form.text("return_url"))


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


def _expansions(form: Form, *, within: str = "", known: tuple[str, ...] = ("latest_charge",)) -> frozenset[str]:
    asked = form.strings("expand")
    for name in asked:
        if name.removeprefix(within) not in known or not name.startswith(within):
            raise invalid(f"This property cannot be expanded ({name}).", param="expand")
    return frozenset(name.removeprefix(within) for name in asked)
