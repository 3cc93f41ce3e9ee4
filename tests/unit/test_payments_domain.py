"""The payment machine against a provider that acts, answers, keeps silent, crashes us and lies."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts import Event
from libs.common.contracts.checkout import PaymentRequested, PaymentVoidRequested
from libs.common.contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentUnknown,
    PaymentVoided,
)
from services.payments.domain import payment as machine
from services.payments.domain.operation import (
    CLAIMED_LEASE,
    KEY_LIFETIME,
    OPEN,
    Operation,
    OperationKind,
    OperationState,
    conclude,
    wants_reading,
)
from services.payments.domain.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown
from services.payments.domain.payment import TRANSITIONS, WORKING, Decision, Payment, PaymentState
from services.payments.domain.recording import record

START = datetime(2026, 1, 1, tzinfo=UTC)
TENANT, PAYMENT, CHECKOUT, ORDER, SUBJECT = (UUID(int=number) for number in range(1, 6))
AMOUNT = 1_250
INTENT = "pi_1"
FINAL = frozenset(state for state, onward in TRANSITIONS.items() if not onward)

REQUEST = PaymentRequested(
    checkout_id=CHECKOUT,
    payment_id=PAYMENT,
    order_id=ORDER,
    amount_minor=AMOUNT,
    currency="GBP",
    method="pm_card_visa",
    capture="on-confirmation",
    quote_hash="0" * 64,
    subject_id=SUBJECT,
)
VOID = PaymentVoidRequested(checkout_id=CHECKOUT, payment_id=PAYMENT, reason="canceled")


@dataclass
class Books:
    """The rows as the shell would store them, holding every decision to what must always be true."""

    payment: Payment | None = None
    operations: dict[UUID, Operation] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    now: datetime = START

    @property
    def known(self) -> Payment:
        assert self.payment is not None
        return self.payment

    @property
    def open(self) -> Operation | None:
        return next((each for each in self.operations.values() if each.state in OPEN), None)

    def apply(self, decision: Decision | None) -> None:
        if decision is None:
            return
        if decision.planned is not None:
            assert decision.planned.id not in self.operations, "a key is planned once"
            self.operations[decision.planned.id] = decision.planned
        if self.payment is not None and self.payment.state in FINAL:
            assert decision.payment.state is self.payment.state, "an end is an end"
        self.payment = decision.payment
        self.events.extend(decision.events)
        self.check()

    def check(self) -> None:
        payment = self.known
        opened = [each for each in self.operations.values() if each.state in OPEN]
        assert len(opened) == (payment.state in WORKING or payment.state is PaymentState.UNKNOWN)
        assert 0 <= payment.captured_minor <= payment.authorized_minor <= payment.amount_minor
        assert (payment.state is PaymentState.CAPTURED) == (payment.captured_minor > 0)
        kinds = [type(event) for event in self.events]
        for once in (PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentVoided):
            assert kinds.count(once) <= 1
        assert sum(kinds.count(end) for end in (PaymentCaptured, PaymentDeclined, PaymentVoided)) <= 1

    def request(self) -> None:
        decision = machine.request(self.payment, TENANT, REQUEST, self.now)
        assert decision is None or self.payment is None or not self.payment.is_requested, "a payment begins once"
        self.apply(decision)

    def void(self) -> None:
        self.apply(machine.void(self.payment, TENANT, VOID, self.now))

    def confirm_order(self) -> None:
        """As checkout does: once it was told that the money is held, and never after it has asked to let it go."""
        if self.known.void_reason is None and any(isinstance(event, PaymentAuthorized) for event in self.events):
            self.apply(machine.capture(self.known, self.now))

    def take_up(self) -> Operation | None:
        """Claim the open operation once its lease is over, as the recovery does."""
        due = self.open
        if due is None or due.due_at is None:
            return None
        self.now = max(self.now, due.due_at)
        taken = replace(due, tries=due.tries + 1, due_at=self.now + CLAIMED_LEASE)
        self.operations[taken.id] = taken
        return taken

    def record(self, operation: Operation, outcome: Outcome) -> bool:
        """Record what became of a try; False when it came too late to count."""
        recorded = record(self.known, self.operations[operation.id], operation.tries, outcome, self.now)
        if recorded is None:
            return False
        self.operations[operation.id] = recorded.operation
        self.apply(recorded.decision)
        return True


@dataclass
class Provider:
    """A provider that always does what it says, though its word may be lost. It remembers its keys."""

    declines: bool = False
    challenges: bool = False
    status: IntentStatus | None = None
    answers: dict[str, Outcome] = field(default_factory=dict)
    intents: int = 0
    captures: int = 0

    def send(self, operation: Operation) -> Outcome:
        if operation.idempotency_key not in self.answers:
            self.answers[operation.idempotency_key] = self._act(operation.kind)
        return self.answers[operation.idempotency_key]

    def read(self) -> Outcome:
        if self.status is IntentStatus.NEEDS_METHOD:
            return Declined("generic_decline", INTENT)
        return self._object()

    def store_error(self, operation: Operation) -> None:
        """Act, and answer with a 500 for ever: only reading tells. (Of what it made so there is nothing to read.)"""
        if operation.kind is not OperationKind.CREATE and operation.idempotency_key not in self.answers:
            self.send(operation)
            self.answers[operation.idempotency_key] = Unknown("http-500")

    def lapse(self) -> None:
        """The hold ends by itself."""
        if self.status is IntentStatus.AUTHORIZED:
            self.status = IntentStatus.CANCELED

    def _act(self, kind: OperationKind) -> Outcome:
        match kind, self.status:
            case OperationKind.CREATE, None:
                self.intents += 1
                self.status = IntentStatus.NEEDS_CONFIRMATION
            case OperationKind.CONFIRM, IntentStatus.NEEDS_CONFIRMATION:
                if self.declines:
                    self.status = IntentStatus.NEEDS_METHOD
                    return Declined("generic_decline", INTENT)
                self.status = IntentStatus.NEEDS_ACTION if self.challenges else IntentStatus.AUTHORIZED
            case OperationKind.CAPTURE, IntentStatus.AUTHORIZED:
                self.captures += 1
                self.status = IntentStatus.CAPTURED
            case OperationKind.CANCEL, IntentStatus.NEEDS_CONFIRMATION | IntentStatus.NEEDS_ACTION | IntentStatus.AUTHORIZED:
                self.status = IntentStatus.CANCELED
            case _:
                return Rejected("wrong-state", "not in this state")
        return self._object()

    def _object(self) -> Succeeded:
        assert self.status is not None
        return intent(self.status)


def intent(
    status: IntentStatus, *, capturable: int | None = None, received: int | None = None, currency: str = "gbp"
) -> Succeeded:
    held = AMOUNT if status is IntentStatus.AUTHORIZED else 0
    taken = AMOUNT if status is IntentStatus.CAPTURED else 0
    return Succeeded(
        intent_id=INTENT,
        status=status,
        amount_minor=AMOUNT,
        currency=currency,
        amount_capturable_minor=held if capturable is None else capturable,
        amount_received_minor=taken if received is None else received,
    )


def ask(provider: Provider, operation: Operation) -> Outcome:
    """Send and, where the answer does not say enough, read: the executor's part without its clock."""
    outcome = provider.send(operation)
    return conclude(operation.kind, outcome, provider.read()) if wants_reading(operation, outcome) else outcome


