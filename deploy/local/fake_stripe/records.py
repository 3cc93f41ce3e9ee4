"""What the fake knows, as frozen data: amounts in minor units, times in Unix seconds, states in Stripe's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """The seven states of a PaymentIntent."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_CONFIRMATION = "requires_confirmation"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    REQUIRES_CAPTURE = "requires_capture"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"


class RefundStatus(StrEnum):
    """The states of a card's refund; `requires_action` is known to other payment methods alone."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class DisputeStatus(StrEnum):
    """The states of a dispute; those named warning are an inquiry's, which holds no money back."""

    WARNING_NEEDS_RESPONSE = "warning_needs_response"
    WARNING_UNDER_REVIEW = "warning_under_review"
    WARNING_CLOSED = "warning_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Decline:
    """The last refusal, kept on the intent until it is confirmed again; without a charge when it was the challenge."""

    code: str
    decline_code: str | None
    message: str
    charge: str | None
    payment_method: str
    advice_code: str | None = None
    param: str | None = None
    kind: str = "card_error"
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """One attempt at the card: held, captured or failed. What is only let go of is no refund, and shows nowhere."""

    id: str
    payment_intent: str
    amount: int
    currency: str
    created: int
    payment_method: str
    metadata: dict[str, str]
    customer: str | None = None
    amount_captured: int = 0
    amount_refunded: int = 0
    capture_count: int = 0
    captured: bool = False
    disputed: bool = False
    multicapture: bool = False
    authenticated: bool = False
    capture_before: int | None = None
    balance_transaction: str | None = None
    description: str | None = None
    receipt_email: str | None = None
    decline: Decline | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """An authentication the cardholder has still to pass: the page it happens on, and where it leads."""

    url: str
    return_url: str | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One PaymentIntent."""

    id: str
    client_secret: str
    amount: int
    currency: str
    created: int
    status: Status
    capture_method: str
    confirmation_method: str
    metadata: dict[str, str]
    payment_method_types: list[str]
    automatic: bool
    allowed_payment_method_types: list[str] | None = None
    allow_redirects: str | None = None
    payment_method: str | None = None
    customer: str | None = None
    description: str | None = None
    receipt_email: str | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    multicapture: bool = False
    request_challenge: str | None = None
    amount_capturable: int = 0
    amount_received: int = 0
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    latest_charge: str | None = None
    last_error: Decline | None = None
    challenge: Challenge | None = None
    authenticated: bool = False


@dataclass(frozen=True, slots=True)
class Refund:
    """Money on its way back. `settles_at` is when a test card's refund turns into what it turns into."""

    id: str
    payment_intent: str
    charge: str
    amount: int
    currency: str
    created: int
    metadata: dict[str, str]
    status: RefundStatus
    reason: str | None = None
    failure_reason: str | None = None
    balance_transaction: str | None = None
    failure_balance_transaction: str | None = None
    settles_at: int | None = None


@dataclass(frozen=True, slots=True)
class Dispute:
    """A cardholder's case against a charge; `transactions` are the moves of money it caused."""

    id: str
    payment_intent: str
    charge: str
    payment_method: str
    amount: int
    currency: str
    created: int
    reason: str
    status: DisputeStatus
    due_by: int
    metadata: dict[str, str] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)
    submission_count: int = 0
    transactions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of the account's balance: what came or went, and what Stripe kept of it."""

    id: str
    amount: int
    fee: int
    currency: str
    created: int
    available_on: int
    type: str
    reporting_category: str
    source: str
    exchange_rate: str | None = None
    """At what the payment's currency was exchanged for this one: a decimal number in text."""

    @property
    def net(self) -> int:
        """What the balance changes by."""
        return self.amount - self.fee


@dataclass(frozen=True, slots=True)
class Settlement:
    """In which currency an account is settled, and what one unit of each other currency is worth in it."""

    currency: str
    rates: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Where events are sent. `secrets` sign, the newest first; the older ones only until `old_until`.

    A `connect` endpoint is told of the accounts that are connected to this one, any other of this one itself.
    A `template` endpoint is ours and not Stripe's: its URL holds `{names}` of metadata.
    """

    id: str
    url: str
    secrets: tuple[str, ...]
    enabled_events: tuple[str, ...]
    created: int
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    api_version: str | None = None
    enabled: bool = True
    old_until: int | None = None
    template: bool = False
    connect: bool = False
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What one call did: the objects as they are after it, and the types of the events that tell of it."""

    intent: Intent | None = None
    charge: Charge | None = None
    refund: Refund | None = None
    disputes: tuple[Dispute, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    endpoint: WebhookEndpoint | None = None
    events: tuple[str, ...] = ()
