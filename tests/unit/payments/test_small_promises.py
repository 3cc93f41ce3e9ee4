"""Small promises of payments that nothing else holds: whose money is spoken of, and when a payment is looked at."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.payment import asking
from services.payments.domain.payment.attempt import AttemptState, end_attempt, open_attempt
from services.payments.domain.payment.observing import observe
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.payment.planning import STRANDED, awaiting, first_look, hand_over, is_look_due, look_again
from services.payments.domain.payment.recording import is_whole, taken_unheld
from services.payments.domain.provider.operation import NO_LEASE, PLANNED_LEASE, OperationKind, operation_id
from services.payments.domain.provider.outcome import Declined, IntentStatus, Succeeded
from tests.shared.events import AMOUNT
from tests.unit.payments.books import BY_CLIENT, INTENT, PAYMENT, REQUEST, START, TENANT, Books, arrive_at, opened

SEEN = Succeeded(INTENT, IntentStatus.AUTHORIZED, AMOUNT, "gbp", AMOUNT, 0)


@pytest.fixture
def payment() -> Payment:
    books = Books()
    books.request()
    return replace(books.known, intent_id=INTENT)


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        ({"amount_capturable_minor": AMOUNT - 1, "amount_received_minor": 1}, True),
        ({"amount_received_minor": 1}, False),
        ({"intent_id": "pi_other"}, False),
        ({"currency": "eur"}, False),
        ({"amount_minor": AMOUNT + 1}, False),
        ({"amount_minor": AMOUNT - 1}, False),
    ],
)
def test_the_provider_speaks_of_this_payments_money_and_of_no_more_than_there_can_be(
    payment: Payment, changes: dict[str, Any], whole: Any
) -> None:
    assert is_whole(payment, replace(SEEN, **changes)) is whole
    assert is_whole(replace(payment, intent_id=None), SEEN)


@pytest.mark.parametrize(
    ("changes", "code", "currency", "amount"),
    [
        ({"currency": "XXX"}, "currency-not-supported", "XXX", 0),
        ({"currency": "ABC"}, "currency-not-supported", "ABC", AMOUNT),
        ({"amount_minor": 0}, "amount-not-payable", "GBP", 0),
    ],
)
def test_what_cannot_be_paid_is_declined_at_once_and_kept_as_far_as_it_can_be(
    changes: dict[str, Any], code: str, currency: str, amount: int
) -> None:
    decision = asking.request(None, TENANT, replace(REQUEST, **changes), START)
    assert decision is not None
    assert (decision.payment.state, decision.planned) == (PaymentState.DECLINED, None)
    assert [getattr(event, "code", None) for event in decision.events] == [code]
    assert (decision.payment.currency, decision.payment.amount_minor) == (currency, amount)
    assert decision.payment.method == REQUEST.method
    other = asking.request(None, TENANT, replace(REQUEST, **changes, method="4242424242424242"), START)
    assert other is not None
    assert other.payment.method == "", "what is no method is not kept"


def test_what_was_taken_of_it_before_we_knew_that_it_was_held_leaves_the_end_of_its_hold_known(payment: Payment) -> None:
    end = START + timedelta(days=7)
    seen = replace(SEEN, amount_capturable_minor=AMOUNT - 1, amount_received_minor=1, expires_at=end)
    found = taken_unheld(payment, None, seen, START)
    assert (found.payment.expires_at, found.payment.authorized_minor, found.payment.captured_minor) == (end, AMOUNT, 1)


def test_a_decline_of_a_method_that_we_did_not_choose_leaves_the_payer_another_at_the_same_object() -> None:
    books = arrive_at(OperationKind.CREATE, BY_CLIENT)
    books.record(opened(books), Declined("card_declined", "pi_found"))
    assert (books.known.intent_id, books.known.state) == ("pi_found", PaymentState.REQUIRES_ACTION)


def test_a_payment_is_looked_at_again_when_nothing_was_heard_of_what_it_waits_for(payment: Payment) -> None:
    waiting = awaiting(replace(payment, look_count=3), operation_id(PAYMENT, OperationKind.CREATE, 1, 2), 2, START)
    assert (waiting.operation_at, waiting.look_at, waiting.look_count) == (START, START + STRANDED, 0)
    assert (waiting.operation_id, waiting.operation_attempt) == (operation_id(PAYMENT, OperationKind.CREATE, 1, 2), 2)
    tick = timedelta(microseconds=1)
    assert [is_look_due(waiting, START + STRANDED + late) for late in (-tick, timedelta(0))] == [False, True]
    assert not is_look_due(replace(waiting, look_at=None), START)


def test_what_a_process_without_calls_plans_is_anybodys_at_once() -> None:
    decision = asking.request(None, TENANT, REQUEST, START)
    assert decision is not None
    assert decision.planned is not None
    assert decision.planned.due_at == START + PLANNED_LEASE
    handed = hand_over(decision, START).planned
    assert handed is not None
    assert (handed.due_at, timedelta(0)) == (START, NO_LEASE)
    assert hand_over(replace(decision, planned=None), START).planned is None


def _looks(payment: Payment, state: PaymentState, count: int) -> list[float | None]:
    """When it is looked at first, and each time that nothing has changed, in seconds from then."""
    looked = replace(payment, state=state, look_count=0, look_at=first_look(replace(payment, state=state), START))
    waits = []
    for _ in range(count):
        waits.append(None if looked.look_at is None else (looked.look_at - START).total_seconds())
        looked = look_again(looked, START)
    return waits


def test_who_waits_is_looked_at_later_each_time_and_never_less_often_than_it_may_be(payment: Payment) -> None:
    assert _looks(payment, PaymentState.REQUIRES_ACTION, 7) == [2, 4, 8, 16, 32, 60, 60]
    for state in (PaymentState.AUTHORIZING, PaymentState.CAPTURING, PaymentState.VOIDING, PaymentState.UNKNOWN):
        assert _looks(payment, state, 9) == [60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]
    day = 86_400.0
    assert _looks(replace(payment, expires_at=None), PaymentState.AUTHORIZED, 2) == [day, day]
    for ends_in, waits in ((3_600, 3_660), (-3_600, 60)):
        ending = replace(payment, expires_at=START + timedelta(seconds=ends_in))
        assert _looks(ending, PaymentState.AUTHORIZED, 1) == [waits]
    for over in (PaymentState.CAPTURED, PaymentState.VOIDED, PaymentState.DECLINED, PaymentState.EXPIRED):
        assert _looks(payment, over, 2) == [None, None]


def test_the_first_method_that_is_put_to_its_issuer_is_the_first(payment: Payment) -> None:
    books = Books()
    books.request()
    assert books.open is not None
    created = replace(SEEN, status=IntentStatus.NEEDS_CONFIRMATION, amount_capturable_minor=0)
    books.record(books.open, created)
    confirm = books.open
    assert confirm is not None
    assert (books.known.attempt_count, confirm.kind, confirm.ordinal) == (1, OperationKind.CONFIRM, 1)
    assert (confirm.id, [each.number for each in books.attempts.values()]) == (
        operation_id(PAYMENT, OperationKind.CONFIRM, 1, 1),
        [1],
    )
    assert payment.attempt_count == 0


@pytest.mark.parametrize("state", [PaymentState.AUTHORIZED, PaymentState.REQUIRES_ACTION, PaymentState.DECLINED])
def test_nothing_is_taken_of_which_the_provider_says_that_none_was(payment: Payment, state: PaymentState) -> None:
    ours = replace(payment, state=state, attempt_count=1, operation_id=None)
    none = replace(SEEN, status=IntentStatus.CAPTURED, amount_capturable_minor=0)
    assert observe(ours, None, none, START) is None
    some = observe(ours, None, replace(none, amount_received_minor=1), START)
    assert some is not None
    assert (some.payment.state, some.payment.captured_minor) == (PaymentState.CAPTURED, 1)


def test_an_attempt_ends_once_with_how_and_why() -> None:
    begun = open_attempt(TENANT, PAYMENT, 1, "pm_card_visa", START)
    [ended] = end_attempt(begun, AttemptState.DECLINED, code="card_declined", charge_id="ch_1")
    assert (ended.state, ended.decline_code, ended.charge_id) == (AttemptState.DECLINED, "card_declined", "ch_1")
    assert (ended.number, ended.method, begun.decline_code) == (1, "pm_card_visa", None)
    assert end_attempt(None, AttemptState.DECLINED) == ()
