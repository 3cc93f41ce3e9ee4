"""The payment machine against a provider that acts, answers, keeps silent, crashes us and lies."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.common.contracts import Event
from libs.common.contracts.checkout import PaymentRequested, PaymentVoidRequested
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
from services.payments.domain import asking, recording
from services.payments.domain.attempt import Attempt, AttemptState, attempt_id
from services.payments.domain.observing import observe
from services.payments.domain.operation import (
    CLAIMED_LEASE,
    DID_NOT_HAPPEN,
    KEY_LIFETIME,
    OPEN,
    UNKNOWN_WAITS,
    Operation,
    OperationKind,
    OperationState,
    Resolution,
    Verdict,
    conclude,
    following,
    resolve,
    wants_reading,
)
from services.payments.domain.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown
from services.payments.domain.payment import OVER, TRANSITIONS, WORKING, Decision, OrderStanding, Payment, PaymentState
from services.payments.domain.planning import look_again, plan
from tests.shared.events import AMOUNT, payment_requested

START = datetime(2026, 1, 1, tzinfo=UTC)
TENANT, PAYMENT, CHECKOUT, ORDER, SUBJECT = (UUID(int=number) for number in range(1, 6))
INTENT = "pi_1"
KINDS = [kind for kind in OperationKind if kind is not OperationKind.REFUND]
NOTHING_FOUND = Rejected("not-found", "")

REQUEST = payment_requested(checkout_id=CHECKOUT, payment_id=PAYMENT, order_id=ORDER, subject_id=SUBJECT)
BY_CLIENT = replace(REQUEST, method="", confirmation="client")
VOID = PaymentVoidRequested(checkout_id=CHECKOUT, payment_id=PAYMENT, reason="canceled")


@dataclass
class Books:
    """The rows as the shell would store them, holding every decision to what must always be true."""

    request_of: PaymentRequested = REQUEST
    payment: Payment | None = None
    operations: dict[UUID, Operation] = field(default_factory=dict)
    attempts: dict[UUID, Attempt] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    taken_minor: int = 0
    now: datetime = START

    @property
    def known(self) -> Payment:
        assert self.payment is not None
        return self.payment

    @property
    def open(self) -> Operation | None:
        return next((each for each in self.operations.values() if each.state in OPEN), None)

    @property
    def attempt(self) -> Attempt | None:
        return self.attempts.get(attempt_id(PAYMENT, self.known.attempt_count))

    def apply(self, decision: Decision | None) -> None:
        if decision is None:
            return
        if decision.planned is not None:
            assert decision.planned.id not in self.operations, "a key is planned once"
            self.operations[decision.planned.id] = decision.planned
        before = self.payment
        if before is not None and not TRANSITIONS[before.state]:
            assert decision.payment.state is before.state, "an end is an end"
        self.payment = decision.payment
        self.attempts.update({attempt.id: attempt for attempt in decision.attempts})
        self.events.extend(decision.events)
        self.taken_minor += decision.taken.amount_minor if decision.taken else 0
        self.check()

    def check(self) -> None:
        """What the database's constraints say as well."""
        payment = self.known
        opened = [each for each in self.operations.values() if each.state in OPEN]
        waiting = payment.state in WORKING or payment.state is PaymentState.UNKNOWN
        assert [each.id for each in opened] == ([payment.operation_id] if waiting else [])
        assert (payment.operation_id is not None) == (payment.operation_at is not None) == waiting
        assert (payment.look_at is None) == (payment.state in OVER or payment.state is PaymentState.CREATED)
        assert min(payment.captured_minor, payment.capturing_minor) >= 0
        assert payment.captured_minor + payment.capturing_minor <= payment.authorized_minor <= payment.amount_minor
        assert payment.capturing_minor == 0 or payment.state in {PaymentState.CAPTURING, PaymentState.UNKNOWN}
        assert payment.captured_minor == self.taken_minor, "what is posted is what was taken"
        assert payment.captured_minor > 0 or payment.state is not PaymentState.CAPTURED
        holding = {PaymentState.AUTHORIZED, PaymentState.CAPTURING, PaymentState.CAPTURED, PaymentState.UNKNOWN}
        assert payment.captured_minor == 0 or payment.state in holding
        trying = [each for each in self.attempts.values() if each.state is AttemptState.OPEN]
        assert len(trying) <= 1
        assert not trying or payment.state not in OVER | {PaymentState.AUTHORIZED, PaymentState.CAPTURING}
        self.check_events()

    def check_events(self) -> None:
        kinds = [type(event) for event in self.events]
        for once in (PaymentAuthorized, PaymentDeclined, PaymentVoided, PaymentExpired):
            assert kinds.count(once) <= 1
        assert sum(kinds.count(end) for end in (PaymentDeclined, PaymentVoided, PaymentExpired)) <= 1
        amounts = [event.amount_minor for event in self.events if isinstance(event, PaymentCaptured)]
        assert sum(amounts) == self.known.captured_minor

    def request(self) -> None:
        decision = asking.request(self.payment, TENANT, self.request_of, self.now)
        assert decision is None or self.payment is None or not self.payment.is_requested, "a payment begins once"
        self.apply(decision)

    def void(self) -> None:
        self.apply(asking.void(self.payment, TENANT, VOID, self.now))

    def confirm_order(self) -> None:
        """As checkout does: once it was told that the money is held, and never after it has asked to let it go."""
        if self.known.void_reason is None and any(isinstance(event, PaymentAuthorized) for event in self.events):
            self.apply(asking.confirm_order(self.known, self.now))

    def cancel_order(self) -> None:
        """Only what was confirmed can be canceled."""
        if self.known.order_standing is OrderStanding.CONFIRMED:
            self.apply(asking.cancel_order(self.known, "canceled", self.now))

    def capture(self, amount_minor: int, *, final: bool) -> None:
        before = self.known
        try:
            decision = asking.capture(before, amount_minor, final=final, now=self.now)
        except ConflictError:
            assert before.state is not PaymentState.AUTHORIZED or amount_minor > before.held_minor
        else:
            self.apply(decision)

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
        stored = self.operations.get(operation.id)
        if stored is None or not recording.counts(stored, operation.tries):
            return False
        recorded = recording.record(self.known, stored, self.attempt, outcome, self.now)
        self.operations[operation.id] = recorded.operation
        self.apply(recorded.decision)
        return True

    def record_both(self, operation: Operation, made: Succeeded, then: Operation, outcome: Outcome) -> None:
        """Record a create beside the confirm that was sent right after it."""
        stored = self.operations[operation.id]
        assert recording.counts(stored, operation.tries)
        created, recorded = recording.record_both(self.known, stored, made, outcome, self.now)
        confirm = recorded.operation
        assert confirm.id not in self.operations, "a key is planned once"
        assert (confirm.id, confirm.idempotency_key, confirm.request) == (then.id, then.idempotency_key, then.request)
        assert confirm.first_send_at <= then.first_send_at, "what is stored is no younger than what was sent"
        self.operations |= {created.id: created, confirm.id: confirm}
        self.apply(recorded.decision)

    def observe(self, seen: Outcome) -> None:
        """As a notice or a poll brings it."""
        assert isinstance(seen, Succeeded | Declined)
        decision = observe(self.known, self.attempt, seen, self.now)
        assert decision is None or self.open is None, "a call that may be in flight is its own executor's business"
        self.apply(decision)

    def lose_row(self) -> None:
        """A restore that is a moment too old: the call's row is gone, and the sweeper plans it again."""
        lost = self.open
        if lost is not None:
            del self.operations[lost.id]
            self.payment = look_again(self.known, self.now)
            again = plan(self.payment, self.now)
            assert (again.id, again.idempotency_key, again.request) == (lost.id, lost.idempotency_key, lost.request)
            assert again.first_send_at == lost.first_send_at, "a key's age survives its row"
            self.operations[again.id] = again


