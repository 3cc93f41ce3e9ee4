"""What a payment comes to, told step by step: refusals, voids, parts, challenges and what a person says."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts import Event
from libs.common.contracts.payments import (
    PaymentActionRequired,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    PaymentUnknown,
    PaymentVoided,
)
from libs.common.errors import ConflictError, RejectedError
from services.payments.domain.payment import asking
from services.payments.domain.payment.attempt import AttemptState
from services.payments.domain.payment.payment import WORKING, PaymentState
from services.payments.domain.provider.concluding import conclude
from services.payments.domain.provider.ladder import WAITS
from services.payments.domain.provider.operation import (
    DID_NOT_HAPPEN,
    KEY_LIFETIME,
    OPEN,
    OperationKind,
    OperationState,
    Resolution,
    Verdict,
    resolve,
)
from services.payments.domain.provider.outcome import IntentStatus, Outcome, Rejected, Unknown
from tests.shared.events import AMOUNT
from tests.unit.payments.books import (
    BY_CLIENT,
    INTENT,
    KINDS,
    NOTHING_FOUND,
    REQUEST,
    START,
    TENANT,
    Books,
    Provider,
    arrive_at,
    ask,
    heal,
    held,
    intent,
    opened,
)


@given(st.sampled_from(KINDS), st.lists(st.sampled_from(["timeout", "http-500", "reset"]), min_size=1, max_size=8))
def test_an_unknown_outcome_is_announced_once_and_decides_nothing(kind: OperationKind, reasons: Sequence[str]) -> None:
    books = arrive_at(kind)
    before, announced = books.known, len(books.events)
    key = opened(books).idempotency_key
    for reason in reasons:
        assert books.record(opened(books), Unknown(reason))
        books.take_up()
    assert [type(event) for event in books.events[announced:]] == [PaymentUnknown]
    assert opened(books).idempotency_key == key
    watched = replace(before, look_at=books.known.look_at, look_count=books.known.look_count)
    assert books.known == replace(watched, state=PaymentState.UNKNOWN)


@given(st.sampled_from(KINDS))
def test_what_stays_unknown_to_the_end_of_the_ladder_waits_for_a_person(kind: OperationKind) -> None:
    books = arrive_at(kind)
    waits = []
    for _ in WAITS:
        assert books.record(opened(books), Unknown("timeout"))
        assert not opened(books).awaits_person
        due_at = opened(books).due_at
        assert due_at is not None
        waits.append(due_at - books.now)
        books.take_up()
    assert tuple(waits) == WAITS
    assert books.record(opened(books), Unknown("timeout"))
    assert opened(books).awaits_person


def test_a_refusal_that_cannot_be_read_after_is_no_verdict() -> None:
    # The first try may have authorized; then our key was revoked: refused is not the same as never happened.
    confirm = opened(arrive_at(OperationKind.CONFIRM))
    outcome = conclude(confirm, Rejected("unauthorized", ""), Rejected("unauthorized", ""))
    assert isinstance(outcome, Unknown)


def test_a_hold_that_cannot_be_captured_is_let_go_and_one_that_cannot_be_let_go_stays_unknown() -> None:
    books = arrive_at(OperationKind.CAPTURE)
    books.record(opened(books), Rejected("invalid-request", ""))
    assert (books.known.state, opened(books).kind) == (PaymentState.VOIDING, OperationKind.CANCEL)
    books.record(opened(books), Rejected("invalid-request", ""))
    assert (books.known.state, opened(books).state) == (PaymentState.UNKNOWN, OperationState.UNKNOWN)


def test_a_void_that_comes_before_its_request_is_kept_against_it() -> None:
    books = Books()
    books.void()
    books.request()
    assert books.known.state is PaymentState.VOIDED
    assert books.known.amount_minor == AMOUNT
    assert books.operations == {}
    assert [type(event) for event in books.events] == [PaymentVoided]


def test_what_is_voided_before_the_issuer_was_asked_is_never_put_to_it() -> None:
    books, provider = arrive_at(OperationKind.CREATE), Provider()
    books.void()
    books.record(opened(books), ask(provider, opened(books)))
    assert opened(books).kind is OperationKind.CANCEL


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_minor": 0},
        {"amount_minor": 100_000_000},
        {"currency": "ZZZ"},
        {"currency": "KWD", "amount_minor": 1_001},
        {"method": ""},
    ],
)
def test_what_no_provider_would_take_never_reaches_one(wrong: dict[str, object]) -> None:
    decision = asking.request(None, TENANT, replace(REQUEST, **wrong), START)  # type: ignore[arg-type]
    assert decision is not None
    assert (decision.payment.state, decision.planned) == (PaymentState.DECLINED, None)


def test_a_key_is_not_sent_again_once_the_provider_may_have_forgotten_it() -> None:
    operation = opened(arrive_at(OperationKind.CONFIRM))
    assert operation.may_send(START + KEY_LIFETIME - timedelta(seconds=1))
    assert not operation.may_send(START + KEY_LIFETIME)


@given(st.sampled_from([OperationKind.CREATE, OperationKind.CONFIRM, OperationKind.CAPTURE, OperationKind.CANCEL]))
def test_the_key_changes_only_when_the_old_one_is_spent_and_reading_shows_no_effect(kind: OperationKind) -> None:
    books = arrive_at(kind)
    before = {
        OperationKind.CONFIRM: IntentStatus.NEEDS_CONFIRMATION,
        OperationKind.CAPTURE: IntentStatus.AUTHORIZED,
        OperationKind.CANCEL: IntentStatus.AUTHORIZED,
    }.get(kind)
    nothing = NOTHING_FOUND if before is None else intent(before)
    first = opened(books)
    books.record(first, conclude(first, Unknown("http-500"), nothing))
    again = books.take_up()
    assert again is not None
    assert again.idempotency_key == first.idempotency_key
    books.record(again, conclude(again, Unknown("http-500", stored=True), nothing))
    rotated = opened(books)
    assert rotated.idempotency_key != first.idempotency_key
    assert (rotated.kind, rotated.attempt, rotated.request) == (kind, 2, first.request)
    assert books.known.state in WORKING


def test_a_part_that_was_taken_is_kept_when_the_rest_is_let_go() -> None:
    books, provider = held(), Provider(status=IntentStatus.AUTHORIZED, held=AMOUNT)
    books.capture(500, final=False)
    heal(books, provider)
    assert (books.known.state, books.known.captured_minor, books.known.held_minor) == (PaymentState.AUTHORIZED, 500, 750)
    books.capture(250, final=False)
    heal(books, provider)
    books.void()
    assert opened(books).request == {"intent_id": INTENT, "amount_minor": 0, "final": True}
    heal(books, provider)
    assert (books.known.state, books.known.captured_minor, provider.held) == (PaymentState.CAPTURED, 750, 0)


def test_more_than_is_held_is_refused_before_anybody_is_asked() -> None:
    books = held()
    with pytest.raises(ConflictError, match="capture-exceeds-authorization"):
        asking.capture(books.known, AMOUNT + 1, final=True, now=START)
    with pytest.raises(ConflictError, match="payment-state"):
        asking.capture(arrive_at(OperationKind.CREATE).known, 1, final=True, now=START)
    with pytest.raises(RejectedError, match="amount-not-payable"):
        asking.capture(replace(books.known, currency="KWD"), 125, final=True, now=START)


def test_a_shipment_takes_the_money_where_confirmation_does_not() -> None:
    books = held(replace(REQUEST, capture="on-shipment"))
    books.confirm_order()
    assert books.known.state is PaymentState.AUTHORIZED
    books.apply(asking.dispatch(books.known, START))
    assert opened(books).kind is OperationKind.CAPTURE
    assert asking.dispatch(books.known, START) is None, "the first of several shipments takes it all"


def test_a_hold_that_the_provider_let_go_of_is_expired_and_nothing_before_that_makes_it_so() -> None:
    books = held()
    states = []
    for status in (IntentStatus.AUTHORIZED, IntentStatus.CANCELED, IntentStatus.CANCELED):
        books.observe(intent(status))
        states.append(books.known.state)
    assert states == [PaymentState.AUTHORIZED, PaymentState.EXPIRED, PaymentState.EXPIRED]
    assert [type(event) for event in books.events] == [PaymentAuthorized, PaymentExpired]


def test_a_payer_may_be_declined_twice_in_their_browser_and_pay_the_third_time() -> None:
    books, provider = Books(BY_CLIENT), Provider(client=True)
    books.request()
    books.record(opened(books), ask(provider, opened(books)))
    for _ in range(2):
        provider.payer(pays=False)
        books.observe(provider.read())
        books.observe(provider.read())
    provider.payer(pays=True)
    books.observe(provider.read())
    states = [attempt.state for attempt in sorted(books.attempts.values(), key=lambda each: each.number)]
    assert states == [AttemptState.DECLINED, AttemptState.DECLINED, AttemptState.SUCCEEDED]
    assert [type(event) for event in books.events] == [PaymentActionRequired, PaymentAuthorized]


@pytest.mark.parametrize(
    ("taken_minor", "told"), [(AMOUNT, [PaymentAuthorized, PaymentCaptured]), (AMOUNT - 1, [PaymentCaptured])]
)
def test_what_was_taken_past_us_while_we_did_not_know_whether_it_was_held_is_no_riddle(
    taken_minor: int, told: list[type[Event]]
) -> None:
    books = arrive_at(OperationKind.CONFIRM)
    books.record(opened(books), Unknown("timeout"))
    again = books.take_up()
    assert again is not None
    seen = replace(intent(IntentStatus.CAPTURED), amount_received_minor=taken_minor)
    books.record(again, conclude(again, Rejected("wrong-state", ""), seen))
    assert (books.known.state, books.known.captured_minor) == (PaymentState.CAPTURED, taken_minor)
    assert [type(event) for event in books.events] == [PaymentUnknown, *told]


@pytest.mark.parametrize(
    ("taken_minor", "told"), [(AMOUNT, [PaymentAuthorized, PaymentCaptured]), (AMOUNT - 1, [PaymentCaptured])]
)
def test_what_was_taken_past_us_before_we_knew_that_it_was_held_is_said_to_have_been_held_only_if_all_of_it_was(
    taken_minor: int, told: list[type[Event]]
) -> None:
    books, provider = Books(), Provider(challenges=True)
    books.request()
    while books.open is not None:
        books.record(books.open, ask(provider, books.open))
    books.observe(replace(intent(IntentStatus.CAPTURED), amount_received_minor=taken_minor))
    assert (books.known.state, books.known.captured_minor) == (PaymentState.CAPTURED, taken_minor)
    assert [type(event) for event in books.events] == [PaymentActionRequired, *told]


def test_money_on_a_declined_payment_is_let_go_and_nobody_is_told_twice() -> None:
    books, provider = Books(), Provider(challenges=True)
    books.request()
    while books.open is not None:
        books.record(books.open, ask(provider, books.open))
    provider.payer(pays=False)
    books.observe(provider.read())
    assert books.known.state is PaymentState.DECLINED
    provider.status, provider.held = IntentStatus.AUTHORIZED, AMOUNT  # with the client secret that was shown before
    before = provider.read()
    for _ in range(2):
        books.observe(before)
        heal(books, provider)
    assert (books.known.state, provider.held) == (PaymentState.DECLINED, 0)
    assert [type(event) for event in books.events] == [PaymentActionRequired, PaymentDeclined]


@pytest.mark.parametrize(
    ("kind", "read", "after"),
    [
        (OperationKind.CREATE, NOTHING_FOUND, PaymentState.DECLINED),
        (OperationKind.CONFIRM, intent(IntentStatus.NEEDS_CONFIRMATION), PaymentState.DECLINED),
        (OperationKind.CONFIRM, intent(IntentStatus.AUTHORIZED), PaymentState.AUTHORIZED),
        (OperationKind.CONFIRM, intent(IntentStatus.PROCESSING), PaymentState.UNKNOWN),
        (OperationKind.CONFIRM, Unknown("timeout"), PaymentState.UNKNOWN),
        (OperationKind.CAPTURE, intent(IntentStatus.AUTHORIZED), PaymentState.VOIDING),
        (OperationKind.CAPTURE, intent(IntentStatus.CAPTURED), PaymentState.CAPTURED),
        (OperationKind.CANCEL, intent(IntentStatus.AUTHORIZED), PaymentState.UNKNOWN),
        (OperationKind.CANCEL, NOTHING_FOUND, PaymentState.VOIDED),
    ],
)
def test_a_person_is_believed_only_as_far_as_the_provider_bears_them_out(
    kind: OperationKind, read: Outcome, after: PaymentState
) -> None:
    books = arrive_at(kind)
    books.record(opened(books), Unknown("timeout"))
    word = Resolution(verdict=Verdict.DID_NOT_HAPPEN, reason="the provider's support said so", by="user:1")
    resolved = resolve(opened(books), word, books.now)
    assert resolved is not None
    books.operations[resolved.id] = resolved
    taken = books.take_up()
    assert taken is not None
    assert not taken.may_send(books.now), "what a person ruled out is only read"
    books.record(taken, conclude(taken, Unknown("not sent"), read))
    assert books.known.state is after
    assert books.operations[taken.id].resolution is None or books.operations[taken.id].state not in OPEN
    if after is PaymentState.DECLINED:
        assert books.known.decline_code == DID_NOT_HAPPEN


def test_what_only_the_payer_may_see_is_not_kept() -> None:
    books = arrive_at(OperationKind.CONFIRM)
    operation = opened(books)
    seen = replace(intent(IntentStatus.NEEDS_ACTION), client_secret="secret", action_url="https://bank.test")
    books.record(operation, seen)
    assert books.known.state is PaymentState.REQUIRES_ACTION
    kept = books.operations[operation.id].outcome
    assert kept is not None
    assert not {"client_secret", "action_url"} & set(kept)
    assert "secret" not in repr(seen)
