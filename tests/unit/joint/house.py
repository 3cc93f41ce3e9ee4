"""Checkout and payments side by side: their real handlers in memory, what each says to the other on its way, and the calls.

A message waits in the queue of its key until the walk delivers it. Those of one key keep their order, as Kafka has it; keys
overtake each other. What stands here of the executor is its part without its clock.
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.checkout import (
    OrderCanceled,
    OrderConfirmed,
    OrderStatusTold,
    PaymentRequested,
    PaymentVoidRequested,
)
from libs.common.contracts.payments import OrderStatusAsked, PaymentAuthorized, RefundSucceeded
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, RejectedError
from services.checkout.domain.order import Order
from services.checkout.domain.saga import Checkout
from services.checkout.handlers import HANDLERS as CHECKOUT
from services.checkout.handlers.checkouts import TIMER, WakeCheckout
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.concluding import conclude, wants_reading
from services.payments.domain.provider.operation import NOT_WANTED, OPEN, Operation, OperationKind, following
from services.payments.domain.provider.outcome import Outcome, Rejected, Succeeded, Unknown
from services.payments.handlers import HANDLERS as PAYMENTS
from services.payments.handlers.outcomes import Followed, RecordOutcome
from tests.shared.events import stock_counted, tenant_updated
from tests.unit.joint.provider import Intent, Provider
from tests.unit.memory import NOW, TENANT, Memory

SHELF = 10
LATEST = timedelta(minutes=12)
"""So much later a call may still have its effect (`SURE_AFTER`)."""
LOSABLE = (PaymentAuthorized, OrderConfirmed, PaymentVoidRequested, OrderStatusAsked, OrderStatusTold)
"""What may be lost for good, in a restore that is a moment too old: somebody asks again for each of them."""
NOT_PUT = Rejected(NOT_WANTED, "")
"""What is recorded of a confirm that is not sent."""

Key = tuple[str, str, str]


class FindingError(AssertionError):
    """A promise that a walk has broken."""


@dataclass
class Settings:
    """What a world is like, beside what happens in it."""

    by_hand: bool
    """People act at the provider's dashboard and on our API."""
    lapses: bool
    """Holds end before their time."""
    on_shipment: bool
    loses: bool
    """Messages are lost for good."""
    settles_in: str