@dataclass
class Provider:
    """A provider that always does what it says, though its word may be lost. It remembers its keys."""

    declines: bool = False
    challenges: bool = False
    client: bool = False
    status: IntentStatus | None = None
    received: int = 0
    held: int = 0
    charges: int = 0
    answers: dict[str, Outcome] = field(default_factory=dict)
    intents: int = 0

    def send(self, operation: Operation) -> Outcome:
        known = self.answers.get(operation.idempotency_key)
        if known is None:
            known = self.answers[operation.idempotency_key] = self._act(operation)
        elif isinstance(known, Unknown):
            return replace(known, stored=True)
        return known

    def read(self) -> Outcome:
        if self.status is IntentStatus.NEEDS_METHOD and self.charges:
            return Declined("generic_decline", INTENT, f"ch_{self.charges}")
        return self._object()

    def find(self) -> Outcome:
        return NOTHING_FOUND if self.status is None else self.read()

    def store_error(self, operation: Operation, *, effect: bool) -> None:
        """Act or not, and answer with a 500 for ever: only reading tells."""
        if operation.idempotency_key not in self.answers:
            if effect:
                self.send(operation)
            self.answers[operation.idempotency_key] = Unknown("http-500")

    def lapse(self) -> None:
        """The hold ends by itself; what was taken of it stays taken."""
        if self.status is IntentStatus.AUTHORIZED:
            self.held, self.status = 0, IntentStatus.CAPTURED if self.received else IntentStatus.CANCELED

    def payer(self, *, pays: bool) -> None:
        """In the payer's browser: a challenge, or the whole confirmation."""
        open_to_them = {IntentStatus.NEEDS_ACTION, IntentStatus.NEEDS_METHOD} if self.client else {IntentStatus.NEEDS_ACTION}
        if self.status in open_to_them:
            self._charge(authorized=pays)

    def _charge(self, *, authorized: bool) -> None:
        self.charges += 1
        self.held = AMOUNT if authorized else 0
        self.status = IntentStatus.AUTHORIZED if authorized else IntentStatus.NEEDS_METHOD

    def _act(self, operation: Operation) -> Outcome:
        match operation.kind, self.status:
            case OperationKind.CREATE, None:
                self.intents += 1
                self.status = IntentStatus.NEEDS_METHOD if self.client else IntentStatus.NEEDS_CONFIRMATION
            case OperationKind.CONFIRM, IntentStatus.NEEDS_CONFIRMATION:
                if self.challenges:
                    self.status = IntentStatus.NEEDS_ACTION
                else:
                    self._charge(authorized=not self.declines)
                    return self.read()
            case OperationKind.CAPTURE, IntentStatus.AUTHORIZED if operation.request["amount_minor"] <= self.held:
                self.received += operation.request["amount_minor"]
                self.held -= operation.request["amount_minor"]
                if operation.request["final"]:
                    self.held, self.status = 0, IntentStatus.CAPTURED
            case OperationKind.CANCEL, status if status not in {None, IntentStatus.CAPTURED, IntentStatus.CANCELED}:
                self.held, self.status = 0, IntentStatus.CANCELED
            case _:
                return Rejected("wrong-state", "not in this state")
        return self._object()

    def _object(self) -> Succeeded:
        assert self.status is not None
        return replace(intent(self.status, capturable=self.held, received=self.received), charge_id=f"ch_{self.charges}")


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


