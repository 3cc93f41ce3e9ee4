"""What an answer of the provider's is worth, case by case: every kind of operation, every place its object can stand in."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.common.clock import new_id
from services.payments.domain.provider.concluding import (
    MAX_THROTTLED_SECONDS,
    achieved,
    conclude,
    foreclosed,
    judge,
    settle,
    wants_reading,
)
from services.payments.domain.provider.operation import (
    CALL_SECONDS,
    CLAIMED_LEASE,
    DID_NOT_HAPPEN,
    KEY_LIFETIME,
    NOT_FOUND,
    OPERATIONS_DUE,
    PLANNED_LEASE,
    SPENT_KEY,
    SURE_AFTER,
    Operation,
    OperationKind,
    OperationState,
    Resolution,
    Verdict,
    counts,
    following,
    hurry,
    idempotency_key,
    operation_id,
    resolve,
    rotated,
)
from services.payments.domain.provider.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown
from tests.shared.events import AMOUNT
from tests.unit.payments.books import INTENT, PAYMENT, START, TENANT

K, I = OperationKind, IntentStatus  # noqa: E741 - two words that are on nearly every line below
ON_PAYMENTS = (K.CREATE, K.CONFIRM, K.CAPTURE, K.CANCEL)
SAID_NO = Resolution(verdict=Verdict.DID_NOT_HAPPEN, reason="the provider's dashboard says so", by="somebody")


def operation(kind: OperationKind, **members: Any) -> Operation:
    identity = operation_id(PAYMENT, kind, 1, 1)
    request = {"amount_minor": AMOUNT, "currency": "GBP", "method": "pm_card_visa", "confirmation": "server"}
    usual: dict[str, Any] = {
        "id": identity,
        "attempt": 1,
        "idempotency_key": idempotency_key(identity),
        "request": request if kind is K.CREATE else {"intent_id": INTENT, "final": True},
        "total_minor": AMOUNT if kind is K.CAPTURE else None,
        "state": OperationState.SENDING,
        "tries": 1,
        "first_send_at": START,
        "due_at": START + CLAIMED_LEASE,
    }
    return Operation(tenant_id=TENANT, payment_id=PAYMENT, kind=kind, **{**usual, **members})


def seen(status: IntentStatus, **members: Any) -> Succeeded:
    usual: dict[str, Any] = {"amount_capturable_minor": 0, "amount_received_minor": AMOUNT if status is I.CAPTURED else 0}
    facts: dict[str, Any] = {"intent_id": INTENT, "status": status, "amount_minor": AMOUNT, "currency": "gbp"}
    return Succeeded(**{**facts, **usual, **members})


# A confirm follows a create that is as it was asked for, and nothing else.

CREATED = seen(I.NEEDS_CONFIRMATION)


def test_a_confirm_follows_its_create_under_its_own_key_and_once() -> None:
    create = operation(K.CREATE, unknown_count=1, resolution=SAID_NO, tries=3)
    then = following(create, CREATED)
    assert then is not None
    assert (then.kind, then.attempt, then.tries, then.unknown_count, then.resolution) == (K.CONFIRM, 1, 1, 0, None)
    assert then.id == operation_id(PAYMENT, K.CONFIRM, 1, 1) != create.id
    assert (then.idempotency_key, then.request) == (idempotency_key(then.id), {"intent_id": INTENT, "method": "pm_card_visa"})
    assert (then.due_at, then.first_send_at) == (create.due_at, create.first_send_at), "within the same lease"


@pytest.mark.parametrize(
    ("create", "outcome"),
    [
        (operation(K.CREATE), replace(CREATED, amount_minor=AMOUNT + 1)),
        (operation(K.CREATE), replace(CREATED, amount_minor=AMOUNT - 1)),
        (operation(K.CREATE), replace(CREATED, currency="eur")),
        *((operation(K.CREATE), seen(status)) for status in I if status is not I.NEEDS_CONFIRMATION),
        *((operation(kind), CREATED) for kind in OperationKind if kind is not K.CREATE),
        (operation(K.CREATE, request={**operation(K.CREATE).request, "confirmation": "client"}), CREATED),
        (operation(K.CREATE), Declined("card_declined", INTENT)),
        (operation(K.CREATE), Unknown("timeout")),
    ],
)
def test_no_confirm_follows_what_is_another_amount_or_currency_or_touched_or_no_create(
    create: Operation, outcome: Outcome
) -> None:
    assert following(create, outcome) is None


# Where the provider's object stands.

ACHIEVED = {
    K.CREATE: set(I) - {I.CANCELED},
    K.CONFIRM: {I.AUTHORIZED, I.NEEDS_ACTION, I.CAPTURED},
    K.CAPTURE: {I.CAPTURED},
    K.CANCEL: {I.CANCELED},
    K.REFUND: set(),
}
FORECLOSED = {K.CREATE: {I.CANCELED}, K.CONFIRM: {I.CANCELED}, K.CAPTURE: {I.CANCELED}, K.CANCEL: {I.CAPTURED}, K.REFUND: set()}


def test_each_operation_is_achieved_or_foreclosed_where_its_object_stands_so_and_nowhere_else() -> None:
    for kind in OperationKind:
        asked = operation(kind)
        assert {status for status in I if achieved(asked, seen(status))} == ACHIEVED[kind], kind
        assert {status for status in I if foreclosed(asked, seen(status))} == FORECLOSED[kind], kind


def test_a_capture_is_achieved_by_what_it_wants_taken_in_all_and_foreclosed_by_an_end_with_less() -> None:
    part = operation(K.CAPTURE, request={"intent_id": INTENT, "final": False}, total_minor=500)
    for status in (I.AUTHORIZED, I.CAPTURED):
        assert achieved(part, seen(status, amount_received_minor=500))
        assert not achieved(part, seen(status, amount_received_minor=499))
    assert not achieved(operation(K.CAPTURE), seen(I.AUTHORIZED, amount_received_minor=AMOUNT)), "the rest is still held"
    assert foreclosed(part, seen(I.CAPTURED, amount_received_minor=499))
    assert not foreclosed(part, seen(I.CAPTURED, amount_received_minor=500))
    assert not foreclosed(part, seen(I.AUTHORIZED, amount_received_minor=499))


# What must be read before anything is concluded.


def _read_first(kinds: Iterable[OperationKind], outcome: Outcome, **members: Any) -> set[OperationKind]:
    return {kind for kind in kinds if wants_reading(operation(kind, **members), outcome)}


NOTHING_SENT = (Rejected("invalid", ""), Unknown("timeout"))


def test_a_second_try_of_a_create_or_a_refund_is_read_first_and_a_first_one_is_sent_again() -> None:
    for outcome in NOTHING_SENT:
        assert _read_first(OperationKind, outcome) == {K.CONFIRM, K.CAPTURE, K.CANCEL}
        assert _read_first(OperationKind, outcome, tries=2) == set(OperationKind)
    assert _read_first(OperationKind, Unknown("500", stored=True)) == set(OperationKind)


def test_a_decline_is_believed_of_a_confirm_alone_and_who_was_turned_away_has_nothing_to_read() -> None:
    assert _read_first(ON_PAYMENTS, Declined("card_declined", INTENT)) == {K.CREATE, K.CAPTURE, K.CANCEL}
    assert _read_first(OperationKind, Throttled(None), tries=2) == set()
    for kind in ON_PAYMENTS:
        assert {status for status in I if wants_reading(operation(kind), seen(status))} == set(I) - ACHIEVED[kind]


# What an answer and a reading come to.

GONE = Rejected(NOT_FOUND, "")
STORED = Unknown("500", stored=True)


def test_a_reading_that_shows_an_end_is_believed_and_one_that_says_nothing_leaves_it_unknown() -> None:
    for kind in ON_PAYMENTS:
        for status in ACHIEVED[kind] | FORECLOSED[kind]:
            assert conclude(operation(kind), STORED, seen(status)) == seen(status)
        for nothing in (Unknown("timeout"), Throttled(None), Rejected("other", "")):
            assert isinstance(conclude(operation(kind), STORED, nothing), Unknown)
    assert conclude(operation(K.CONFIRM), STORED, seen(I.PROCESSING)) == Unknown("processing")
    declined = Declined("card_declined", INTENT)
    assert [conclude(operation(kind), GONE, declined) == declined for kind in ON_PAYMENTS] == [True, True, False, False]


def test_a_stored_failure_without_an_effect_spends_its_key_where_a_second_effect_cannot_be() -> None:
    def spent(kind: OperationKind, outcome: Outcome = STORED, **members: Any) -> bool:
        concluded = conclude(
            operation(kind, **members), outcome, seen(I.NEEDS_CONFIRMATION if kind is K.CONFIRM else I.AUTHORIZED)
        )
        return isinstance(concluded, Rejected) and concluded.code == SPENT_KEY

    part: Any = {"request": {"intent_id": INTENT, "final": False}}
    assert [spent(kind) for kind in (K.CONFIRM, K.CAPTURE, K.CANCEL)] == [True, True, True]
    assert not spent(K.CONFIRM, Unknown("500"))
    assert [spent(K.CAPTURE, unknown_count=count, **part) for count in (0, SURE_AFTER - 1, SURE_AFTER)] == [False, False, True]
    refund = operation(K.REFUND, unknown_count=SURE_AFTER)
    assert conclude(refund, STORED, GONE) == Rejected(SPENT_KEY, "500")
    assert conclude(replace(refund, unknown_count=SURE_AFTER - 1), STORED, GONE) == STORED


def test_an_object_that_is_not_found_is_what_was_answered_of_its_making_and_a_persons_question_else() -> None:
    assert conclude(operation(K.CREATE), Unknown("timeout"), GONE) == Unknown("timeout")
    assert conclude(operation(K.CREATE), STORED, GONE) == Rejected(SPENT_KEY, "500")
    for kind in (K.CONFIRM, K.CAPTURE, K.CANCEL):
        assert isinstance(conclude(operation(kind), STORED, GONE), Unknown)


def test_a_persons_word_counts_once_the_object_does_not_contradict_and_a_hold_that_stands_does() -> None:
    for kind in OperationKind:
        said = operation(kind, resolution=SAID_NO)
        read = seen(I.AUTHORIZED if kind is not K.CONFIRM else I.NEEDS_CONFIRMATION)
        assert conclude(said, Unknown("timeout"), GONE) == Rejected(DID_NOT_HAPPEN, "a person said so")
        if kind in {K.CAPTURE, K.CONFIRM}:
            assert conclude(said, Unknown("timeout"), read) == Rejected(DID_NOT_HAPPEN, "a person said so")
    assert conclude(operation(K.CANCEL, resolution=SAID_NO), GONE, seen(I.AUTHORIZED)) == Unknown("the hold stands")


def test_nothing_is_taken_for_an_end_that_is_none() -> None:
    for kind in ON_PAYMENTS:
        for status in I:
            is_end = status in ACHIEVED[kind] | FORECLOSED[kind]
            assert (judge(operation(kind), seen(status), as_asked=True) == seen(status)) is is_end
            assert isinstance(judge(operation(kind), seen(status), as_asked=False), Unknown)
    for refusal in (Declined("x", INTENT), Rejected("x", "")):
        assert [judge(operation(kind), refusal, as_asked=True) == refusal for kind in ON_PAYMENTS] == [True, True, True, False]
    for code in (SPENT_KEY, DID_NOT_HAPPEN):
        assert judge(operation(K.CANCEL), Rejected(code, ""), as_asked=True) == Rejected(code, "")


# What becomes of it.


def test_an_outcome_counts_for_the_try_it_was_obtained_in_and_while_the_operation_is_open() -> None:
    for state in OperationState:
        is_open = state in {OperationState.SENDING, OperationState.UNKNOWN}
        found = [counts(operation(K.CREATE, state=state, tries=2), tries) for tries in (1, 2, 3)]
        assert found == [False, is_open, False]


def test_what_is_over_is_due_no_more_and_what_is_not_comes_up_later_and_later() -> None:
    ends: dict[OperationState, Outcome] = {
        OperationState.SUCCEEDED: seen(I.AUTHORIZED),
        OperationState.REJECTED: Rejected("x", ""),
        OperationState.DECLINED: Declined("x", INTENT),
    }
    for state, outcome in ends.items():
        over = settle(operation(K.CONFIRM), outcome, START)
        assert (over.state, over.due_at) == (state, None)
    assert settle(operation(K.CONFIRM), seen(I.CANCELED), START).state is OperationState.REJECTED
    waits, unknown = [], operation(K.CONFIRM, resolution=SAID_NO)
    for _ in range(8):
        unknown = settle(unknown, Unknown("timeout"), START)
        assert (unknown.state, unknown.resolution) == (OperationState.UNKNOWN, None)
        assert unknown.due_at is not None
        waits.append((unknown.due_at - START).total_seconds())
    assert waits == [5, 30, 120, 600, 3_600, 21_600, 21_600, 21_600]
    assert [replace(unknown, unknown_count=count).awaits_person for count in (6, 7)] == [False, True]


def test_who_is_turned_away_comes_again_when_told_or_later_each_time_and_within_a_minute() -> None:
    def wait(tries: int, retry_after: float | None = None) -> float:
        again = settle(operation(K.CREATE, tries=tries), Throttled(retry_after), START)
        assert again.due_at is not None
        assert again.state is OperationState.SENDING
        return (again.due_at - START).total_seconds()

    assert [wait(tries) for tries in (1, 2, 3, 6, 7, 20)] == [1, 2, 4, 32, 32, 32]
    assert (wait(1, 7.0), wait(6, 7.0), wait(1, 1_000.0)) == (7, 32, MAX_THROTTLED_SECONDS)


def test_the_next_key_is_another_and_begins_anew() -> None:
    old = operation(K.CAPTURE, ordinal=2, tries=4, unknown_count=3, resolution=SAID_NO, outcome={"a": 1}, version=7, sequence=2)
    later = START + timedelta(hours=1)
    again = rotated(old, later)
    assert (again.attempt, again.id) == (2, operation_id(PAYMENT, K.CAPTURE, 2, 2))
    assert again.idempotency_key == idempotency_key(again.id) != old.idempotency_key
    assert (again.version, again.sequence, again.tries, again.unknown_count) == (0, 0, 1, 0)
    assert (again.first_send_at, again.due_at, again.outcome, again.resolution) == (later, later + PLANNED_LEASE, None, None)
    assert (again.request, again.total_minor, again.ordinal) == (old.request, old.total_minor, 2)


def test_a_key_is_sent_as_long_as_the_provider_remembers_it_and_nobody_said_that_it_shall_not_be() -> None:
    create, tick = operation(K.CREATE), timedelta(microseconds=1)
    assert create.may_send(START + KEY_LIFETIME - tick)
    assert not create.may_send(START + KEY_LIFETIME)
    assert not replace(create, resolution=SAID_NO).may_send(START)
    assert replace(create, resolution=replace(SAID_NO, verdict=Verdict.READ_AGAIN)).may_send(START)


def test_a_lease_is_held_while_there_is_time_for_a_whole_call() -> None:
    last = START + CLAIMED_LEASE - timedelta(seconds=CALL_SECONDS)
    assert operation(K.CREATE).is_held(last)
    assert not operation(K.CREATE).is_held(last + timedelta(microseconds=1))
    assert not operation(K.CREATE, due_at=None).is_held(START)


def test_what_nobody_knows_is_looked_into_at_once_when_asked_and_nothing_else_is() -> None:
    unknown = operation(K.CREATE, state=OperationState.UNKNOWN)
    for state in OperationState:
        asked, is_unknown = replace(unknown, state=state), state is OperationState.UNKNOWN
        assert (resolve(asked, SAID_NO, START) is not None) is is_unknown
        assert (hurry(asked, START) is not None) is is_unknown
    assert resolve(unknown, SAID_NO, START) == replace(unknown, resolution=SAID_NO, due_at=START)
    assert hurry(unknown, START) == replace(unknown, due_at=START)
    assert hurry(replace(unknown, due_at=None), START) is None
    assert hurry(replace(unknown, due_at=START), START) is None


def test_who_makes_calls_is_told_of_what_is_due_and_of_nothing_that_is_over() -> None:
    assert [tuple(operation(K.CREATE, due_at=due_at).news) for due_at in (START, None)] == [(OPERATIONS_DUE,), ()]


def test_each_intention_has_its_own_key_for_ever() -> None:
    keys = {
        operation_id(each, kind, ordinal, attempt)
        for each in (PAYMENT, new_id())
        for kind in K
        for ordinal in (1, 2)
        for attempt in (1, 2)
    }
    assert len(keys) == 2 * len(K) * 4
    assert operation_id(PAYMENT, K.CREATE, 1, 1) == operation_id(PAYMENT, K.CREATE, 1, 1)
