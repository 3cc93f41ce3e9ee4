"""A reconciliation from its request to its end, by its real handlers: one worker's at a time, and each break with its age."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import ConflictError, NotFoundError
from services.payments.domain.money.ledger import Entry, EntryKind
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.outcome import Exchange
from services.payments.domain.reconciliation.comparison import BreakKind, Comparison, Found, Side, Standing, Subject, compare
from services.payments.domain.reconciliation.reconciliation import (
    LEASE,
    MAX_TRIES,
    RETRY,
    Break,
    BreakState,
    Reconciliation,
    RunState,
    as_found,
)
from services.payments.handlers import HANDLERS
from services.payments.handlers.reconciliation import (
    FinishReconciliation,
    InterruptReconciliation,
    PostMovement,
    RecordFindings,
    RequestReconciliation,
    TakeUpReconciliation,
)
from services.payments.jobs.reconciliation.side_by_side import REMAINDER, STRETCH, stretches
from tests.unit.memory import NOW, TENANT, Memory
from tests.unit.payments.money_back import captured

RUN = UUID(int=9)
GRACE = timedelta(minutes=15)
OLD = NOW - timedelta(days=2)


def side(number: int, **members: Any) -> Side:
    usual: dict[str, Any] = {
        "subject": Subject.PAYMENT,
        "our_id": UUID(int=number),
        "provider_id": f"pi_{number}",
        "payment_id": UUID(int=number),
        "standing": Standing.MOVED,
        "state": "captured",
        "amount_minor": 1_000,
        "currency": "GBP",
        "made_at": OLD,
        "since": OLD,
    }
    return Side(**{**usual, **members})


LOST = Found(kind=BreakKind.MISSING_THERE, ours=side(1), theirs=None)


def requested(memory: Memory, **members: Any) -> Reconciliation:
    usual: dict[str, Any] = {"window_from": OLD, "window_to": NOW, "requested_by": "schedule"}
    run: Reconciliation = memory.execute(RequestReconciliation(reconciliation_id=RUN, **{**usual, **members}))
    return run


def taken_up(memory: Memory, *, now: Any = NOW) -> Reconciliation | None:
    run: Reconciliation | None = memory.execute(TakeUpReconciliation(reconciliation_id=RUN), now=now)
    return run


def known(memory: Memory) -> Reconciliation:
    return memory.get(Reconciliation, RUN)


def record(memory: Memory, tries: int, *, now: Any = NOW, **members: Any) -> None:
    memory.execute(RecordFindings(reconciliation_id=RUN, tries=tries, **members), now=now)


def test_a_run_is_asked_for_once_and_taken_up_by_one() -> None:
    memory = Memory(HANDLERS)
    with pytest.raises(NotFoundError):
        taken_up(memory)
    run = requested(memory, grace=timedelta(minutes=3))
    assert (run.state, run.tries, run.due_at, run.grace_seconds) == (RunState.REQUESTED, 0, NOW, 180)
    assert requested(memory, requested_by="somebody else") == run
    mine = taken_up(memory)
    assert mine is not None
    assert (mine.state, mine.tries, mine.due_at) == (RunState.RUNNING, 1, NOW + LEASE)
    assert taken_up(memory, now=NOW + LEASE - timedelta(seconds=1)) is None
    theirs = taken_up(memory, now=NOW + LEASE)
    assert theirs is not None
    assert (theirs.state, theirs.tries) == (RunState.RUNNING, 2)


def test_what_somebody_says_whose_run_is_in_other_hands_changes_nothing() -> None:
    memory = Memory(HANDLERS)
    requested(memory)
    commands: list[Any] = [
        RecordFindings(reconciliation_id=RUN, tries=1, found=(LOST,)),
        FinishReconciliation(reconciliation_id=RUN, tries=1, counts={}, totals={}),
        InterruptReconciliation(reconciliation_id=RUN, tries=1, why="away"),
    ]
    for command in commands:
        with pytest.raises(ConflictError, match="reconciliation-taken-over"):
            memory.execute(command)
    taken_up(memory)
    taken_up(memory, now=NOW + LEASE)
    before = dict(memory.rows)
    for command in commands:
        with pytest.raises(ConflictError, match="reconciliation-taken-over"):
            memory.execute(command)
        with pytest.raises(ConflictError, match="reconciliation-taken-over"):
            memory.execute(replace(command, reconciliation_id=UUID(int=8)))
    assert memory.rows == before


def test_whoever_has_it_keeps_it_by_what_they_find_and_ends_it_with_what_it_came_to() -> None:
    memory, later = Memory(HANDLERS), NOW + LEASE / 2
    requested(memory)
    taken_up(memory)
    record(memory, 1, now=later, found=(LOST,))
    assert known(memory).due_at == later + LEASE
    memory.execute(FinishReconciliation(reconciliation_id=RUN, tries=1, counts={"agreed": 3}, totals={}), now=later)
    done = known(memory)
    assert (done.state, done.counts, done.due_at, done.finished_at) == (RunState.FINISHED, {"agreed": 3}, None, later)
    assert taken_up(memory, now=later + LEASE) is None


def test_an_interrupted_run_is_tried_again_a_minute_later_and_not_for_ever() -> None:
    memory, now = Memory(HANDLERS), NOW
    requested(memory)
    for number in range(1, MAX_TRIES + 1):
        run = taken_up(memory, now=now)
        assert run is not None
        assert (run.tries, run.error) == (number, None)
        memory.execute(InterruptReconciliation(reconciliation_id=RUN, tries=number, why="away"), now=now)
        assert known(memory).error == "away"
        if number < MAX_TRIES:
            assert (known(memory).state, known(memory).due_at) == (RunState.REQUESTED, now + RETRY)
        now += RETRY
    assert (known(memory).state, known(memory).due_at, known(memory).finished_at) == (RunState.FAILED, None, now - RETRY)


def test_a_break_keeps_its_age_while_it_lasts_and_is_closed_when_it_is_repaired_or_gone() -> None:
    memory, later = Memory(HANDLERS), NOW + timedelta(minutes=1)
    requested(memory)
    taken_up(memory)
    record(memory, 1, found=(LOST,))
    key = LOST.key(TENANT)
    found = memory.get(Break, key)
    assert (found.state, found.first_seen_at, found.seen_count, found.closed_at) == (BreakState.OPEN, NOW, 1, None)
    assert (found.kind, found.our_id, found.provider_id, found.payment_id) == (LOST.kind, UUID(int=1), "pi_1", UUID(int=1))
    assert as_found(found) == LOST
    record(memory, 1, now=later, found=(LOST,))
    again = memory.get(Break, key)
    assert (again.first_seen_at, again.last_seen_at, again.seen_count) == (NOW, later, 1), "by the same run"
    record(memory, 1, now=later, repaired=(LOST,))
    assert (memory.get(Break, key).state, memory.get(Break, key).closed_at) == (BreakState.REPAIRED, later)
    record(memory, 1, now=later, gone=(key, UUID(int=77)))
    assert memory.get(Break, key).state is BreakState.REPAIRED, "what is over is not over once more"
    record(memory, 1, now=later, found=(LOST,))
    assert (memory.get(Break, key).first_seen_at, memory.get(Break, key).seen_count) == (later, 1)
    record(memory, 1, now=later, gone=(key,))
    assert (memory.get(Break, key).state, memory.get(Break, key).closed_at) == (BreakState.GONE, later)


def test_a_comparison_about_some_objects_tells_of_those_alone() -> None:
    young = side(3, since=NOW)
    compared = compare([side(1), side(2), young], [side(1)], now=NOW, grace=GRACE)
    assert [len(each) for each in (compared.agreed, compared.found, compared.in_flight)] == [1, 1, 1]
    assert compared.about({"pi_1", "pi_2", "pi_3"}) == compared
    assert compared.about({"pi_1"}) == Comparison(agreed=compared.agreed)
    assert compared.about({"pi_2"}) == Comparison(found=compared.found)
    assert compared.about({"pi_3"}) == Comparison(in_flight=compared.in_flight)


def test_what_is_as_old_as_the_grace_is_a_break_and_what_is_younger_is_on_its_way() -> None:
    for age, breaks in ((GRACE, 1), (GRACE - timedelta(microseconds=1), 0)):
        compared = compare([side(1, since=NOW - age, made_at=NOW - age)], [], now=NOW, grace=GRACE)
        assert (len(compared.found), len(compared.in_flight)) == (breaks, 1 - breaks)


def test_a_fee_of_a_payment_that_nobody_knows_is_not_posted() -> None:
    memory = Memory(HANDLERS)
    with pytest.raises(NotFoundError, match="payment-not-found"):
        memory.execute(PostMovement(payment_id=UUID(int=1), fee_minor=30, currency="GBP", reference="txn_1"))
    assert (memory.all(Payment), memory.all(Entry)) == ([], [])


@pytest.mark.parametrize("comes", [True, False])
def test_what_was_exchanged_is_posted_in_both_currencies_and_the_fee_in_the_accounts(comes: bool) -> None:
    memory, payment = Memory(HANDLERS), captured()
    payment = replace(payment, tenant_id=TENANT)
    memory.rows[Payment, TENANT, payment.id] = payment
    told = Exchange("txn_1", 130, "usd", "1.3")
    found: dict[str, Any] = {"fee_minor": 7, "currency": "usd", "reference": "txn_1", "exchange": told, "exchanged_minor": 100}
    memory.execute(PostMovement(payment_id=payment.id, comes=comes, **found))
    there, back = (EntryKind.EXCHANGE_OUT, EntryKind.EXCHANGE_IN) if comes else (EntryKind.EXCHANGE_IN, EntryKind.EXCHANGE_OUT)
    kept = {(each.kind, each.currency.upper(), abs(each.amount_minor)) for each in memory.all(Entry)}
    assert kept == {(there, "GBP", 100), (back, "USD", 130), (EntryKind.FEE, "USD", 7)}


@given(
    age=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365)),
    length=st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=9)),
)
def test_a_window_is_compared_without_a_gap_and_with_no_border_among_what_is_new(age: timedelta, length: timedelta) -> None:
    """What both sides made within a second may lie on either side of a border: each would seem to be missing at the other."""
    start = NOW - age
    end = start + length
    pieces = stretches(start, end)
    assert pieces[0][0] <= start
    assert pieces[-1][1] > end
    assert [piece[1] for piece in pieces[:-1]] == [piece[0] for piece in pieces[1:]]
    assert all(piece[1] - piece[0] < STRETCH + REMAINDER for piece in pieces)
    assert all(pieces[-1][1] - piece[1] >= REMAINDER for piece in pieces[:-1])