def ask(provider: Provider, operation: Operation, now: datetime = START) -> Outcome:
    """Send and, where the answer does not say enough, read: the executor's part without its clock."""
    outcome = provider.send(operation) if operation.may_send(now) else Unknown("too old", stored=True)
    if not wants_reading(operation, outcome):
        return outcome
    return conclude(operation, outcome, provider.find() if operation.intent_id is None else provider.read())


def heal(books: Books, provider: Provider) -> None:
    """From now on every try is made and its answer arrives."""
    for _ in range(30):
        operation = books.take_up()
        if operation is None:
            return
        books.record(operation, ask(provider, operation, books.now))
    raise AssertionError("it never comes to rest")


STEPS = (
    *("request", "void", "confirm", "cancel order", "answered", "answered", "answered", "lost before", "lost after"),
    *("stored error", "stored nothing", "lapse", "crash", "throttled", "late twin", "lost row", "capture part"),
    *("capture part and let go", "payer pays", "payer fails", "look", "read", "old look"),
    *("in one go", "in one go, lost after", "in one go, crash"),
)


@settings(max_examples=3_000, deadline=None)
@given(
    st.sampled_from(["answers", "declines", "challenges", "client"]),
    st.lists(st.sampled_from(STEPS), max_size=40),
)
@example("answers", ["answered", "answered", "capture part", "stored nothing", "answered", "late twin"])
@example("answers", ["void", "in one go", "late twin"])
@example("declines", ["lost after", "in one go, crash", "in one go", "late twin"])
@example("answers", ["in one go, crash", "stored nothing", "void", "in one go, lost after"])
def test_whatever_is_lost_or_late_our_verdict_is_what_the_provider_did(
    way: Literal["answers", "declines", "challenges", "client"], steps: Sequence[str]
) -> None:
    client = way == "client"
    books = Books(BY_CLIENT if client else REQUEST)
    provider = Provider(declines=way == "declines", challenges=way == "challenges", client=client)
    stale: list[tuple[Operation, Outcome]] = []
    seen: list[Outcome] = []
    for step in ("request", *steps):
        take_a_step(step, books, provider, stale, seen)
    come_to_rest(books, provider)
    payment = books.known
    assert provider.intents == 1
    assert provider.received == payment.captured_minor
    if payment.is_unwanted:
        assert payment.state in OVER
        assert provider.held == 0
    assert provider.status is not None
    assert payment.state in verdicts(provider, payment), (payment.state, provider.status)


