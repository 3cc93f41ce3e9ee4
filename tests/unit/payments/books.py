"""A payment's rows, and a provider that acts, keeps silent, crashes us and lies."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.checkout import PaymentRequested, PaymentVoidRequested
from libs.common.contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    PaymentVoided,
)
from libs.common.errors import ConflictError
from services.payments.domain.payment import asking, recording
from services.payments.domain.payment.attempt import Attempt, AttemptState, attempt_id
from services.payments.domain.payment.observing import observe
from services.payments.domain.payment.payment import OVER, TRANSITIONS, WORKING, Decision, OrderStanding, Payment, PaymentState
from services.payments.domain.payment.planning import look_again, plan
from services.payments.domain.provider.concluding import conclude, wants_reading
from services.payments.domain.provider.operation import (
    CLAIMED_LEASE,
    NOT_WANTED,
    OPEN,
    Operation,
    OperationKind,
    counts,
)
from services.payments.domain.provider.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Unknown
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
        if stored is None or not counts(stored, operation.tries):
            return False
        recorded = recording.record(self.known, stored, self.attempt, outcome, self.now)
        self.operations[operation.id] = recorded.operation
        self.apply(recorded.decision)
        return True

    def record_both(self, operation: Operation, made: Succeeded, then: Operation, outcome: Outcome) -> None:
        """Record a create beside the confirm that was sent right after it."""
        stored = self.operations[operation.id]
        assert counts(stored, operation.tries)
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


WITHHELD = Rejected(NOT_WANTED, "")
"""What the executor records of a confirm that it does not send."""


def is_withheld(operation: Operation, payment: Payment) -> bool:
    """Whether the executor, which reads the payment again before a confirm, does not send it."""
    return operation.kind is OperationKind.CONFIRM and payment.is_unwanted


def heal(books: Books, provider: Provider) -> None:
    """From now on every try is made and its answer arrives."""
    for _ in range(30):
        operation = books.take_up()
        if operation is None:
            return
        withheld = is_withheld(operation, books.known)
        books.record(operation, WITHHELD if withheld else ask(provider, operation, books.now))
    raise AssertionError("it never comes to rest")


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
