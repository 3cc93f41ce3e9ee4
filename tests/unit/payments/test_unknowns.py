"""Every unknown has an end: of each kind of operation, wherever the provider's object is found to stand."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.payments.domain.money import refund_asking, refund_recording
from services.payments.domain.money.refund import RefundState, refund_operation_id
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.payment.recording import is_as_asked
from services.payments.domain.provider.concluding import Obstacle, conclude, obstacle, wants_reading
from services.payments.domain.provider.operation import (
    OPEN,
    Operation,
    OperationKind,
    OperationState,
    Resolution,
    Verdict,
    resolve,
)
from services.payments.domain.provider.outcome import (
    Declined,
    IntentStatus,
    Outcome,
    RefundStatus,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
    as_kept,
)
from tests.shared.events import AMOUNT
from tests.unit.payments import money_back
from tests.unit.payments.books import INTENT, KINDS, NOTHING_FOUND, Books, arrive_at, held, intent, opened

PART = 500
AWAY = (Unknown("timeout"), Throttled(None), Rejected("unauthorized", ""))

MONEY = st.sampled_from([0, 1, PART, AMOUNT - PART, AMOUNT, AMOUNT + 1])
STANDS = st.one_of(
    st.builds(intent, st.sampled_from(IntentStatus), capturable=MONEY, received=MONEY, currency=st.sampled_from(["gbp", "eur"])),
    st.builds(intent, st.sampled_from(IntentStatus)),
    st.just(Declined("generic_decline", INTENT, "ch_1")),
    st.just(NOTHING_FOUND),
    st.sampled_from(AWAY),
)
"""Where the provider's object may be found, or not."""


def unknown(kind: OperationKind, *, part: bool) -> Books:
    """A payment with an operation of this kind, whose outcome nobody knows."""
    if kind is OperationKind.CAPTURE and part:
        books = held()
        books.capture(PART, final=False)
    else:
        books = arrive_at(kind)
    books.record(opened(books), Unknown("timeout"))
    assert books.known.state is PaymentState.UNKNOWN
    return books


def word(verdict: Verdict) -> Resolution:
    return Resolution(verdict=verdict, reason="a person looked", by="user:1")


def looked(books: Books, verdict: Verdict, stands: Outcome) -> Obstacle | None:
    """What the person is told is in the way; where nothing is, the look is taken, and answers what came of it."""
    asked = resolve(opened(books), word(verdict), books.now)
    assert asked is not None
    hindrance = obstacle(asked, stands, as_asked=is_as_asked(books.known, asked, stands))
    books.operations[asked.id] = asked
    taken = books.take_up()
    assert taken is not None
    answer = Unknown("not sent") if taken.is_ruled_out else sent(taken, stands)
    books.record(taken, conclude(taken, answer, stands) if wants_reading(taken, answer) else answer)
    return hindrance


def sent(operation: Operation, stands: Outcome) -> Outcome:
    """What the provider answers to the same call again while its object stands so: it is done, or it cannot be."""
    if stands in AWAY:
        return stands
    if operation.kind is OperationKind.CREATE and stands == NOTHING_FOUND:
        return intent(IntentStatus.NEEDS_CONFIRMATION)
    over = isinstance(stands, Succeeded) and stands.status in {
        IntentStatus.CAPTURED,
        IntentStatus.CANCELED,
        IntentStatus.PROCESSING,
    }
    if operation.kind is OperationKind.CANCEL and not over and stands != NOTHING_FOUND:
        return intent(IntentStatus.CANCELED)
    return Rejected("wrong-state", "")


@settings(max_examples=3_000, deadline=None)
@given(st.sampled_from(KINDS), st.booleans(), st.sampled_from(Verdict), STANDS)
def test_a_look_brings_an_unknown_to_its_end_or_the_person_is_told_before_why_it_cannot(
    kind: OperationKind, part: bool, verdict: Verdict, stands: Outcome
) -> None:
    books = unknown(kind, part=part)
    asked = opened(books)
    hindrance = looked(books, verdict, stands)
    is_over = books.operations[asked.id].state not in OPEN
    assert is_over == (hindrance is None), (hindrance, books.operations[asked.id].outcome)


@settings(max_examples=3_000, deadline=None)
@given(st.sampled_from(KINDS), st.booleans(), STANDS)
def test_whatever_stands_at_the_provider_there_is_a_word_that_ends_it(kind: OperationKind, part: bool, stands: Outcome) -> None:
    told = {}
    for verdict in Verdict:
        told[verdict] = looked(unknown(kind, part=part), verdict, stands)
    if stands in AWAY:
        assert set(told.values()) == {Obstacle.UNREADABLE}
    elif None not in told.values():
        assert isinstance(stands, Succeeded)
        assert stands.status is IntentStatus.PROCESSING, "only the provider's own work is waited for"


