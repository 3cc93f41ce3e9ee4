"""The refund and dispute machines against a provider that tells late, twice and in any order; the books always balance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts import Event
from libs.common.contracts.payments import DisputeClosed, DisputeOpened, RefundFailed, RefundPending, RefundSucceeded
from libs.common.errors import CartwrightError, ConflictError, RejectedError
from services.payments.domain import dispute as disputes
from services.payments.domain import ledger
from services.payments.domain import refund as machine
from services.payments.domain.asking import AMOUNT_NOT_PAYABLE
from services.payments.domain.dispute import Dispute
from services.payments.domain.ledger import TRANSFERS, Account, Entry, EntryKind
from services.payments.domain.operation import OPEN, PLANNED_LEASE, Operation, OperationState
from services.payments.domain.outcome import (
    Declined,
    DisputeStatus,
    IntentStatus,
    Outcome,
    RefundStatus,
    Rejected,
    SeenDispute,
    SeenRefund,
    Succeeded,
    Throttled,
    Unknown,
)
from services.payments.domain.payment import Payment, PaymentState
from services.payments.domain.refund import ASKING, RESERVING, STANDS, Refund, RefundDecision, RefundState

START = datetime(2026, 1, 1, tzinfo=UTC)
TENANT, PAYMENT, CHECKOUT, ORDER = (UUID(int=number) for number in range(1, 5))
CAPTURED = 1_000
INTENT = "pi_1"


def captured() -> Payment:
    return Payment(
        tenant_id=TENANT,
        id=PAYMENT,
        checkout_id=CHECKOUT,
        order_id=ORDER,
        amount_minor=CAPTURED,
        currency="GBP",
        state=PaymentState.CAPTURED,
        intent_id=INTENT,
        authorized_minor=CAPTURED,
        captured_minor=CAPTURED,
        created_at=START,
    )


@dataclass
class Books:
    """The rows as the shell would store them, holding every decision to what must always be true."""

    payment: Payment = field(default_factory=captured)
    refunds: dict[UUID, Refund] = field(default_factory=dict)
    operations: dict[UUID, Operation] = field(default_factory=dict)
    disputes: dict[UUID, Dispute] = field(default_factory=dict)
    entries: dict[UUID, Entry] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    now: datetime = START

    def __post_init__(self) -> None:
        self.post(ledger.captured(self.payment, CAPTURED, "ch_1"))

    def post(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.id not in self.entries, "one fact is one entry"
            self.entries[entry.id] = entry

    def apply(self, decision: RefundDecision) -> None:
        before = self.refunds.get(decision.refund.id)
        if before is not None and before.state is not decision.refund.state:
            assert decision.refund.state in machine.TRANSITIONS[before.state]
        self.payment = decision.payment
        self.refunds[decision.refund.id] = decision.refund
        if decision.planned is not None:
            assert decision.planned.id not in self.operations, "a key is planned once"
            self.operations[decision.planned.id] = decision.planned
        self.post(decision.entries)
        self.events.extend(decision.events)
        self.check()

    def call_of(self, refund: Refund) -> Operation | None:
        return self.operations.get(machine.refund_operation_id(refund.id, refund.attempt))

    def check(self) -> None:
        payment, refunds = self.payment, self.refunds.values()
        assert payment.refunding_minor == sum(each.amount_minor for each in refunds if each.state in RESERVING)
        assert payment.refunded_minor == sum(each.amount_minor for each in refunds if each.state is RefundState.SUCCEEDED)
        assert payment.refunding_minor + payment.refunded_minor <= payment.captured_minor
        for refund in refunds:
            call = self.call_of(refund)
            assert (call is not None and call.state in OPEN) == (refund.state in ASKING)
            assert (refund.due_at is not None) == (refund.state in RESERVING)
            assert (refund.failure_code is not None) == (refund.state in {RefundState.FAILED, RefundState.CANCELED})
        self.assert_conserved()

    def assert_conserved(self) -> None:
        """What the provider holds for us is what came in, less what went out; and each account follows from its entries."""
        sums = Counter[EntryKind]()
        for entry in self.entries.values():
            assert TRANSFERS[entry.kind] == (entry.debit, entry.credit)
            assert entry.amount_minor > 0
            sums[entry.kind] += entry.amount_minor
        assert sums[EntryKind.REFUND] - sums[EntryKind.REFUND_RETURN] == self.payment.refunded_minor
        lost = sum(each.withdrawn_minor - each.reinstated_minor for each in self.disputes.values())
        fees = sum(each.fee_minor for each in self.disputes.values())
        assert sums[EntryKind.CHARGEBACK] - sums[EntryKind.CHARGEBACK_RETURN] == lost
        assert sums[EntryKind.DISPUTE_FEE] - sums[EntryKind.DISPUTE_FEE_RETURN] == fees
        assert self.balance(Account.PROVIDER_BALANCE) == CAPTURED - self.payment.refunded_minor - lost - fees
        assert sum(self.balance(account) for account in Account) == 0

    def balance(self, account: Account) -> int:
        debits = sum(entry.amount_minor for entry in self.entries.values() if entry.debit is account)
        return debits - sum(entry.amount_minor for entry in self.entries.values() if entry.credit is account)


def seen(refund: Refund, status: RefundStatus, **changes: object) -> SeenRefund:
    told = SeenRefund(
        provider_id=f"re_{refund.id.hex}",
        intent_id=INTENT,
        charge_id="ch_1",
        amount_minor=refund.amount_minor,
        currency="gbp",
        status=status,
        failure_code="lost_or_stolen_card" if status is RefundStatus.FAILED else None,
        metadata={"refund_id": str(refund.id)},
        created_at=START,
    )
    return replace(told, **changes)  # type: ignore[arg-type]


# --- Refunds -------------------------------------------------------------------------------------------------------

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
        books.apply(machine.plan_refund(books.payment, refund_id, amount_minor, "because", books.now))
        assert machine.left_minor(books.payment) == left - wanted
        return
    code = AMOUNT_NOT_PAYABLE if amount_minor is not None and wanted <= 0 else machine.EXCEEDS_CAPTURE
    with pytest.raises(CartwrightError, match=code):
        machine.plan_refund(books.payment, refund_id, amount_minor, "because", books.now)
    books.apply(machine.refuse(books.payment, refund_id, max(wanted, 0), "because", code, books.now))


def outcome_of(refund: Refund, told: RefundStatus | Outcome) -> Outcome:
    return seen(refund, told) if isinstance(told, RefundStatus) else told


def answer(books: Books, refund: Refund, told: RefundStatus | Outcome) -> None:
    call = books.call_of(refund)
    if call is None or call.state not in OPEN:
        return
    recorded = machine.record(books.payment, refund, call, call.tries, outcome_of(refund, told), books.now)
    assert recorded is not None
    books.operations[call.id] = recorded.operation
    books.apply(recorded.decision)


def observe(books: Books, refund: Refund, status: RefundStatus) -> None:
    """As the handler does: never while the call may be in flight."""
    if refund.state not in ASKING:
        decision = machine.follow(books.payment, refund, seen(refund, status))
        if decision is not None:
            books.apply(decision)


def lie(books: Books, refund: Refund, amount_minor: int, currency: str) -> None:
    """A refund that is not the one that was asked for decides nothing."""
    call = books.call_of(refund)
    told = seen(refund, RefundStatus.SUCCEEDED, amount_minor=amount_minor, currency=currency)
    if call is None or call.state not in OPEN or machine.is_of(told, books.payment, refund):
        return
    recorded = machine.record(books.payment, refund, call, call.tries, told, books.now)
    assert recorded is not None
    assert recorded.operation.state is OperationState.UNKNOWN
    assert recorded.decision.payment == books.payment
    books.operations[call.id] = recorded.operation
    books.apply(recorded.decision)


def late_twin(books: Books, refund: Refund, told: RefundStatus | Outcome) -> None:
    for call in books.operations.values():
        if call.refund_id == refund.id:
            for tries in (call.tries - 1, call.tries if call.state not in OPEN else call.tries + 1):
                assert machine.record(books.payment, refund, call, tries, outcome_of(refund, told), books.now) is None


def asked(amount_minor: int | None = None) -> tuple[Books, Refund]:
    books = Books()
    books.apply(machine.plan_refund(books.payment, UUID(int=9), amount_minor, "because", books.now))
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
    with pytest.raises(ConflictError, match=machine.EXCEEDS_CAPTURE):
        machine.plan_refund(books.payment, UUID(int=10), 1, "too much", books.now)
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
    assert machine.operation_of(books.payment, refund, books.now, PLANNED_LEASE) == first
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
            machine.adopt(books.payment, found.id, wrong, books.now)
    decision = machine.adopt(books.payment, found.id, told, books.now)
    assert decision.planned is None, "nobody is asked for what was done already"
    books.apply(decision)
    assert books.payment.refunded_minor == 300
    assert [type(event) for event in books.events] == [RefundSucceeded]


@pytest.mark.parametrize("status", [RefundStatus.FAILED, RefundStatus.CANCELED])
def test_a_refund_that_failed_before_we_heard_of_it_is_taken_note_of_even_where_nothing_is_left(status: RefundStatus) -> None:
    books = Books()
    known = machine.plan_refund(books.payment, machine.found_refund_id(PAYMENT, "re_elsewhere"), 300, "", START).refund
    told = seen(known, status, metadata={})
    exhausted = replace(books.payment, refunded_minor=CAPTURED)
    decision = machine.adopt(exhausted, known.id, told, books.now)
    assert (decision.payment, decision.planned, decision.entries) == (exhausted, None, ())
    assert decision.refund.state in {RefundState.FAILED, RefundState.CANCELED}
    assert [type(event) for event in decision.events] == [RefundFailed]
    with pytest.raises(ConflictError):
        machine.adopt(exhausted, known.id, replace(told, currency="eur"), books.now)


def test_a_currency_of_three_digits_is_refunded_by_the_ten_as_the_provider_takes_it() -> None:
    fine = replace(captured(), currency="KWD")
    assert machine.plan_refund(fine, UUID(int=9), 120, "because", START).refund.amount_minor == 120
    with pytest.raises(RejectedError, match=AMOUNT_NOT_PAYABLE):
        machine.plan_refund(fine, UUID(int=9), 125, "because", START)
    yen = replace(captured(), currency="JPY")
    assert machine.plan_refund(yen, UUID(int=9), 1, "because", START).refund.amount_minor == 1


def test_nothing_is_refunded_of_what_was_not_captured() -> None:
    held = replace(captured(), state=PaymentState.AUTHORIZED, captured_minor=0)
    with pytest.raises(ConflictError, match=machine.NOT_CAPTURED):
        machine.plan_refund(held, UUID(int=9), None, "because", START)


# --- Disputes ------------------------------------------------------------------------------------------------------


def case(status: DisputeStatus, withdrawn: int = 0, reinstated: int = 0, fee: int = 0) -> SeenDispute:
    return SeenDispute(
        provider_id="dp_1",
        intent_id=INTENT,
        charge_id="ch_1",
        amount_minor=CAPTURED,
        currency="gbp",
        status=status,
        reason="fraudulent",
        respond_by=None,
        withdrawn_minor=withdrawn,
        reinstated_minor=reinstated,
        fee_minor=fee,
        created_at=START,
    )


D = DisputeStatus
STORIES = {
    "won, and the fee with it": [
        case(D.WARNING_NEEDS_RESPONSE),
        case(D.NEEDS_RESPONSE, CAPTURED, fee=1_500),
        case(D.UNDER_REVIEW, CAPTURED, fee=1_500),
        case(D.WON, CAPTURED, CAPTURED),
    ],
    "lost": [case(D.NEEDS_RESPONSE), case(D.NEEDS_RESPONSE, CAPTURED, fee=1_500), case(D.LOST, CAPTURED, fee=1_500)],
    "never one": [case(D.WARNING_NEEDS_RESPONSE), case(D.WARNING_UNDER_REVIEW), case(D.WARNING_CLOSED)],
    "charged for later": [
        case(D.NEEDS_RESPONSE, CAPTURED),
        case(D.UNDER_REVIEW, CAPTURED, fee=1_500),
        case(D.LOST, CAPTURED, fee=1_500),
    ],
    "money after the verdict": [
        case(D.NEEDS_RESPONSE, 400, fee=1_500),
        case(D.WON, 400, fee=1_500),
        case(D.WON, 400, 400, fee=0),
    ],
}


def follow(books: Books, told: SeenDispute) -> None:
    known = books.disputes.get(disputes.dispute_id(PAYMENT, told.provider_id))
    decision = disputes.observe(books.payment, known, told)
    if decision is None:
        return
    if known is not None and decision.dispute.state is not known.state:
        assert decision.dispute.state in disputes.TRANSITIONS[known.state]
    books.disputes[decision.dispute.id] = decision.dispute
    books.post(decision.entries)
    books.events.extend(decision.events)
    books.assert_conserved()


@pytest.mark.parametrize("story", STORIES)
def test_a_dispute_told_in_any_order_with_repetitions_ends_where_the_provider_ended(story: str) -> None:
    told = STORIES[story]
    last = told[-1]
    ends = set()
    for order in permutations([*told, told[0], last]):
        books = Books()
        for news in order:
            follow(books, news)
        [settled] = books.disputes.values()
        opened, closed = books.events
        assert isinstance(opened, DisputeOpened)
        assert isinstance(closed, DisputeClosed)
        ends.add((settled.state, settled.withdrawn_minor, settled.reinstated_minor, settled.fee_minor))
    assert ends == {(last.status, last.withdrawn_minor, last.reinstated_minor, last.fee_minor)}


SEEN = st.builds(case, st.sampled_from(D), st.integers(0, CAPTURED), st.integers(0, CAPTURED), st.integers(0, 2_000))


@settings(max_examples=500, deadline=None)
@given(st.lists(SEEN, min_size=1, max_size=10))
def test_even_of_a_provider_that_contradicts_itself_the_books_balance_and_a_case_closes_once(told: Sequence[SeenDispute]) -> None:
    books = Books()
    for news in told:
        follow(books, news)
    kinds = Counter(type(event) for event in books.events)
    assert kinds[DisputeOpened] == 1
    assert kinds[DisputeClosed] <= 1