def heal(books: Books, provider: Provider) -> None:
    """From now on every try is made and its answer arrives."""
    for _ in range(10):
        operation = books.take_up()
        if operation is None:
            return
        books.record(operation, ask(provider, operation))
    raise AssertionError("it never comes to rest")


STEPS = (
    *("request", "void", "confirm", "answered", "answered", "lost before", "lost after", "stored error"),
    *("lapse", "crash", "throttled", "late twin"),
)


@settings(max_examples=1_500, deadline=None)
@given(st.booleans(), st.booleans(), st.lists(st.sampled_from(STEPS), max_size=30))
def test_whatever_is_lost_or_late_our_verdict_is_what_the_provider_did(
    declines: bool,
    challenges: bool,
    steps: Sequence[str],
) -> None:
    books, provider = Books(), Provider(declines=declines, challenges=challenges)
    stale: list[tuple[Operation, Outcome]] = []
    for step in ("request", *steps):
        operation = books.open
        match step:
            case "request":
                books.request()
            case "void":
                books.void()
            case "confirm":
                books.confirm_order()
            case "lapse":
                provider.lapse()
            case "late twin":
                for old, outcome in stale:
                    assert not books.record(old, outcome)
            case _:
                if operation is not None:
                    take_a_step(step, books, provider, operation, stale)
    heal(books, provider)
    books.confirm_order()
    heal(books, provider)
    payment = books.known
    if payment.void_reason is not None and not payment.requested_capture:
        assert payment.state in {PaymentState.VOIDED, PaymentState.DECLINED}
    assert provider.intents == 1
    assert provider.captures == (payment.state is PaymentState.CAPTURED)
    verdicts = {
        IntentStatus.NEEDS_METHOD: PaymentState.DECLINED,
        IntentStatus.NEEDS_ACTION: PaymentState.REQUIRES_ACTION,
        IntentStatus.CAPTURED: PaymentState.CAPTURED,
        IntentStatus.CANCELED: PaymentState.VOIDED,
    }
    assert provider.status is not None
    assert payment.state is verdicts[provider.status]


