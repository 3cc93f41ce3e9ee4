"""The provider as its documentation has it: objects with states, answers kept by their key, and a balance in its own currency.

It always does what it says. What becomes of its word on the way to us is the walk's business.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.payments.domain.provider.operation import SURE_AFTER, Operation, OperationKind
from services.payments.domain.provider.outcome import (
    Declined,
    DisputeStatus,
    Exchange,
    IntentStatus,
    Outcome,
    RefundStatus,
    Rejected,
    SeenDispute,
    SeenRefund,
    Succeeded,
    Unknown,
)

KEPT = timedelta(hours=24)
"""After so long a key is forgotten, and what comes under it is done again."""
FEE_MINOR, DISPUTE_FEE_MINOR = 20, 1_500
RATE_PERCENT = 118
ENDED = frozenset({IntentStatus.CAPTURED, IntentStatus.CANCELED})
OPEN_TO_PAYER = frozenset({IntentStatus.NEEDS_ACTION, IntentStatus.NEEDS_METHOD})
MOVED = (RefundStatus.SUCCEEDED, RefundStatus.PENDING)


@dataclass
class Intent:
    """The provider's payment."""

    id: str
    payment_id: str
    amount_minor: int
    confirms_at_client: bool
    status: IntentStatus
    held_minor: int = 0
    received_minor: int = 0
    attempt_count: int = 0
    """How often a method was put to its issuer."""
    capture_count: int = 0
    newest_minor: int = 0
    """What the newest capture took."""
    is_contested: bool = False


