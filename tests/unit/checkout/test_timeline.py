"""An order's story: what led to what, also where clocks differ, calls are repeated, and nobody said why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts import Event
from libs.common.contracts.cart import CartOrdered, CartReopened
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutRequested,
    OrderFulfilled,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.fulfilment import FulfilmentLine, ShipmentDispatched
from libs.common.contracts.payments import PaymentAuthorized, PaymentVoided, ProviderCalled
from libs.common.decision import Message
from services.checkout.domain.timeline import EntryKind, TimelineEntry, Told, entry_of, tell
from services.checkout.handlers.timeline import TIMELINE

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TENANT, CHECKOUT, ORDER, PAYMENT = uuid4(), uuid4(), uuid4(), uuid4()
OPERATION = "a3b2c1d0-0000-5000-8000-000000000001"


def _entry(event: Event, cause: str = "", *, id_: str = "", at_ms: int = 0, source: str = "checkout", actor: str = "") -> Any:
    message = Message(
        data=event,
        tenant_id=TENANT,
        id=id_ or event.TYPE,
        time=NOON + timedelta(milliseconds=at_ms),
        source=source if source.startswith("/") else f"/cartwright/{source}",
        actor=actor,
        causation_id=cause,
        traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01",
    )
    return entry_of(message)


REQUESTED = CheckoutRequested(checkout_id=CHECKOUT, cart_id=uuid4(), subject_id=uuid4())
VOID = PaymentVoidRequested(checkout_id=CHECKOUT, payment_id=PAYMENT, reason="canceled")
VOIDED = PaymentVoided(payment_id=PAYMENT, checkout_id=CHECKOUT)
CANCELED = CheckoutCanceled(checkout_id=CHECKOUT, cart_id=uuid4(), reason="canceled")
REOPENED = CartReopened(cart_id=uuid4(), checkout_id=CHECKOUT)


def _call(
    kind: str, *, outcome: str = "succeeded", attempt: int = 1, duration_ms: int = 40, began_ms: int | None = None
) -> ProviderCalled:
    began = None if began_ms is None else NOON + timedelta(milliseconds=began_ms)
    named = {"payment_id": PAYMENT, "checkout_id": CHECKOUT}
    return ProviderCalled(**named, kind=kind, attempt=attempt, outcome=outcome, duration_ms=duration_ms, started_at=began)


def _by_name(story: Any) -> dict[str, Told]:
    return {told.entry.name: told for told in story}


def test_an_event_is_told_with_what_matters_of_it_and_nothing_of_its_buyer() -> None:
    entry = _entry(VOID, "cause", actor="someone")
    assert (entry.story_id, entry.service, entry.kind, entry.cause) == (CHECKOUT, "checkout", EntryKind.EVENT, "cause")
    assert entry.details == {"payment_id": str(PAYMENT), "reason": "canceled"}
    assert entry.trace_id == "ab" * 16
    assert _entry(replace(REQUESTED)).details == {}, "who buys is the actor, and what is in the cart is no business of this"


def test_a_call_to_the_provider_stands_where_it_began() -> None:
    entry = _entry(_call("capture"), at_ms=100, source="payments")
    assert (entry.at, entry.duration_ms) == (NOON + timedelta(milliseconds=60), 40)
    assert (entry.kind, entry.name, entry.details["outcome"]) == (EntryKind.PROVIDER_CALL, "capture", "succeeded")


def test_calls_that_were_recorded_together_are_told_in_the_order_in_which_they_were_made() -> None:
    """A quick create, and the slow confirm that was sent on its answer: one recording for both."""
    requested = PaymentRequested(
        payment_id=PAYMENT,
        checkout_id=CHECKOUT,
        order_id=ORDER,
        subject_id=uuid4(),
        amount_minor=5,
        currency="GBP",
        method="pm_card_visa",
        capture="on-confirmation",
        quote_hash="q",
    )
    authorized = PaymentAuthorized(payment_id=PAYMENT, checkout_id=CHECKOUT, amount_minor=5, currency="GBP")
    calls = [("create", 20, 10), ("retrieve", 31, 5), ("confirm", 37, 400)]
    story = tell(
        [
            _entry(requested, "req-1", at_ms=1),
            *(
                _entry(
                    _call(kind, began_ms=began, duration_ms=took), f"{OPERATION}:1", id_=f"{place}", at_ms=440, source="payments"
                )
                for place, (kind, began, took) in enumerate(reversed(calls))
            ),
            _entry(authorized, f"{OPERATION}:1", at_ms=440, source="payments"),
        ]
    )
    assert [told.entry.name for told in story[1:]] == [
        "payment.requested",
        "create",
        "retrieve",
        "confirm",
        "payment.authorized",
    ]
    told = _by_name(story)
    assert {name: each.cause.name for name, each in told.items() if each.cause} == {
        "payment.requested": "request",
        "create": "payment.requested",
        "retrieve": "create",
        "confirm": "create",
        "payment.authorized": "confirm",
    }
    assert (told["create"].after_ms, told["confirm"].after_ms, told["payment.authorized"].after_ms) == (19, 7, 3)


def test_an_event_that_names_no_checkout_is_told_of_its_order_and_a_foreign_one_by_who_published_it() -> None:
    ordered = _entry(CartOrdered(cart_id=uuid4(), order_id=ORDER))
    sent = ShipmentDispatched(order_id=ORDER, shipment_id="s", lines=(FulfilmentLine(line_id="1", quantity=1),))
    entries = [_entry(sent, id_="1", source=f"/{who}") for who in ("warehouse", "carrier")]
    assert {each.story_id for each in (ordered, *entries)} == {ORDER}
    assert len({each.id for each in entries}) == 2, "two publishers may use the same id"
    fulfilled = _entry(OrderFulfilled(order_id=ORDER, shipment_id="s", lines=()), "1", id_="ours")
    told = _by_name(tell([fulfilled, entries[0]]))["order.fulfilled"]
    assert told.cause is not None
    assert told.cause.name == "shipment.dispatched"


def test_every_event_of_the_purchase_path_is_written_down_but_those_of_tenants() -> None:
    types = {event.TYPE for event in TIMELINE.events()}
    assert {"cart.frozen", "checkout.requested", "order.confirmed", "provider.called", "return.received"} <= types
    assert "tenant.provisioned" not in types


def test_a_story_begins_with_the_request_the_webhook_or_the_timer_behind_its_events() -> None:
    by_request = _entry(REQUESTED, "req-1", actor="a shopper")
    by_timer = _entry(VOID, f"checkout:{CHECKOUT}:2026-01-02T12:00:00+00:00", at_ms=5, actor="/cartwright/checkout")
    by_webhook = _entry(VOIDED, "webhook:evt_1", at_ms=9, source="payments", actor="/cartwright/payments")
    by_itself = _entry(CANCELED, str(uuid4()), at_ms=11, actor="/cartwright/checkout")
    story = tell([by_webhook, by_timer, by_request, by_itself])
    begun = [(told.entry.kind, told.entry.name) for told in story if told.entry.kind is not EntryKind.EVENT]
    expected = [
        (EntryKind.REQUEST, "request"),
        (EntryKind.TIMER, "checkout"),
        (EntryKind.WEBHOOK, "webhook"),
        (EntryKind.TIMER, "look"),
    ]
    assert begun == expected
    told = _by_name(story)["checkout.requested"]
    assert told.cause is not None
    assert (told.cause.id, told.cause.is_inferred) == ("req-1", False)


def test_what_payments_says_follows_from_the_last_call_of_the_same_try_and_a_call_from_what_asks_for_one() -> None:
    authorized = PaymentAuthorized(payment_id=PAYMENT, checkout_id=CHECKOUT, amount_minor=5, currency="GBP")
    story = tell(
        [
            _entry(VOID, "req-2", at_ms=10),
            _entry(_call("cancel", outcome="unknown"), f"{OPERATION}:1", id_="c1", at_ms=60, source="payments"),
            _entry(_call("retrieve"), f"{OPERATION}:1", id_="c2", at_ms=120, source="payments"),
            _entry(VOIDED, f"{OPERATION}:1", at_ms=121, source="payments"),
            _entry(authorized, f"{OPERATION}:7", at_ms=500, source="payments"),
        ]
    )
    told = _by_name(story)
    names = {name: (each.cause.name, each.cause.is_inferred) if each.cause else None for name, each in told.items()}
    assert names == {
        "request": None,
        "payment.void-requested": ("request", False),
        "cancel": ("payment.void-requested", True),
        "retrieve": ("cancel", True),
        "payment.voided": ("retrieve", False),
        "payment.authorized": None,
    }
    assert told["cancel"].after_ms == 10
    assert told["retrieve"].after_ms == 20
    assert told["payment.voided"].after_ms == 1, "from the end of the call, not from its beginning"


def test_retries_show_whether_under_the_same_key_or_under_another() -> None:
    calls = [
        _entry(_call("create", outcome="unknown"), f"{OPERATION}:1", id_="first", at_ms=50),
        _entry(_call("create"), f"{OPERATION}:2", id_="same key", at_ms=5_000),
        _entry(_call("create", attempt=2), f"{OPERATION[:-1]}2:1", id_="new key", at_ms=9_000),
    ]
    assert {told.entry.id: told.is_retry for told in tell(calls)} == {"first": False, "same key": True, "new key": True}


def test_what_takes_something_back_shows_and_so_does_all_that_follows_from_it() -> None:
    story = tell(
        [
            _entry(REQUESTED, "req-1"),
            _entry(VOID, "req-2", at_ms=10),
            _entry(_call("cancel"), f"{OPERATION}:1", at_ms=70, source="payments"),
            _entry(VOIDED, f"{OPERATION}:1", at_ms=71, source="payments"),
            _entry(CANCELED, "payment.voided", at_ms=80),
            _entry(REOPENED, "checkout.canceled", at_ms=90, source="cart"),
        ]
    )
    undone = [told.entry.name for told in story if told.is_compensation]
    assert undone == ["payment.void-requested", "cancel", "payment.voided", "checkout.canceled", "cart.reopened"]


@given(st.lists(st.tuples(st.integers(-5_000, 5_000), st.integers(0, 11)), min_size=1, max_size=12))
def test_no_effect_is_told_before_its_cause_whatever_the_clocks_say_and_nothing_is_lost(shape: list[tuple[int, int]]) -> None:
    """Causes are any earlier, later or no entry at all, in circles too, for what is read is only claimed."""
    entries: list[TimelineEntry] = [
        _entry(REQUESTED, f"e{cause % (len(shape) + 1)}", id_=f"e{place}", at_ms=at_ms)
        for place, (at_ms, cause) in enumerate(shape)
    ]
    story = tell(entries)
    assert {entry.id for entry in entries} <= {told.entry.id for told in story}
    places = {told.entry.id: place for place, told in enumerate(story)}
    parents = {entry.id: entry.cause for entry in entries}
    for told in story:
        if told.cause is not None and not _is_in_circle(told.entry.id, parents):
            assert places[told.cause.id] < places[told.entry.id]


def _is_in_circle(start: str, parents: dict[str, str]) -> bool:
    """Whether following the causes never comes to a beginning."""
    seen, at = set[str](), start
    while at in parents and at not in seen:
        seen.add(at)
        at = parents[at]
    return at in parents