@dataclass
class House:
    """Both services, the provider, and all that is under way between them."""

    settings: Settings
    chance: random.Random
    provider: Provider
    checkout: Memory = field(default_factory=lambda: Memory(CHECKOUT))
    payments: Memory = field(default_factory=lambda: Memory(PAYMENTS))
    now: datetime = NOW
    queues: dict[Key, deque[Any]] = field(default_factory=lambda: defaultdict(deque))
    delivered: list[tuple[str, Any]] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    unwanted: set[UUID] = field(default_factory=set)
    """Payments that payments has heard nobody wants any more."""
    bereft: set[UUID] = field(default_factory=set)
    """Checkouts and payments of which a message was lost for good."""
    overtaken: set[UUID] = field(default_factory=set)
    """Orders of whose refund was heard before there was an order: somebody gave it back while it was being paid."""
    valid_until: dict[UUID, datetime] = field(default_factory=dict)
    """Until when a checkout's prices hold."""
    _read: dict[str, int] = field(default_factory=lambda: {"checkout": 0, "payments": 0})

    def open_up(self) -> None:
        """A tenant, and goods on its shelf."""
        chosen = {"capture": "on-shipment"} if self.settings.on_shipment else {}
        for memory in (self.checkout, self.payments):
            memory.execute(tenant_updated(TENANT, settings=chosen), now=self.now)
        self.checkout.execute(stock_counted("tea", SHELF), now=self.now)
        self.send_out()

    def note(self, text: str) -> None:
        self.story.append(text)

    def fail(self, text: str) -> None:
        raise FindingError(text)

    # --- What is where -------------------------------------------------------------------------------------------

    def order_of(self, checkout_id: UUID) -> Order | None:
        return next((each for each in self.checkout.all(Order) if each.checkout_id == checkout_id), None)

    def payment_of(self, checkout: Checkout) -> Payment | None:
        found = self.payments.rows.get((Payment, TENANT, checkout.payment_id))
        return found if isinstance(found, Payment) else None

    def intent_of(self, payment: Payment | None) -> Intent | None:
        return self.provider.intents.get(payment.intent_id or "") if payment else None

    def open_operations(self) -> list[Operation]:
        return [each for each in self.payments.all(Operation) if each.state in OPEN]

    # --- Messages ------------------------------------------------------------------------------------------------

    def send_out(self) -> None:
        """Take what both have published to whoever has a handler for it."""
        for name, memory in (("checkout", self.checkout), ("payments", self.payments)):
            fresh = memory.outbox[self._read[name] :]
            self._read[name] = len(memory.outbox)
            for published in fresh:
                self.judge_said(published.event)
                self.publish(published.event, published.aggregate_id)

    def publish(self, event: Event, key: str) -> None:
        for consumer, handlers in (("checkout", CHECKOUT), ("payments", PAYMENTS)):
            if type(event) in handlers.table:
                self.queues[consumer, event.TOPIC, key].append(event)

    def waiting(self) -> list[Key]:
        return [key for key, queue in self.queues.items() if queue]

    def deliver(self, key: Key) -> None:
        """Hand on the oldest message of a key."""
        event = self.queues[key].popleft()
        if self.settings.loses and isinstance(event, LOSABLE) and self.chance.random() < 0.05 and self._may_lose(event):
            self.bereft |= {event.checkout_id, event.payment_id}
            self.note(f"{event.TYPE} is LOST")
            return
        self.delivered.append((key[0], event))
        self.hand(key[0], event)

    def _may_lose(self, event: Any) -> bool:
        """Of a checkout that is over nobody asks again for money to be let go of."""
        if not isinstance(event, PaymentVoidRequested):
            return True
        return not self.checkout.get(Checkout, event.checkout_id).is_final

    def hand(self, consumer: str, event: Any) -> None:
        """Have it handled. What a house like this parks is a finding: nothing strange comes in."""
        self.note(f"{consumer} hears {event.TYPE} {getattr(event, 'status', getattr(event, 'reason', ''))}")
        memory = self.checkout if consumer == "checkout" else self.payments
        try:
            memory.execute(event, now=self.now)
        except CartwrightError as error:
            if event.TOPIC == "fulfilment.v1" and isinstance(error, ConflictError | RejectedError | NotFoundError):
                self.note(f"  parked: {error}")  # goods that left although their order is off: a person looks
                return
            self.fail(f"{consumer} parks {event.TYPE}: {error}")
        self.listen(event)
        self.send_out()

    def listen(self, event: Any) -> None:
        """What the walk itself makes of what was heard."""
        match event:
            case RefundSucceeded() if (Order, TENANT, event.order_id) not in self.checkout.rows:
                self.overtaken.add(event.order_id)
            case PaymentVoidRequested() | OrderCanceled():
                self.unwanted.add(event.payment_id)
            case OrderConfirmed():
                self.unwanted.discard(event.payment_id)
            case OrderStatusTold(status="confirmed"):
                self.unwanted.discard(event.payment_id)
            case _:
                pass

    def judge_said(self, event: Event) -> None:
        """What must be true when it is said."""
        if isinstance(event, PaymentRequested):
            until = self.valid_until.get(event.checkout_id)
            if until is not None and until <= self.now:
                self.fail("money is asked for at prices that are over")

    # --- Commands and time ---------------------------------------------------------------------------------------

    def try_to(self, memory: Memory, command: Any) -> Any:
        """Ask for something that may be refused."""
        name = type(command).__name__
        try:
            answer = memory.execute(command, now=self.now)
        except (ConflictError, NotFoundError, RejectedError) as error:
            self.note(f"{name} is refused: {error.code}")
            return None
        self.note(f"{name} {getattr(command, 'amount_minor', '') or ''} is done")
        self.send_out()
        return answer

    def wake(self) -> None:
        """Every timer that is due fires. By now the provider has done what it ever will of what it answered with a failure."""
        if self.now - self.provider.now >= LATEST:
            self.provider.come_late()
        self.provider.now = self.now
        for (name, key), at in list(self.checkout.timers.items()):
            if name == TIMER and at <= self.now:
                del self.checkout.timers[name, key]
                came_to = self.checkout.execute(WakeCheckout(checkout_id=key), now=self.now)
                self.note(f"the checkout's timer fires: {came_to}")
                self.send_out()

    # --- Calls ---------------------------------------------------------------------------------------------------

    def ask(self, operation: Operation) -> Outcome:
        """Send and, where the answer does not say enough, read."""
        payment = self.payments.get(Payment, operation.payment_id)
        if operation.kind is OperationKind.CONFIRM and payment.is_unwanted:
            return NOT_PUT
        outcome = self.send(operation)
        if not wants_reading(operation, outcome):
            return outcome
        return conclude(operation, outcome, self.provider.read(operation))

    def send(self, operation: Operation) -> Outcome:
        if not operation.may_send(self.now):
            return Unknown("the key is too old", stored=True)
        before = sum(each.attempt_count for each in self.provider.intents.values())
        outcome = self.provider.send(operation)
        put = sum(each.attempt_count for each in self.provider.intents.values()) > before
        if put and operation.kind is OperationKind.CONFIRM and operation.payment_id in self.unwanted:
            self.fail("a card is put to its issuer for what nobody wants any more")
        return outcome

    def follow(self, operation: Operation, outcome: Outcome, *, is_lost: bool) -> Followed | None:
        """The confirm that goes out as soon as its create is answered."""
        then = following(operation, outcome)
        if then is None or not isinstance(outcome, Succeeded):
            return None
        came_to = self.ask(then)
        if came_to is NOT_PUT:
            return None
        return Followed(made=outcome, outcome=Unknown("timeout") if is_lost else came_to, calls=())

    def record(self, operation: Operation, outcome: Outcome, followed: Followed | None = None) -> bool:
        """Take note of what one try came to; answers whether it counted."""
        counted = bool(self.payments.execute(RecordOutcome.of(operation, outcome, followed=followed), now=self.now))
        what = f"{outcome.status}" if isinstance(outcome, Succeeded) else f"{outcome}"
        then = f", then {followed.outcome}" if followed else ""
        self.note(f"{operation.kind} (key {operation.attempt}, try {operation.tries}): {what}{then}{'' if counted else ', late'}")
        self.send_out()
        return counted

    def claim(self, operation: Operation) -> None:
        """As the recovery's SQL does, of one that is still open."""
        stored = self.payments.rows.get((Operation, TENANT, operation.id))
        if isinstance(stored, Operation) and stored.state in OPEN:
            taken = replace(stored, tries=stored.tries + 1, version=stored.version + 1)
            self.payments.rows[Operation, TENANT, operation.id] = taken

    def check_rows(self) -> None:
        """What the database's constraints say as well."""
        for payment in self.payments.all(Payment):
            back = payment.refunding_minor + payment.refunded_minor
            if not 0 <= back <= payment.captured_minor <= payment.authorized_minor <= payment.amount_minor:
                self.fail(f"amounts that cannot be: {payment}")
            opened = [each.id for each in self.open_operations() if each.payment_id == payment.id and each.refund_id is None]
            if opened != ([payment.operation_id] if payment.operation_id else []):
                self.fail(f"a payment that is {payment.state} waits for another operation than is open")
            if payment.state is PaymentState.UNKNOWN and payment.operation_id is None:
                self.fail("an unknown outcome that nobody looks into")
