"""Reconciliation, pure: it finds what differs and nothing else, and calls provable only what our machine then agrees to."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import ConflictError
from services.payments.domain.money import ledger
from services.payments.domain.payment.attempt import Attempt, AttemptState, attempt_id
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.outcome import (
    Declined,
    IntentStatus,
    SeenIntent,
    SeenTransaction,
    Succeeded,
    TransactionKind,
)
from services.payments.domain.reconciliation import reconciliation as machine
from services.payments.domain.reconciliation.comparison import (
    BreakKind,
    Found,
    Repair,
    Side,
    Standing,
    Subject,
    Totals,
    compare,
    count_in,
)
from services.payments.domain.reconciliation.reconciliation import (
    DEEP,
    DEEP_EVERY,
    MAX_TRIES,
    OVERLAP,
    BreakState,
    Reconciliation,
    RunState,
    as_found,
    found_again,
    window_after,
)
from services.payments.domain.reconciliation.sides import of_entries, of_intent, of_payment, of_transaction
from services.payments.handlers import HANDLERS
from services.payments.handlers.observations import ObserveIntent
from tests.unit.memory import NOW, TENANT, Memory

OLD = NOW - timedelta(days=2)
GRACE = timedelta(minutes=15)
AMOUNT = 1_000


def side(number: int, **members: Any) -> Side:
    """A captured payment of ours, or its twin there."""
    whole = Side(
        subject=Subject.PAYMENT,
        our_id=UUID(int=number),
        provider_id=f"pi_{number}",
        payment_id=UUID(int=number),
        standing=Standing.MOVED,
        state="captured",
        amount_minor=AMOUNT,
        currency="GBP",
        made_at=OLD,
        since=OLD,
    )
    return replace(whole, **members)


def found(ours: list[Side], theirs: list[Side], grace: timedelta = GRACE) -> list[BreakKind]:
    return [each.kind for each in compare(ours, theirs, now=NOW, grace=grace).found]


# --- Comparing ----------------------------------------------------------------------------------------------------

NUMBERS = st.sets(st.integers(1, 60), max_size=30)


@given(here=NUMBERS, there=NUMBERS, wrong=NUMBERS)
def test_what_is_missing_on_a_side_or_differs_is_found_and_nothing_else_whatever_the_order(
    here: set[int], there: set[int], wrong: set[int]
) -> None:
    ours = [side(number) for number in sorted(here, key=hash)]
    theirs = [side(number, amount_minor=AMOUNT - (number in wrong)) for number in sorted(there, reverse=True)]
    compared = compare(ours, theirs, now=NOW, grace=GRACE)
    by_kind = {kind: {each.our_id.int for each in compared.found if each.kind is kind and each.our_id} for kind in BreakKind}
    assert by_kind == {
        BreakKind.MISSING_HERE: there - here,
        BreakKind.MISSING_THERE: here - there,
        BreakKind.AMOUNT: here & there & wrong,
        BreakKind.STATE: set(),
        BreakKind.FEE: set(),
    }
    assert {ours.our_id for ours, _ in compared.agreed} == {UUID(int=number) for number in (here & there) - wrong}


def test_a_second_object_of_the_provider_for_one_payment_is_money_missing_here() -> None:
    assert found([side(1)], [side(1), side(1, provider_id="pi_again")]) == [BreakKind.MISSING_HERE]


def test_a_payment_whose_create_was_never_answered_is_met_by_our_id_in_the_metadata() -> None:
    unanswered = side(1, provider_id=None, standing=Standing.OPEN, amount_minor=0)
    assert found([unanswered], [side(1, standing=Standing.OPEN, amount_minor=0)]) == []
    assert found([unanswered], [side(1)]) == [BreakKind.STATE]
    assert found([unanswered], []) == []


def test_a_difference_is_on_its_way_until_the_younger_side_is_older_than_the_grace() -> None:
    theirs = side(1, standing=Standing.HELD, amount_minor=0, held_minor=AMOUNT)
    working = side(1, since=NOW - GRACE + timedelta(seconds=1))
    young = compare([working], [theirs], now=NOW, grace=GRACE)
    assert not young.found
    assert [each.kind for each in young.in_flight] == [BreakKind.STATE]
    assert found([replace(working, since=NOW - GRACE)], [theirs]) == [BreakKind.STATE]
    assert found([working], [theirs], grace=timedelta(0)) == [BreakKind.STATE]


def test_money_with_no_row_of_ours_is_never_guessed_at() -> None:
    [missing] = compare([], [side(1)], now=NOW, grace=GRACE).found
    assert missing.repair is None
    refund = side(1, subject=Subject.REFUND)
    assert [each.repair for each in compare([], [refund], now=NOW, grace=GRACE).found] == [Repair.OBSERVE]
    stray = replace(refund, payment_id=None)
    assert [each.repair for each in compare([], [stray], now=NOW, grace=GRACE).found] == [None]


# --- What is provable, by the payment machine itself --------------------------------------------------------------

SETTLED = {
    PaymentState.REQUIRES_ACTION: (0, 0),
    PaymentState.AUTHORIZED: (AMOUNT, 0),
    PaymentState.CAPTURED: (AMOUNT, AMOUNT),
    PaymentState.VOIDED: (0, 0),
    PaymentState.DECLINED: (0, 0),
    PaymentState.EXPIRED: (AMOUNT, 0),
}
"""States in which no call is under way, with what is authorized and captured."""


def payment_in(state: PaymentState) -> Payment:
    authorized, captured = SETTLED[state]
    return Payment(
        tenant_id=TENANT,
        id=UUID(int=1),
        version=3,
        sequence=1,
        checkout_id=UUID(int=2),
        order_id=UUID(int=3),
        amount_minor=AMOUNT,
        currency="GBP",
        method="pm_card_visa",
        state=state,
        intent_id="pi_1",
        charge_id="ch_1" if authorized else None,
        authorized_minor=authorized,
        captured_minor=captured,
        attempt_count=1,
        decline_code="generic_decline" if state is PaymentState.DECLINED else None,
        created_at=OLD,
    )


def seen_as(status: IntentStatus) -> SeenIntent:
    return SeenIntent(
        intent_id="pi_1",
        status=status,
        amount_minor=AMOUNT,
        currency="gbp",
        amount_capturable_minor=AMOUNT if status is IntentStatus.AUTHORIZED else 0,
        amount_received_minor=AMOUNT if status is IntentStatus.CAPTURED else 0,
        metadata={"tenant_id": str(TENANT), "payment_id": str(UUID(int=1))},
        created_at=OLD,
        charge_id="ch_1",
    )


def observed(seen: SeenIntent) -> Succeeded | Declined:
    if seen.status is IntentStatus.NEEDS_METHOD:
        return Declined("generic_decline", seen.intent_id)
    members = ("intent_id", "status", "amount_minor", "currency", "amount_capturable_minor", "amount_received_minor", "charge_id")
    return Succeeded(**{name: getattr(seen, name) for name in members})


@pytest.mark.parametrize(("state", "status"), list(product(SETTLED, IntentStatus)), ids=str)
def test_a_break_is_called_provable_just_where_the_machine_comes_to_agree_once_it_hears(
    state: PaymentState, status: IntentStatus
) -> None:
    payment, seen = payment_in(state), seen_as(status)
    before = compare([of_payment(payment)], [of_intent(seen)], now=NOW, grace=timedelta(0))
    memory = Memory(HANDLERS, rows={(Payment, TENANT, payment.id): payment, **_attempt_of(payment)})
    memory.execute(ObserveIntent(payment_id=payment.id, seen=observed(seen)), now=NOW)
    heard = memory.get(Payment, payment.id)
    after = compare([of_payment(heard)], [of_intent(seen)], now=NOW, grace=timedelta(0))
    assert bool(after.agreed) == (bool(before.agreed) or before.found[0].repair is Repair.OBSERVE)


def _attempt_of(payment: Payment) -> dict[Any, Any]:
    key = attempt_id(payment.id, 1)
    is_open = payment.state is PaymentState.REQUIRES_ACTION
    attempt = Attempt(
        tenant_id=TENANT,
        id=key,
        version=1,
        payment_id=payment.id,
        number=1,
        method=payment.method,
        state=AttemptState.OPEN if is_open else AttemptState.SUCCEEDED,
        created_at=OLD,
    )
    return {(Attempt, TENANT, key): attempt}


# --- The ledger beside the provider's balance -----------------------------------------------------------------------


def transaction(identity: str, amount: int, fee: int) -> Side:
    seen = SeenTransaction(identity, TransactionKind.CHARGE, "ch_1", amount, fee, amount - fee, "gbp", OLD)
    return of_transaction(seen, UUID(int=1))


def test_the_entries_of_two_captures_with_one_charge_are_told_apart_by_their_movement_or_their_amount() -> None:
    payment = payment_in(PaymentState.CAPTURED)
    part = replace(payment, captured_minor=400)
    by_movement = [*ledger.captured(part, 400, "txn_1"), *ledger.fee(part, 26, "txn_1")]
    by_movement += [*ledger.captured(payment, 600, "txn_2"), *ledger.fee(payment, 29, "txn_2")]
    by_charge = [*ledger.captured(part, 400, "ch_1"), *ledger.captured(payment, 600, "ch_1")]
    for entries, fees in ((by_movement, (26, 29)), (by_charge, (0, 0))):
        first = of_entries(transaction("txn_1", 400, 26), entries)
        second = of_entries(transaction("txn_2", 600, 29), entries)
        assert first is not None
        assert second is not None
        assert (first.amount_minor, first.fee_minor, second.amount_minor, second.fee_minor) == (400, fees[0], 600, fees[1])


def test_a_fee_that_was_never_posted_may_be_posted_and_one_that_differs_is_for_a_person() -> None:
    payment = payment_in(PaymentState.CAPTURED)
    theirs = transaction("txn_1", AMOUNT, 35)
    taken = ledger.captured(payment, AMOUNT, "txn_1")
    repairs = []
    for entries in (taken, [*taken, *ledger.fee(payment, 34, "txn_1")], [*taken, *ledger.fee(payment, 35, "txn_1")]):
        ours = of_entries(theirs, entries)
        assert ours is not None
        repairs.append([(each.kind, each.repair) for each in compare([ours], [theirs], now=NOW, grace=GRACE).found])
    assert repairs == [[(BreakKind.FEE, Repair.POST)], [(BreakKind.FEE, None)], []]
    assert of_entries(theirs, ()) is None


def test_totals_take_every_amount_once_and_every_fee() -> None:
    totals: Totals = {}
    for each in (
        side(1),
        side(2, subject=Subject.REFUND, amount_minor=300),
        side(3, subject=Subject.DISPUTE, amount_minor=200, fee_minor=15),
        transaction("txn_1", AMOUNT, 35),
    ):
        count_in(totals, "ours", each)
    assert totals["GBP"]["ours"] == {"gross": 1_000, "refunded": 300, "disputed": 200, "fees": 50, "net": 450}
    assert set(totals["GBP"]["theirs"].values()) == {0}


# --- Breaks and runs ------------------------------------------------------------------------------------------------


def run_of(**members: Any) -> Reconciliation:
    run = Reconciliation(
        tenant_id=TENANT,
        id=UUID(int=9),
        window_from=OLD,
        window_to=NOW,
        requested_by="schedule",
        due_at=NOW,
        started_at=NOW,
    )
    return replace(run, **members)


def test_a_break_found_again_keeps_its_age_until_it_was_closed() -> None:
    difference = Found(kind=BreakKind.MISSING_THERE, ours=side(1), theirs=None)
    first = found_again(None, difference, run_of(), NOW, repaired=False)
    later = NOW + timedelta(hours=3)
    again = found_again(first, difference, run_of(id=UUID(int=10)), later, repaired=False)
    assert (again.id, again.first_seen_at, again.last_seen_at, again.seen_count) == (first.id, NOW, later, 2)
    closed = machine.gone(again, later)
    assert closed is not None
    assert closed.state is BreakState.GONE
    assert machine.gone(closed, later) is None
    anew = found_again(closed, difference, run_of(), later, repaired=False)
    assert (anew.first_seen_at, anew.seen_count, anew.closed_at) == (later, 1, None)
    assert as_found(again).ours == side(1)


def test_a_break_that_a_person_closed_stays_closed_until_a_side_moves() -> None:
    difference, later = Found(kind=BreakKind.MISSING_THERE, ours=side(1), theirs=None), NOW + timedelta(hours=3)
    settled = machine.settle(found_again(None, difference, run_of(), NOW, repaired=False), "somebody", "it is lost", NOW)
    since = replace(difference, ours=side(1, since=later))
    still = found_again(settled, since, run_of(id=UUID(int=10)), later, repaired=False)
    assert still == replace(settled, last_seen_at=later, seen_count=2, reconciliation_id=UUID(int=10))
    moved = found_again(settled, replace(difference, ours=side(1, amount_minor=1)), run_of(), later, repaired=False)
    assert (moved.state, moved.first_seen_at, moved.closed_by) == (BreakState.OPEN, later, None)
    assert found_again(settled, difference, run_of(), later, repaired=True).state is BreakState.REPAIRED


def test_the_next_window_begins_before_the_last_ended_and_once_a_day_reaches_back_beyond_any_hold() -> None:
    assert window_after(None, None, NOW) == (NOW - DEEP, NOW)
    ended = NOW - timedelta(minutes=15)
    assert window_after(ended, ended, NOW) == (ended - OVERLAP, NOW)
    assert window_after(ended, NOW - DEEP_EVERY, NOW) == (NOW - DEEP, NOW)
    long_ago = NOW - 2 * DEEP
    assert window_after(long_ago, long_ago, NOW) == (long_ago - OVERLAP, NOW)


def test_a_run_is_one_workers_at_a_time_and_ends_for_good_after_too_many_interruptions() -> None:
    run, at = run_of(), NOW
    for number in range(1, MAX_TRIES + 1):
        taken = machine.take_up(run, at)
        assert taken is not None
        assert machine.take_up(taken, at) is None
        assert machine.belongs_to(taken, number)
        assert not machine.belongs_to(taken, number - 1)
        run = machine.interrupt(taken, "the provider is away", at)
        at = run.due_at or at
    assert (run.state, run.due_at) == (RunState.FAILED, None)
    assert machine.take_up(run, at + timedelta(days=1)) is None
    with pytest.raises(ConflictError, match="cannot become"):
        machine.finish(run, {}, {}, at)