def come_to_rest(books: Books, provider: Provider) -> None:
    for _ in range(3):
        heal(books, provider)
        if books.known.intent_id is not None:
            books.observe(provider.read())
        books.confirm_order()
    heal(books, provider)


def verdicts(provider: Provider, payment: Payment) -> set[PaymentState]:
    match provider.status:
        case IntentStatus.NEEDS_METHOD:
            return {PaymentState.REQUIRES_ACTION if payment.confirmation == "client" else PaymentState.DECLINED}
        case IntentStatus.NEEDS_ACTION:
            return {PaymentState.REQUIRES_ACTION}
        case IntentStatus.AUTHORIZED:
            return {PaymentState.AUTHORIZED}
        case IntentStatus.CAPTURED:
            return {PaymentState.CAPTURED}
        case IntentStatus.CANCELED:
            return {PaymentState.VOIDED, PaymentState.EXPIRED}
        case IntentStatus.NEEDS_CONFIRMATION | IntentStatus.PROCESSING | None:
            return set()


def take_a_step(step: str, books: Books, provider: Provider, stale: list[tuple[Operation, Outcome]], seen: list[Outcome]) -> None:
    match step:
        case "request" | "void" | "confirm" | "cancel order":
            ask_for(step, books)
        case "capture part" | "capture part and let go":
            books.capture(500, final=step != "capture part")
        case "late twin":
            assert not any(books.record(old, outcome) for old, outcome in stale)
        case "lost row":
            stale.clear()  # what was sent under a row that is gone has no row to be recorded on
            books.lose_row()
        case "lapse" | "payer pays" | "payer fails":
            happen(step, provider)
        case "read" | "look" | "old look" if provider.status is not None:
            look(step, books, provider, seen)
        case _:
            if books.open is not None:
                call(step, books, provider, books.open, stale)


def happen(step: str, provider: Provider) -> None:
    """At the provider, without our doing."""
    if step == "lapse":
        provider.lapse()
    else:
        provider.payer(pays=step == "payer pays")


def look(step: str, books: Books, provider: Provider, seen: list[Outcome]) -> None:
    """What was read now, or long ago, is taken note of; while our id of it is not known, there is nobody to tell."""
    seen.append(provider.read())
    if step != "read" and books.known.intent_id is not None:
        books.observe(seen[-1] if step == "look" else seen[0])


def call(step: str, books: Books, provider: Provider, operation: Operation, stale: list[tuple[Operation, Outcome]]) -> None:
    """One try of the open operation, and what becomes of its answer."""
    match step:
        case "answered":
            outcome = ask(provider, operation)
            assert books.record(operation, outcome)
            if books.operations[operation.id].state not in OPEN:
                stale.append((operation, outcome))  # of one that is still open nobody has made another try: nothing is late
        case "stored error" | "stored nothing":
            provider.store_error(operation, effect=step == "stored error")
        case "lost before":
            assert books.record(operation, Unknown("reset"))
        case "lost after":
            provider.send(operation)
            assert books.record(operation, Unknown("timeout"))
        case "throttled":
            assert books.record(operation, Throttled(1.0))
        case "crash":
            # The provider may have acted, nobody heard, and after its lease somebody else takes it up.
            stale.append((operation, provider.send(operation)))
            books.take_up()
        case _ if step.startswith("in one go"):
            call_both(step, books, provider, operation, stale)
        case _:
            assert step in STEPS


