"""Small promises of payments that nothing else holds: whose money is spoken of, and when a payment is looked at."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.payment import asking
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.payment.planning import STRANDED, awaiting, hand_over, is_look_due
from services.payments.domain.payment.recording import is_whole
from services.payments.domain.provider.operation import NO_LEASE, PLANNED_LEASE, OperationKind, operation_id
from services.payments.domain.provider.outcome import IntentStatus, Succeeded
from tests.shared.events import AMOUNT
from tests.unit.payments.books import INTENT, PAYMENT, REQUEST, START, TENANT, Books

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