@dataclass
class Provider:
    """One account. `settles_in` is its currency; what it takes in pounds it exchanges into that."""

    chance: random.Random
    way: str
    settles_in: str
    now: datetime
    intents: dict[str, Intent] = field(default_factory=dict)
    refunds: dict[str, SeenRefund] = field(default_factory=dict)
    disputes: dict[str, SeenDispute] = field(default_factory=dict)
    balance: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By payment and currency."""
    answers: dict[str, tuple[datetime, Outcome]] = field(default_factory=dict)
    late: dict[str, Operation] = field(default_factory=dict)
    """Answered with a failure already, and yet to be done."""

    # --- What we ask of it ------------------------------------------------------------------------------------

    def send(self, operation: Operation) -> Outcome:
        """Act once for each key, as long as it is remembered."""
        if operation.unknown_count >= SURE_AFTER - 1:
            self.come_late()
        known = self.answers.get(operation.idempotency_key)
        if known is not None and self.now - known[0] < KEPT:
            answer = known[1]
            return replace(answer, stored=True) if isinstance(answer, Unknown) else answer
        answer = self._act(operation)
        self.answers[operation.idempotency_key] = (self.now, answer)
        return answer

    def fail(self, operation: Operation, effect: str) -> None:
        """Answer with a 500 for ever: the effect came before, comes later or never."""
        if operation.idempotency_key in self.answers:
            return
        if effect == "before":
            self._act(operation)
        elif effect == "later":
            self.late[operation.idempotency_key] = operation
        self.answers[operation.idempotency_key] = (self.now, Unknown("http-500"))

    def come_late(self) -> None:
        """Do what was answered with a failure."""
        for operation in self.late.values():
            self._act(operation)
        self.late.clear()

    def read(self, operation: Operation) -> Outcome:
        """The object of an operation, looked for by our id where its own is not known."""
        nothing = Rejected("not-found", "")
        if operation.refund_id is not None:
            return next((each for each in self.refunds.values() if _refund_id(each) == str(operation.refund_id)), nothing)
        if operation.intent_id is not None:
            return self.seen(self.intents[operation.intent_id])
        found = (each for each in self.intents.values() if each.payment_id == str(operation.payment_id))
        return next((self.seen(each) for each in found), nothing)

    def seen(self, intent: Intent) -> Succeeded | Declined:
        """How it stands, as we are told."""
        charge_id = f"ch_{intent.id}_{intent.attempt_count}" if intent.attempt_count else None
        if intent.status is IntentStatus.NEEDS_METHOD and charge_id:
            return Declined("generic_decline", intent.id, charge_id)
        movement = f"txn_{intent.id}_{intent.capture_count}"
        return Succeeded(
            intent_id=intent.id,
            status=intent.status,
            amount_minor=intent.amount_minor,
            currency="gbp",
            amount_capturable_minor=intent.held_minor,
            amount_received_minor=intent.received_minor,
            charge_id=charge_id,
            fee_minor=FEE_MINOR if intent.capture_count else None,
            transaction_id=movement if intent.capture_count else None,
            exchange=self._exchange(movement, intent.newest_minor) if intent.capture_count else None,
        )

    def _act(self, operation: Operation) -> Outcome:
        if operation.kind is OperationKind.CREATE:
            return self._create(operation.request, str(operation.payment_id))
        intent = self.intents[operation.request["intent_id"]]
        match operation.kind:
            case OperationKind.CONFIRM if intent.status is IntentStatus.NEEDS_CONFIRMATION:
                if self.way == "challenges":
                    intent.status = IntentStatus.NEEDS_ACTION
                else:
                    self.charge(intent, is_held=self.way != "declines")
            case OperationKind.CAPTURE if intent.status is IntentStatus.AUTHORIZED:
                if self.way == "uncapturable":
                    return Declined("card_declined", intent.id)
                if operation.request["amount_minor"] > intent.held_minor:
                    return Rejected("invalid-request", "")
                self.capture(intent, operation.request["amount_minor"], final=operation.request["final"])
            case OperationKind.CANCEL if intent.status not in ENDED and not intent.received_minor:
                self.lapse(intent)
            case OperationKind.REFUND:
                return self._give_back(intent, operation.request)
            case _:
                return Rejected("wrong-state", "")
        return self.seen(intent)

    def _create(self, request: Mapping[str, object], payment_id: str) -> Outcome:
        is_client = request["confirmation"] == "client"
        status = IntentStatus.NEEDS_METHOD if is_client else IntentStatus.NEEDS_CONFIRMATION
        amount_minor = int(str(request["amount_minor"]))
        intent = Intent(f"pi_{len(self.intents)}", payment_id, amount_minor, is_client, status)
        self.intents[intent.id] = intent
        return self.seen(intent)

    # --- What happens there, by our doing or without it -------------------------------------------------------

    def charge(self, intent: Intent, *, is_held: bool) -> None:
        """Put the method to its issuer."""
        intent.attempt_count += 1
        intent.held_minor = intent.amount_minor if is_held else 0
        intent.status = IntentStatus.AUTHORIZED if is_held else IntentStatus.NEEDS_METHOD

    def capture(self, intent: Intent, amount_minor: int, *, final: bool) -> None:
        """Take so much of what is held; a final capture lets go of the rest."""
        intent.received_minor += amount_minor
        intent.held_minor -= amount_minor
        if amount_minor:
            intent.capture_count, intent.newest_minor = intent.capture_count + 1, amount_minor
            self._move(intent.payment_id, amount_minor, fee_minor=FEE_MINOR)
        if final or not intent.held_minor:
            intent.held_minor, intent.status = 0, IntentStatus.CAPTURED

    def lapse(self, intent: Intent) -> None:
        """Hold nothing any more."""
        intent.held_minor, intent.status = 0, IntentStatus.CAPTURED if intent.received_minor else IntentStatus.CANCELED

    def left_minor(self, intent: Intent) -> int:
        """What was taken and has not gone back, nor is on its way."""
        return intent.received_minor - self.given_minor(intent, *MOVED)

    def given_minor(self, intent: Intent, *statuses: RefundStatus) -> int:
        """What went back."""
        mine = (each for each in self.refunds.values() if each.intent_id == intent.id)
        return sum(each.amount_minor for each in mine if each.status in statuses)

    def _give_back(self, intent: Intent, request: Mapping[str, object]) -> Outcome:
        amount_minor, metadata = int(str(request["amount_minor"])), request["metadata"]
        assert isinstance(metadata, Mapping)
        if self.left_minor(intent) < amount_minor or intent.is_contested:
            return Rejected("invalid-request", "")
        status = self.chance.choice([RefundStatus.SUCCEEDED] * 4 + [RefundStatus.PENDING, RefundStatus.FAILED])
        return self.refund(intent, amount_minor, status, metadata)

    def refund(self, intent: Intent, amount_minor: int, status: RefundStatus, metadata: Mapping[str, str]) -> SeenRefund:
        """Make one."""
        provider_id = f"re_{len(self.refunds)}"
        refund = SeenRefund(
            provider_id=provider_id,
            intent_id=intent.id,
            charge_id=None,
            amount_minor=amount_minor,
            currency="gbp",
            status=RefundStatus.PENDING,
            failure_code=None,
            metadata=metadata,
            created_at=self.now,
            exchange=self._exchange(f"txn_{provider_id}", amount_minor),
            return_exchange=self._exchange(f"txn_{provider_id}_back", amount_minor),
        )
        self.refunds[provider_id] = refund
        return self.move_refund(refund, status)

    def move_refund(self, refund: SeenRefund, status: RefundStatus) -> SeenRefund:
        """It succeeds or fails, and the balance with it."""
        payment_id = self.intents[refund.intent_id or ""].payment_id
        if status is RefundStatus.SUCCEEDED:
            self._move(payment_id, -refund.amount_minor)
        elif status is RefundStatus.FAILED and refund.status is RefundStatus.SUCCEEDED:
            self._move(payment_id, refund.amount_minor)
        code = "lost_or_stolen_card" if status is RefundStatus.FAILED else None
        moved = self.refunds[refund.provider_id] = replace(refund, status=status, failure_code=code)
        return moved

    def contest(self, intent: Intent) -> SeenDispute:
        """The buyer's bank takes back what was taken and did not go back."""
        intent.is_contested = True
        amount_minor, provider_id = self.left_minor(intent), f"du_{len(self.disputes)}"
        movement = self._exchange(f"txn_{provider_id}", amount_minor)
        dispute = SeenDispute(
            provider_id=provider_id,
            intent_id=intent.id,
            charge_id=None,
            amount_minor=amount_minor,
            currency="gbp",
            status=DisputeStatus.NEEDS_RESPONSE,
            reason="fraudulent",
            respond_by=None,
            withdrawn_minor=amount_minor,
            reinstated_minor=0,
            fee_minor=DISPUTE_FEE_MINOR,
            created_at=self.now,
            fee_currency=self.settles_in,
            withdrawals=(movement,) if movement else (),
        )
        self.disputes[provider_id] = dispute
        self._move(intent.payment_id, -amount_minor, fee_minor=DISPUTE_FEE_MINOR)
        return dispute

    def decide(self, dispute: SeenDispute, *, is_won: bool) -> None:
        """The case is over; what was taken comes back, or does not."""
        status = DisputeStatus.WON if is_won else DisputeStatus.LOST
        decided = replace(dispute, status=status)
        if is_won:
            intent = self.intents[dispute.intent_id or ""]
            intent.is_contested = False
            self._move(intent.payment_id, dispute.amount_minor)
            movement = self._exchange(f"txn_{dispute.provider_id}_back", dispute.amount_minor)
            back = (movement,) if movement else ()
            decided = replace(decided, reinstated_minor=dispute.amount_minor, reinstatements=back)
        self.disputes[dispute.provider_id] = decided

    # --- Its balance --------------------------------------------------------------------------------------------

    def _move(self, payment_id: str, amount_minor: int, fee_minor: int = 0) -> None:
        own_minor = amount_minor if self.settles_in == "gbp" else _exchanged(amount_minor)
        self.balance[payment_id, self.settles_in.upper()] += own_minor - fee_minor

    def _exchange(self, reference: str, amount_minor: int) -> Exchange | None:
        if self.settles_in == "gbp":
            return None
        return Exchange(reference, _exchanged(amount_minor), self.settles_in, f"{RATE_PERCENT / 100}")


def _exchanged(amount_minor: int) -> int:
    """Rounded to nothing's side, and the same both ways."""
    whole = abs(amount_minor) * RATE_PERCENT // 100
    return whole if amount_minor >= 0 else -whole


def _refund_id(seen: SeenRefund) -> str | None:
    return seen.metadata.get("refund_id")