def call_both(step: str, books: Books, provider: Provider, operation: Operation, stale: list[tuple[Operation, Outcome]]) -> None:
    """A try that goes on to what its operation plans to follow; where nothing follows, it is recorded by itself."""
    made = ask(provider, operation)
    then = following(operation, made)
    if then is None or not isinstance(made, Succeeded):
        call("answered", books, provider, operation, stale)
        return
    outcome = ask(provider, then)
    if step == "in one go, crash":
        stale.append((operation, made))
        books.take_up()
        return
    books.record_both(operation, made, then, Unknown("timeout") if step == "in one go, lost after" else outcome)
    stale.append((operation, made))
    if books.operations[then.id].state not in OPEN:
        stale.append((then, outcome))


OUTCOMES = st.one_of(
    st.builds(
        intent,
        st.sampled_from(IntentStatus),
        capturable=st.none() | st.integers(0, 2 * AMOUNT),
        received=st.none() | st.integers(0, 2 * AMOUNT),
        currency=st.sampled_from(["gbp", "gbp", "eur"]),
    ),
    st.builds(Declined, st.just("generic_decline"), st.sampled_from([None, INTENT]), st.sampled_from([None, "ch_1", "ch_2"])),
    st.builds(Rejected, st.sampled_from(["wrong-state", "unauthorized", "spent-key"]), st.just("")),
    st.builds(Unknown, st.just("timeout"), st.booleans()),
    st.builds(Throttled, st.none() | st.floats(0, 1e6)),
)
"""What a provider may say at all, of which much is not true."""


@settings(max_examples=3_000, deadline=None)
@given(
    st.sampled_from([REQUEST, BY_CLIENT]),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["answered", "answered", "seen"]), OUTCOMES),
            st.just("done"),
            st.just("done"),
            st.sampled_from(["request", "void", "confirm", "cancel order", "part", "part and let go", "lost row"]),
        ),
        max_size=30,
    ),
)
def test_even_a_lying_provider_opens_no_second_operation_and_takes_no_more_than_it_held(
    request_of: PaymentRequested, steps: Sequence[tuple[str, Outcome] | str]
) -> None:
    books = Books(request_of)
    for step in ("request", *steps):
        if isinstance(step, str):
            ask_for(step, books)
            continue
        how, outcome = step
        if how == "answered" and books.open is not None:
            books.record(books.open, outcome)
        elif how == "seen" and isinstance(outcome, Succeeded | Declined):
            books.observe(outcome)


def ask_for(step: str, books: Books) -> None:
    match step:
        case "request":
            books.request()
        case "void":
            books.void()
        case "confirm":
            books.confirm_order()
        case "cancel order":
            books.cancel_order()
        case "part" | "part and let go":
            books.capture(500, final=step != "part")
        case "lost row":
            books.lose_row()
        case _:
            if books.open is not None:
                books.record(books.open, as_asked(books.open))


def as_asked(operation: Operation) -> Succeeded:
    """The answer that the operation wants."""
    match operation.kind:
        case OperationKind.CREATE | OperationKind.REFUND:
            return intent(IntentStatus.NEEDS_CONFIRMATION)
        case OperationKind.CONFIRM:
            return intent(IntentStatus.AUTHORIZED)
        case OperationKind.CAPTURE:
            status = IntentStatus.CAPTURED if operation.request["final"] else IntentStatus.AUTHORIZED
            return intent(status, received=operation.total_minor)
        case OperationKind.CANCEL:
            return intent(IntentStatus.CANCELED)


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
    for _ in UNKNOWN_WAITS:
        assert books.record(opened(books), Unknown("timeout"))
        assert not opened(books).awaits_person
        due_at = opened(books).due_at
        assert due_at is not None
        waits.append(due_at - books.now)
        books.take_up()
    assert tuple(waits) == UNKNOWN_WAITS
    assert books.record(opened(books), Unknown("timeout"))
    assert opened(books).awaits_person


def arrive_at(kind: OperationKind, request_of: PaymentRequested = REQUEST) -> Books:
    """A payment whose open operation is of this kind, by the shortest way."""
    books, provider = Books(request_of), Provider()
    books.request()
    while opened(books).kind is not kind:
        books.record(opened(books), ask(provider, opened(books)))
        if books.open is None:
            books.void() if kind is OperationKind.CANCEL else books.confirm_order()
    return books


def held(request_of: PaymentRequested = REQUEST) -> Books:
    """A payment whose money is held, and nothing asked of it."""
    books, provider = Books(request_of), Provider()
    books.request()
    while books.open is not None:
        books.record(books.open, ask(provider, books.open))
    return books


def opened(books: Books) -> Operation:
    assert books.open is not None
    return books.open


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