@pytest.mark.parametrize(
    ("final", "stands"),
    [(False, IntentStatus.CAPTURED), (True, IntentStatus.CAPTURED), (False, IntentStatus.AUTHORIZED)],
)
def test_more_that_was_taken_past_us_while_a_part_of_ours_was_unknown_is_ours_as_it_was_taken(
    *, final: bool, stands: IntentStatus
) -> None:
    books = held()
    books.capture(PART, final=final)
    books.record(opened(books), Unknown("timeout"))
    received = AMOUNT if stands is IntentStatus.CAPTURED else AMOUNT - 1
    seen = intent(stands, capturable=AMOUNT - received, received=received)
    assert looked(books, Verdict.READ_AGAIN, seen) is None
    assert (books.known.state, books.known.captured_minor) == (PaymentState(str(stands)), received)
    assert books.taken_minor == received


def test_less_that_is_held_than_an_order_costs_is_let_go_and_what_somebody_took_of_it_meanwhile_is_known() -> None:
    books = arrive_at(OperationKind.CONFIRM)
    books.record(opened(books), intent(IntentStatus.AUTHORIZED, capturable=AMOUNT - 1))
    assert (books.known.state, opened(books).kind) == (PaymentState.VOIDING, OperationKind.CANCEL)
    books = arrive_at(OperationKind.CONFIRM)
    books.record(opened(books), intent(IntentStatus.AUTHORIZED, capturable=AMOUNT - PART, received=PART))
    payment = books.known
    assert (payment.state, payment.captured_minor, payment.held_minor) == (PaymentState.AUTHORIZED, PART, AMOUNT - PART)
    assert [event.TYPE for event in books.events] == ["payment.authorized", "payment.captured"]


@pytest.mark.parametrize("verdict", Verdict)
def test_a_refund_that_is_another_one_at_the_provider_ends_with_a_persons_word_and_with_nothing_less(verdict: Verdict) -> None:
    books = money_back.Books()
    books.apply(refund_asking.plan_refund(books.payment, UUID(int=9), PART, "r", books.now))
    [refund] = books.refunds.values()
    call = books.call_of(refund)
    assert call is not None
    other = money_back.seen(refund, RefundStatus.SUCCEEDED, amount_minor=PART + 1)
    asked = resolve(replace(call, state=OperationState.UNKNOWN), word(verdict), books.now)
    assert asked is not None
    is_of = refund_recording.is_of(other, books.payment, refund)
    hindrance = obstacle(asked, other, as_asked=is_of)
    outcome = conclude(asked, Unknown("not sent"), other)
    recorded = refund_recording.record(books.payment, refund, asked, asked.tries, outcome, books.now)
    assert recorded is not None
    ends = {Verdict.READ_AGAIN: (Obstacle.ANOTHERS, RefundState.UNKNOWN), Verdict.DID_NOT_HAPPEN: (None, RefundState.FAILED)}
    assert (hindrance, recorded.decision.refund.state) == ends[verdict]


def test_a_stored_failure_of_a_refund_is_believed_only_once_the_provider_had_time_to_carry_it_out_after_all() -> None:
    books = money_back.Books()
    books.apply(refund_asking.plan_refund(books.payment, UUID(int=9), PART, "r", books.now))
    begun, stored = books.now, Unknown("http-500", stored=True)
    while (refund := books.refunds[UUID(int=9)]).attempt == 1:
        call = books.call_of(refund)
        assert call is not None
        assert books.now - begun < timedelta(hours=1), "it is not left open for ever"
        outcome = conclude(call, stored, NOTHING_FOUND) if wants_reading(call, stored) else stored
        recorded = refund_recording.record(books.payment, refund, call, call.tries, outcome, books.now)
        assert recorded is not None
        due_at = recorded.operation.due_at
        books.operations[call.id] = replace(recorded.operation, tries=call.tries + 1) if due_at else recorded.operation
        books.apply(recorded.decision)
        books.now = due_at or books.now
    assert books.now - begun >= timedelta(minutes=12)
    second = books.call_of(refund)
    assert second is not None
    assert second.request == books.operations[refund_operation_id(refund.id, 1)].request


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=600))
def test_whatever_text_an_answer_has_it_can_be_kept_and_what_could_be_before_is_as_it_was(text: str) -> None:
    kept = as_kept(Declined(text, "pi_1"))
    assert isinstance(kept, Declined)
    assert "\0" not in kept.code
    assert len(kept.code.encode()) <= 4 * 500
    assert as_kept(kept) == kept
    if "\0" not in text and len(text) <= 500 and not any("\ud800" <= each <= "\udfff" for each in text):
        assert kept.code == text
