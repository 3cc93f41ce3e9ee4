"""The refund machine against a provider that tells late, twice and in any order; the books always balance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import permutations
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.payments import RefundFailed, RefundPending, RefundSucceeded
from libs.common.errors import CartwrightError, ConflictError, RejectedError
from services.payments.domain.money import refund as machine
from services.payments.domain.money import refund_asking, refund_recording
from services.payments.domain.money.ledger import Account
from services.payments.domain.money.refund import ASKING, STANDS, Refund, RefundState
from services.payments.domain.payment.asking import AMOUNT_NOT_PAYABLE
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.provider.operation import OPEN, PLANNED_LEASE, OperationState
from services.payments.domain.provider.outcome import (
    Declined,
    IntentStatus,
    Outcome,
    RefundStatus,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)
from tests.unit.payments.money_back import CAPTURED, CHECKOUT, INTENT, ORDER, PAYMENT, START, TENANT, Books, captured, seen

OUTCOMES = st.one_of(
    st.sampled_from(RefundStatus),
    st.just(Rejected("charge-already-refunded", "")),
    st.just(Rejected("spent-key", "")),
    st.just(Declined("generic_decline", None)),
    st.builds(Unknown, st.just("timeout"), stored=st.booleans()),
    st.just(Throttled(1.0)),
    st.just(Succeeded(INTENT, IntentStatus.CAPTURED, CAPTURED, "gbp", 0, CAPTURED)),
)


@dataclass(frozen=True)
class Ask:
    """Somebody wants a refund of so much, or of all."""

    amount_minor: int | None


@dataclass(frozen=True)
class Answer:
    """A call of one of the refunds is answered."""

    refund: int
    told: RefundStatus | Outcome


@dataclass(frozen=True)
class LateTwin(Answer):
    """So is one that is over, or in other hands."""


@dataclass(frozen=True)
class Observe:
    """One of them is seen to stand so."""

    refund: int
    status: RefundStatus


@dataclass(frozen=True)
class Lie:
    """A call is answered with a refund that may not be the one that was asked for."""

    refund: int
    amount_minor: int
    currency: str


WHICH = st.integers(0, 5)
STEPS = st.one_of(
    st.builds(Ask, st.none() | st.integers(-1, CAPTURED + 1)),
    st.builds(Answer, WHICH, OUTCOMES),
    st.builds(LateTwin, WHICH, OUTCOMES),
    st.builds(Observe, WHICH, st.sampled_from(RefundStatus)),
    st.builds(Lie, WHICH, st.integers(0, CAPTURED), st.sampled_from(["gbp", "eur"])),
)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_whatever_is_asked_and_told_no_more_goes_back_than_was_captured_and_the_books_agree(
    steps: Sequence[Ask | Answer | Observe | Lie],
) -> None:
    books = Books()
    for number, step in enumerate(steps):
        if isinstance(step, Ask):
            ask(books, uuid5(PAYMENT, str(number)), step.amount_minor)
        elif books.refunds:
            refund = list(books.refunds.values())[step.refund % len(books.refunds)]
            match step:
                case LateTwin():
                    late_twin(books, refund, step.told)
                case Answer():
                    answer(books, refund, step.told)
                case Observe():
                    observe(books, refund, step.status)
                case Lie():
                    lie(books, refund, step.amount_minor, step.currency)


def ask(books: Books, refund_id: UUID, amount_minor: int | None) -> None:
    left = machine.left_minor(books.payment)
    wanted = left if amount_minor is None else amount_minor
    if 0 < wanted <= left:
        books.apply(refund_asking.plan_refund(books.payment, refund_id, amount_minor, "because", books.now))
        assert machine.left_minor(books.payment) == left - wanted
        return
    code = AMOUNT_NOT_PAYABLE if amount_minor is not None and wanted <= 0 else refund_asking.EXCEEDS_CAPTURE
    with pytest.raises(CartwrightError, match=code):
        refund_asking.plan_refund(books.payment, refund_id, amount_minor, "because", books.now)
    books.apply(refund_asking.refuse(books.payment, refund_id, max(wanted, 0), "because", code, books.now))


def outcome_of(refund: Refund, told: RefundStatus | Outcome) -> Outcome:
    return seen(refund, told) if isinstance(told, RefundStatus) else told


def answer(books: Books, refund: Refund, told: RefundStatus | Outcome) -> None:
    call = books.call_of(refund)
    if call is None or call.state not in OPEN:
        return
    recorded = refund_recording.record(books.payment, refund, call, call.tries, outcome_of(refund, told), books.now)
    assert recorded is not None
    books.operations[call.id] = recorded.operation
    books.apply(recorded.decision)


def observe(books: Books, refund: Refund, status: RefundStatus) -> None:
    """As the handler does: never while the call may be in flight."""
    if refund.state not in ASKING:
        decision = refund_recording.follow(books.payment, refund, seen(refund, status))
        if decision is not None:
            books.apply(decision)


def lie(books: Books, refund: Refund, amount_minor: int, currency: str) -> None:
    """A refund that is not the one that was asked for decides nothing."""
    call = books.call_of(refund)
    told = seen(refund, RefundStatus.SUCCEEDED, amount_minor=amount_minor, currency=currency)
    if call is None or call.state not in OPEN or refund_recording.is_of(told, books.payment, refund):
        return
    recorded = refund_recording.record(books.payment, refund, call, call.tries, told, books.now)
    assert recorded is not None
    assert recorded.operation.state is OperationState.UNKNOWN
    assert recorded.decision.payment == books.payment
    books.operations[call.id] = recorded.operation
    books.apply(recorded.decision)


def late_twin(books: Books, refund: Refund, told: RefundStatus | Outcome) -> None:
    for call in books.operations.values():
        if call.refund_id == refund.id:
            for tries in (call.tries - 1, call.tries if call.state not in OPEN else call.tries + 1):
                assert refund_recording.record(books.payment, refund, call, tries, outcome_of(refund, told), books.now) is None


def asked(amount_minor: int | None = None) -> tuple[Books, Refund]:
    books = Books()
    books.apply(refund_asking.plan_refund(books.payment, UUID(int=9), amount_minor, "because", books.now))
    return books, books.refunds[UUID(int=9)]


@pytest.mark.parametrize("last", [RefundStatus.SUCCEEDED, RefundStatus.FAILED, RefundStatus.CANCELED])
def test_the_same_news_in_any_order_and_any_number_of_times_ends_in_the_same_state_and_balance(last: RefundStatus) -> None:
    news = [RefundStatus.PENDING, RefundStatus.REQUIRES_ACTION, RefundStatus.SUCCEEDED, last]
    if last is RefundStatus.CANCELED:
        news.remove(RefundStatus.SUCCEEDED)  # what has gone cannot be canceled
    ends = set()
    for told in permutations([*news, last]):
        books, refund = asked(400)
        answer(books, refund, told[0])
        for status in told[1:]:
            observe(books, books.refunds[refund.id], status)
        settled = books.refunds[refund.id]
        kinds = Counter(type(event) for event in books.events)
        assert max(kinds[kind] for kind in (RefundPending, RefundSucceeded, RefundFailed)) <= 1
        ends.add((settled.state, settled.failure_code, books.payment, books.balance(Account.PROVIDER_BALANCE)))
    assert len(ends) == 1
    assert ends.pop()[0] is STANDS[last]


@pytest.mark.parametrize("after", [[], [RefundStatus.PENDING], [RefundStatus.PENDING, RefundStatus.SUCCEEDED]])
def test_what_a_failed_refund_took_may_be_refunded_again(after: Sequence[RefundStatus]) -> None:
    books, refund = asked()
    with pytest.raises(ConflictError, match=refund_asking.EXCEEDS_CAPTURE):
        refund_asking.plan_refund(books.payment, UUID(int=10), 1, "too much", books.now)
    answer(books, refund, after[0] if after else RefundStatus.FAILED)
    for status in (*after[1:], RefundStatus.FAILED):
        observe(books, books.refunds[refund.id], status)
    assert books.refunds[refund.id].state is RefundState.FAILED
    failed = [event for event in books.events if isinstance(event, RefundFailed)]
    assert [(event.code, event.refunded_minor) for event in failed] == [("lost_or_stolen_card", 0)]
    ask(books, UUID(int=10), None)
    answer(books, books.refunds[UUID(int=10)], RefundStatus.SUCCEEDED)
    assert books.payment.refunded_minor == CAPTURED
    assert books.balance(Account.PROVIDER_BALANCE) == 0


def test_a_spent_key_is_followed_by_the_next_and_a_lost_row_comes_back_under_its_own() -> None:
    books, refund = asked()
    first = books.operations[machine.refund_operation_id(refund.id, 1)]
    assert refund_asking.operation_of(books.payment, refund, books.now, PLANNED_LEASE) == first
    answer(books, refund, Unknown("http-500", stored=True))
    books.now += timedelta(minutes=5)
    answer(books, books.refunds[refund.id], Rejected("spent-key", ""))
    again = books.refunds[refund.id]
    second = books.operations[machine.refund_operation_id(refund.id, 2)]
    assert (again.state, again.attempt) == (RefundState.REQUESTED, 2)
    assert second.idempotency_key != first.idempotency_key
    assert second.request == first.request
    assert second.first_send_at == books.now, "the new key's age counts from its own plan"


def test_a_refund_that_the_provider_has_and_we_have_not_is_counted_unless_it_is_not_of_this_money() -> None:
    books = Books()
    found = Refund(
        tenant_id=TENANT,
        id=machine.found_refund_id(PAYMENT, "re_elsewhere"),
        payment_id=PAYMENT,
        checkout_id=CHECKOUT,
        order_id=ORDER,
        amount_minor=300,
        currency="GBP",
        reason="",
        asked_at=START,
        created_at=START,
    )
    told = seen(found, RefundStatus.SUCCEEDED, metadata={})
    for wrong in (replace(told, currency="eur"), replace(told, intent_id="pi_2"), replace(told, amount_minor=CAPTURED + 1)):
        with pytest.raises(ConflictError):
            refund_recording.adopt(books.payment, found.id, wrong, books.now)
    decision = refund_recording.adopt(books.payment, found.id, told, books.now)
    assert decision.planned is None, "nobody is asked for what was done already"
    books.apply(decision)
    assert books.payment.refunded_minor == 300
    assert [type(event) for event in books.events] == [RefundSucceeded]


@pytest.mark.parametrize("status", [RefundStatus.FAILED, RefundStatus.CANCELED])
def test_a_refund_that_failed_before_we_heard_of_it_is_taken_note_of_even_where_nothing_is_left(status: RefundStatus) -> None:
    books = Books()
    known = refund_asking.plan_refund(books.payment, machine.found_refund_id(PAYMENT, "re_elsewhere"), 300, "", START).refund
    told = seen(known, status, metadata={})
    exhausted = replace(books.payment, refunded_minor=CAPTURED)
    decision = refund_recording.adopt(exhausted, known.id, told, books.now)
    assert (decision.payment, decision.planned, decision.entries) == (exhausted, None, ())
    assert decision.refund.state in {RefundState.FAILED, RefundState.CANCELED}
    assert [type(event) for event in decision.events] == [RefundFailed]
    with pytest.raises(ConflictError):
        refund_recording.adopt(exhausted, known.id, replace(told, currency="eur"), books.now)


def test_a_currency_of_three_digits_is_refunded_by_the_ten_as_the_provider_takes_it() -> None:
    fine = replace(captured(), currency="KWD")
    assert refund_asking.plan_refund(fine, UUID(int=9), 120, "because", START).refund.amount_minor == 120
    with pytest.raises(RejectedError, match=AMOUNT_NOT_PAYABLE):
        refund_asking.plan_refund(fine, UUID(int=9), 125, "because", START)
    yen = replace(captured(), currency="JPY")
    assert refund_asking.plan_refund(yen, UUID(int=9), 1, "because", START).refund.amount_minor == 1


def test_nothing_is_refunded_of_what_was_not_captured() -> None:
    held = replace(captured(), state=PaymentState.AUTHORIZED, captured_minor=0)
    with pytest.raises(ConflictError, match=refund_asking.NOT_CAPTURED):
        refund_asking.plan_refund(held, UUID(int=9), None, "because", START)