def take_a_step(
    step: str, books: Books, provider: Provider, operation: Operation, stale: list[tuple[Operation, Outcome]]
) -> None:
    match step:
        case "answered":
            outcome = ask(provider, operation)
            assert books.record(operation, outcome)
            stale.append((operation, outcome))
        case "stored error":
            provider.store_error(operation)
        case "lost before":
            assert books.record(operation, Unknown("reset"))
        case "lost after":
            provider.send(operation)
            assert books.record(operation, Unknown("timeout"))
        case "throttled":
            assert books.record(operation, Throttled(1.0))
        case _:
            # A crash: the provider may have acted, nobody heard, and after its lease somebody else takes it up.
            stale.append((operation, provider.send(operation)))
            books.take_up()


OUTCOMES = st.one_of(
    st.builds(
        intent,
        st.sampled_from(IntentStatus),
        capturable=st.none() | st.integers(0, 2 * AMOUNT),
        received=st.none() | st.integers(0, 2 * AMOUNT),
        currency=st.sampled_from(["gbp", "gbp", "eur"]),
    ),
    st.builds(Declined, st.just("generic_decline"), st.none()),
    st.builds(Rejected, st.sampled_from(["wrong-state", "unauthorized"]), st.just("")),
    st.builds(Unknown, st.just("timeout")),
    st.builds(Throttled, st.none() | st.floats(0, 1e6)),
)


AS_ASKED = st.one_of(st.just(AMOUNT), st.just(AMOUNT), st.integers(0, 2 * AMOUNT))
"""What the open operation wants, with this amount: mostly the right one."""


def achieved(kind: OperationKind, amount: int) -> Succeeded:
    status = {
        OperationKind.CREATE: IntentStatus.NEEDS_CONFIRMATION,
        OperationKind.CONFIRM: IntentStatus.AUTHORIZED,
        OperationKind.CAPTURE: IntentStatus.CAPTURED,
        OperationKind.CANCEL: IntentStatus.CANCELED,
    }[kind]
    return intent(status, capturable=amount, received=amount)


