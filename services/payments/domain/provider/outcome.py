"""What a call to the provider came to, in our words: what a gateway answers with, and what decisions are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from libs.common.json_text import keepable

SECRETS = frozenset({"client_secret", "action_url"})
"""What the payer alone may see: kept nowhere, read from the provider again when the payer asks."""


class IntentStatus(StrEnum):
    """Where the provider's payment stands."""

    NEEDS_METHOD = "needs_method"
    NEEDS_CONFIRMATION = "needs_confirmation"
    NEEDS_ACTION = "needs_action"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    CANCELED = "canceled"


class RefundStatus(StrEnum):
    """Where the provider's refund stands. One that succeeded may still fail later."""

    PENDING = "pending"
    REQUIRES_ACTION = "requires_action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class DisputeStatus(StrEnum):
    """Where the buyer's bank's case stands."""

    WARNING_NEEDS_RESPONSE = "warning_needs_response"
    WARNING_UNDER_REVIEW = "warning_under_review"
    WARNING_CLOSED = "warning_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    PREVENTED = "prevented"


class TransactionKind(StrEnum):
    """Why the balance at the provider moved."""

    CHARGE = "charge"
    REFUND = "refund"
    REFUND_FAILURE = "refund_failure"
    DISPUTE = "dispute"
    DISPUTE_REVERSAL = "dispute_reversal"
    FEE = "fee"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a movement of the balance came to in the account's own currency, where that is not the payment's."""

    reference: str
    """What the provider calls the movement."""
    amount_minor: int
    """In minor units of `currency`, without a sign."""
    currency: str
    """In lower case, as everywhere at the provider's."""
    rate: str | None
    """What the provider exchanged at: a decimal number in text."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The provider did as asked (or was read); amounts in minor units of the lower-case ISO 4217 `currency`."""

    intent_id: str
    status: IntentStatus
    amount_minor: int
    currency: str
    amount_capturable_minor: int
    amount_received_minor: int
    charge_id: str | None = None
    expires_at: datetime | None = None
    """When an authorization lapses, as far as the provider told with this answer."""
    client_secret: str | None = field(default=None, repr=False)
    action_url: str | None = field(default=None, repr=False)
    """Where the payer completes a challenge, while the status is `needs_action`."""
    fee_minor: int | None = None
    """What the provider kept of the money it took, when the answer told; in the currency of `exchange`, if there is one."""
    transaction_id: str | None = None
    """The movement of the provider's balance that says so."""
    disputed: bool = False
    exchange: Exchange | None = None
    """What the newest capture came to in another currency."""


@dataclass(frozen=True, slots=True)
class SeenRefund:
    """A refund as the provider has it: what asking for one came to, or what was read of it."""

    provider_id: str
    intent_id: str | None
    charge_id: str | None
    amount_minor: int
    currency: str
    """In lower case, as everywhere at the provider's."""
    status: RefundStatus
    failure_code: str | None
    metadata: Mapping[str, str]
    created_at: datetime
    exchange: Exchange | None = None
    """What it took in another currency."""
    return_exchange: Exchange | None = None
    """What came back, in another currency, when it failed."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The issuer said no: final for this method, no money moved. `code` is the most precise reason known."""

    code: str
    intent_id: str | None
    charge_id: str | None = None
    """The charge that failed, if the provider told: it tells one decline of a payment from the next."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused the call itself: this call changed nothing, and the same one never will."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not have happened. Retry under the same key with the same parameters, or read the object."""

    reason: str
    stored: bool = False
    """The provider has stored this failure under the key (it said the answer was a replay): it will say nothing else."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """Turned away before anything ran; the same key may be sent again, after `retry_after` seconds if given."""

    retry_after: float | None


Outcome: TypeAlias = Succeeded | SeenRefund | Declined | Rejected | Unknown | Throttled


@dataclass(frozen=True, slots=True)
class SeenIntent:
    """A payment as the provider lists it."""

    intent_id: str
    status: IntentStatus
    amount_minor: int
    currency: str
    amount_capturable_minor: int
    amount_received_minor: int
    metadata: Mapping[str, str]
    created_at: datetime
    charge_id: str | None = None
    expires_at: datetime | None = None
    fee_minor: int | None = None
    disputed: bool = False


@dataclass(frozen=True, slots=True)
class SeenDispute:
    """A dispute as the provider has it, with the money it moved so far."""

    provider_id: str
    intent_id: str | None
    charge_id: str | None
    amount_minor: int
    currency: str
    status: DisputeStatus
    reason: str
    respond_by: datetime | None
    withdrawn_minor: int
    reinstated_minor: int
    fee_minor: int
    created_at: datetime
    fee_currency: str | None = None
    """None: that of the dispute."""
    withdrawals: tuple[Exchange, ...] = ()
    """What the whole disputed amount came to in another currency, each time it was taken."""
    reinstatements: tuple[Exchange, ...] = ()
    """The same, each time it was given back."""


@dataclass(frozen=True, slots=True)
class SeenTransaction:
    """One movement of the balance at the provider. `net_minor = amount_minor - fee_minor`, with the provider's signs."""

    provider_id: str
    kind: TransactionKind
    source_id: str | None
    amount_minor: int
    fee_minor: int
    net_minor: int
    currency: str
    created_at: datetime
    rate: str | None = None
    """What the provider exchanged at, if the payment is in another currency."""


LONGEST_TEXT = 500
"""Of what a provider says, so much is kept: no id, code or piece of metadata of any provider is longer."""
MOST_MINOR = 9_000_000_000_000_000
"""No amount is larger, in any currency."""

Told = TypeVar("Told", "Succeeded", "SeenRefund", "Declined", "Rejected", "Unknown", "Throttled", Outcome)


def as_kept(outcome: Told) -> Told | Unknown:
    """The same in a form that a column can keep and a message carry.

    Whatever else is wrong with an answer, what it comes to is recorded: text that cannot be kept is told in escapes and cut
    where it never ends. An amount that no money comes to is no answer.
    """
    members = {each.name: getattr(outcome, each.name) for each in fields(outcome)}
    if any(isinstance(value, int) and abs(value) > MOST_MINOR for value in members.values()):
        return Unknown(f"{name_of(outcome)}, with an amount beyond all bounds")
    kept = {name: _kept(value) for name, value in members.items() if name not in SECRETS}
    return replace(outcome, **{name: value for name, value in kept.items() if value is not members[name]})


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_kept(str(name)): _kept(str(each)) for name, each in value.items()}
    if value is None or isinstance(value, StrEnum | bool | int | float | datetime):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _kept(getattr(value, each.name)) for each in fields(value)})
    text = value if isinstance(value, str) else str(value)
    kept = keepable(text)
    return kept if len(kept) <= LONGEST_TEXT else kept[:LONGEST_TEXT]


def name_of(outcome: Outcome) -> str:
    """One word for logs, metrics and the order's story."""
    return "succeeded" if isinstance(outcome, SeenRefund) else type(outcome).__name__.lower()


def summary_of(outcome: Outcome) -> dict[str, Any]:
    """What is kept of an outcome: everything but the secrets."""
    members = {name: value for name, value in asdict(outcome).items() if value is not None and name not in SECRETS}
    return {"outcome": name_of(outcome), **members}