@settings(max_examples=1_500, deadline=None)
@given(st.lists(st.one_of(OUTCOMES, AS_ASKED, st.sampled_from(["request", "void", "confirm"])), max_size=25))
def test_even_a_lying_provider_opens_no_second_operation_and_takes_no_more_than_it_held(
    steps: Sequence[Outcome | int | str],
) -> None:
    books = Books()
    for step in ("request", *steps):
        match step:
            case "request":
                books.request()
            case "void":
                books.void()
            case "confirm":
                books.confirm_order()
            case Succeeded() | Declined() | Rejected() | Unknown() | Throttled() | int() if books.open is not None:
                before = books.known
                books.record(books.open, step if not isinstance(step, int) else achieved(books.open.kind, step))
                if before.state is not books.known.state and before.state is not PaymentState.UNKNOWN:
                    assert leads(before.state, books.known.state), "a move that no path of the table makes"


def leads(start: PaymentState, end: PaymentState) -> bool:
    """One decision makes at most two moves: authorized and at once capturing."""
    return end in TRANSITIONS[start] or any(end in TRANSITIONS[between] for between in TRANSITIONS[start])


@given(st.sampled_from(OperationKind), st.lists(st.sampled_from(["timeout", "http-500", "reset"]), min_size=1, max_size=8))
def test_an_unknown_outcome_is_announced_once_and_decides_nothing(kind: OperationKind, reasons: Sequence[str]) -> None:
    books = arrive_at(kind)
    before, announced = books.known, len(books.events)
    key = opened(books).idempotency_key
    for reason in reasons:
        assert books.record(opened(books), Unknown(reason))
        books.take_up()
    assert [type(event) for event in books.events[announced:]] == [PaymentUnknown]
    assert opened(books).idempotency_key == key
    assert books.known == replace(before, state=PaymentState.UNKNOWN)


def arrive_at(kind: OperationKind) -> Books:
    """A payment whose open operation is of this kind, by the shortest way."""
    books, provider = Books(), Provider()
    books.request()
    while opened(books).kind is not kind:
        books.record(opened(books), ask(provider, opened(books)))
        if books.open is None:
            books.void() if kind is OperationKind.CANCEL else books.confirm_order()
    return books


def opened(books: Books) -> Operation:
    assert books.open is not None
    return books.open


@given(st.sampled_from(OperationKind))
def test_a_lost_operation_is_planned_again_under_the_same_key_with_the_same_parameters(kind: OperationKind) -> None:
    books = arrive_at(kind)
    again = machine.plan(books.known, books.now + timedelta(days=1))
    lost = opened(books)
    assert (again.id, again.idempotency_key, again.request) == (lost.id, lost.idempotency_key, lost.request)


def test_a_refusal_that_cannot_be_read_after_is_no_verdict() -> None:
    # The first try may have authorized; then our key was revoked: refused is not the same as never happened.
    outcome = conclude(OperationKind.CONFIRM, Rejected("unauthorized", ""), Rejected("unauthorized", ""))
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


def test_a_payment_of_nothing_or_in_no_currency_of_ours_never_reaches_the_provider() -> None:
    for request in (replace(REQUEST, amount_minor=0), replace(REQUEST, currency="ZZZ")):
        decision = machine.request(None, TENANT, request, START)
        assert decision is not None
        assert (decision.payment.state, decision.planned) == (PaymentState.DECLINED, None)


def test_a_key_is_not_sent_again_once_the_provider_may_have_forgotten_it() -> None:
    operation = opened(arrive_at(OperationKind.CONFIRM))
    assert operation.may_send(START + KEY_LIFETIME - timedelta(seconds=1))
    assert not operation.may_send(START + KEY_LIFETIME)


def test_what_only_the_payer_may_see_is_not_kept() -> None:
    books = arrive_at(OperationKind.CONFIRM)
    operation = opened(books)
    books.record(operation, replace(intent(IntentStatus.NEEDS_ACTION), client_secret="secret", action_url="https://bank.test"))
    assert books.known.state is PaymentState.REQUIRES_ACTION
    kept = books.operations[operation.id].outcome
    assert kept is not None
    assert not {"client_secret", "action_url"} & set(kept)
