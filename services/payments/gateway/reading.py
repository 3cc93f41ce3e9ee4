"""What Stripe's objects say, in our words. Plain JSON in and outcomes out: no SDK, so that an API process need not load it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import NotRequired, TypedDict

from services.payments.domain.provider.outcome import (
    Declined,
    DisputeStatus,
    Exchange,
    IntentStatus,
    Outcome,
    RefundStatus,
    SeenDispute,
    SeenIntent,
    SeenRefund,
    SeenTransaction,
    Succeeded,
    TransactionKind,
    Unknown,
)

INTENT_STATUSES = MappingProxyType(
    {
        "requires_payment_method": IntentStatus.NEEDS_METHOD,
        "requires_confirmation": IntentStatus.NEEDS_CONFIRMATION,
        "requires_action": IntentStatus.NEEDS_ACTION,
        "processing": IntentStatus.PROCESSING,
        "requires_capture": IntentStatus.AUTHORIZED,
        "succeeded": IntentStatus.CAPTURED,
        "canceled": IntentStatus.CANCELED,
    }
)
REFUND_STATUSES = MappingProxyType({str(status): status for status in RefundStatus})
DISPUTE_STATUSES = MappingProxyType({str(status): status for status in DisputeStatus})
"""Of these two ours have Stripe's names."""
_TRANSACTION_KINDS = MappingProxyType(
    {
        "charge": TransactionKind.CHARGE,
        "payment": TransactionKind.CHARGE,
        "refund": TransactionKind.REFUND,
        "payment_refund": TransactionKind.REFUND,
        "refund_failure": TransactionKind.REFUND_FAILURE,
        "payment_failure_refund": TransactionKind.REFUND_FAILURE,
        "stripe_fee": TransactionKind.FEE,
        "dispute": TransactionKind.DISPUTE,
        "dispute_reversal": TransactionKind.DISPUTE_REVERSAL,
        "fee": TransactionKind.FEE,
    }
)
"""By the transaction's `type`; for an `adjustment`, which may be many things, by its `reporting_category`."""

FORBIDDEN = "forbidden"
_REJECTIONS: Mapping[str, str] = {
    "payment_intent_unexpected_state": "wrong-state",
    "resource_missing": "not-found",
    "amount_too_small": "amount-out-of-range",
    "amount_too_large": "amount-out-of-range",
    "parameter_invalid_integer": "amount-out-of-range",
    "charge_already_refunded": "already-refunded",
    "charge_disputed": "disputed",
}

REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
"""What Stripe takes as a reason of a refund; ours is kept with it in any case."""
API_KEY = re.compile(r"(sk|rk)_[A-Za-z0-9_]{8,250}")
WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{8,250}")
ACCOUNT_ID = re.compile(r"acct_[A-Za-z0-9]{4,250}")


def is_live(api_key: str) -> bool:
    """Whether a key moves real money."""
    return api_key.startswith(("sk_live_", "rk_live_"))


class Transaction(TypedDict):
    """What we read of a BalanceTransaction."""

    id: str
    type: str
    amount: int
    fee: int
    net: int
    currency: str
    created: int
    exchange_rate: NotRequired[float | None]
    reporting_category: NotRequired[str]
    source: NotRequired[Mapping[str, str] | str | None]


class Charge(TypedDict):
    """What we read of a Charge."""

    id: str
    payment_method_details: NotRequired[Mapping[str, Mapping[str, int]] | None]
    balance_transaction: NotRequired[Transaction | str | None]
    disputed: NotRequired[bool]


class Problem(TypedDict):
    """What we read of a decline."""

    code: NotRequired[str | None]
    decline_code: NotRequired[str | None]
    charge: NotRequired[str | None]


class Intent(TypedDict):
    """What we read of a PaymentIntent."""

    id: str
    status: str
    amount: int
    amount_capturable: int
    amount_received: int
    currency: str
    created: int
    metadata: NotRequired[Mapping[str, str]]
    client_secret: NotRequired[str | None]
    last_payment_error: NotRequired[Problem | None]
    latest_charge: NotRequired[Charge | str | None]
    next_action: NotRequired[Mapping[str, Mapping[str, str]] | None]


class Refund(TypedDict):
    """What we read of a Refund."""

    id: str
    status: str
    amount: int
    currency: str
    created: int
    payment_intent: NotRequired[str | None]
    charge: NotRequired[str | None]
    failure_reason: NotRequired[str | None]
    balance_transaction: NotRequired[Transaction | str | None]
    failure_balance_transaction: NotRequired[Transaction | str | None]
    metadata: NotRequired[Mapping[str, str] | None]


class Dispute(TypedDict):
    """What we read of a Dispute."""

    id: str
    status: str
    amount: int
    currency: str
    reason: str
    created: int
    payment_intent: NotRequired[str | None]
    charge: NotRequired[str | None]
    evidence_details: NotRequired[Mapping[str, int | None] | None]
    balance_transactions: NotRequired[Iterable[Transaction]]


def read_intent(answer: Intent) -> Outcome:
    """Where a payment stands; one that came back from the issuer without money is `Declined`."""
    status = INTENT_STATUSES.get(answer["status"])
    if status is None:
        return Unknown(f"status {answer['status']}")
    problem = answer.get("last_payment_error")
    charge = answer.get("latest_charge")
    if status is IntentStatus.NEEDS_METHOD and problem is not None:
        return Declined(decline_code(problem), answer["id"], problem.get("charge") or _id_of(charge))
    return Succeeded(
        intent_id=answer["id"],
        status=status,
        amount_minor=answer["amount"],
        currency=answer["currency"],
        amount_capturable_minor=answer["amount_capturable"],
        amount_received_minor=answer["amount_received"],
        charge_id=_id_of(charge),
        expires_at=_expires_at(charge) if status is IntentStatus.AUTHORIZED else None,
        client_secret=answer.get("client_secret"),
        action_url=_action_url(answer),
        fee_minor=_fee(charge),
        transaction_id=_transaction_id(charge),
        disputed=isinstance(charge, Mapping) and bool(charge.get("disputed")),
        exchange=_exchange(charge.get("balance_transaction"), answer["currency"]) if isinstance(charge, Mapping) else None,
    )


def decline_code(problem: Problem) -> str:
    """The most precise reason that is given."""
    return problem.get("decline_code") or problem.get("code") or "declined"


def _id_of(expandable: Charge | str | None) -> str | None:
    return expandable["id"] if isinstance(expandable, Mapping) else expandable


def _expires_at(charge: Charge | str | None) -> datetime | None:
    if not isinstance(charge, Mapping):
        return None
    details = charge.get("payment_method_details") or {}
    return _moment(details.get("card", {}).get("capture_before"))


def _fee(charge: Charge | str | None) -> int | None:
    transaction = charge.get("balance_transaction") if isinstance(charge, Mapping) else None
    return transaction["fee"] if isinstance(transaction, Mapping) else None


def _transaction_id(charge: Charge | str | None) -> str | None:
    transaction = charge.get("balance_transaction") if isinstance(charge, Mapping) else None
    return transaction["id"] if isinstance(transaction, Mapping) else transaction


def _exchange(transaction: Transaction | str | None, currency: str) -> Exchange | None:
    """What a movement came to, where the account is settled in another currency than this, as far as that was told."""
    if not isinstance(transaction, Mapping) or transaction["currency"] == currency:
        return None
    return Exchange(transaction["id"], abs(transaction["amount"]), transaction["currency"], _rate(transaction))


def _rate(transaction: Transaction) -> str | None:
    """The number as Stripe writes it: the shortest that reads as this one, and never with an exponent."""
    rate = transaction.get("exchange_rate")
    return None if rate is None else format(Decimal(str(rate)), "f")


def _action_url(answer: Intent) -> str | None:
    action = answer.get("next_action") or {}
    redirect = action.get("redirect_to_url") or {}
    inside = action.get("use_stripe_sdk") or {}
    # Asked without a way back, the bank's page is what Stripe.js would open in a frame.
    framed = inside.get("stripe_js") if inside.get("type") == "three_d_secure_redirect" else None
    return redirect.get("url") or framed


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else _at(seconds)


def seen_intent(answer: Intent) -> SeenIntent | None:
    """A payment of a list; None where it stands somewhere that we know nothing of."""
    status = INTENT_STATUSES.get(answer["status"])
    if status is None:
        return None
    charge = answer.get("latest_charge")
    return SeenIntent(
        intent_id=answer["id"],
        status=status,
        amount_minor=answer["amount"],
        currency=answer["currency"],
        amount_capturable_minor=answer["amount_capturable"],
        amount_received_minor=answer["amount_received"],
        metadata=answer.get("metadata") or {},
        created_at=_at(answer["created"]),
        charge_id=_id_of(charge),
        expires_at=_expires_at(charge) if status is IntentStatus.AUTHORIZED else None,
        fee_minor=_fee(charge),
        disputed=isinstance(charge, Mapping) and bool(charge.get("disputed")),
    )


def read_refund(answer: Refund) -> SeenRefund | Unknown:
    """Where a refund stands."""
    status = REFUND_STATUSES.get(answer["status"])
    if status is None:
        return Unknown(f"status {answer['status']}")
    return SeenRefund(
        provider_id=answer["id"],
        intent_id=answer.get("payment_intent"),
        charge_id=answer.get("charge"),
        amount_minor=answer["amount"],
        currency=answer["currency"],
        status=status,
        failure_code=answer.get("failure_reason"),
        metadata=answer.get("metadata") or {},
        created_at=_at(answer["created"]),
        exchange=_exchange(answer.get("balance_transaction"), answer["currency"]),
        return_exchange=_exchange(answer.get("failure_balance_transaction"), answer["currency"]),
    )


def read_dispute(answer: Dispute) -> SeenDispute | Unknown:
    """Where a dispute stands, and what it moved: the money that was taken is negative in its transactions."""
    status = DISPUTE_STATUSES.get(answer["status"])
    if status is None:
        return Unknown(f"status {answer['status']}")
    moved = list(answer.get("balance_transactions", ()))
    taken = [transaction for transaction in moved if transaction["amount"] < 0]
    returned = [transaction for transaction in moved if transaction["amount"] > 0]
    return SeenDispute(
        provider_id=answer["id"],
        intent_id=answer.get("payment_intent"),
        charge_id=answer.get("charge"),
        amount_minor=answer["amount"],
        currency=answer["currency"],
        status=status,
        reason=answer["reason"],
        respond_by=_moment((answer.get("evidence_details") or {}).get("due_by")),
        withdrawn_minor=sum(_disputed(answer, transaction) for transaction in taken),
        reinstated_minor=sum(_disputed(answer, transaction) for transaction in returned),
        fee_minor=sum(transaction["fee"] for transaction in moved),
        created_at=_at(answer["created"]),
        fee_currency=next((each["currency"] for each in moved if each["currency"] != answer["currency"]), None),
        withdrawals=_exchanges(answer, taken),
        reinstatements=_exchanges(answer, returned),
    )


def _disputed(answer: Dispute, transaction: Transaction) -> int:
    """What a movement took or gave in the dispute's currency. In another it moves the whole disputed amount at once."""
    return abs(transaction["amount"]) if transaction["currency"] == answer["currency"] else answer["amount"]


def _exchanges(answer: Dispute, moved: Iterable[Transaction]) -> tuple[Exchange, ...]:
    found = (_exchange(transaction, answer["currency"]) for transaction in moved)
    return tuple(exchange for exchange in found if exchange is not None)


def read_transaction(answer: Transaction) -> SeenTransaction:
    """One movement of the balance."""
    name = answer.get("reporting_category", "") if answer["type"] == "adjustment" else answer["type"]
    source = answer.get("source")
    return SeenTransaction(
        provider_id=answer["id"],
        kind=_TRANSACTION_KINDS.get(name, TransactionKind.OTHER),
        source_id=source["id"] if isinstance(source, Mapping) else source,
        amount_minor=answer["amount"],
        fee_minor=answer["fee"],
        net_minor=answer["net"],
        currency=answer["currency"],
        created_at=_at(answer["created"]),
        rate=_rate(answer),
    )


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def rejection(http_status: int | None, code: str | None) -> str:
    """What Stripe refused, in our words."""
    if http_status in {401, 403}:
        return "unauthorized" if http_status == 401 else FORBIDDEN
    return _REJECTIONS.get(code or "", "invalid-request")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """In how many seconds to try again, if that was said."""
    value = headers.get("Retry-After")
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def between(since: datetime, until: datetime | None) -> dict[str, int]:
    """A range of whole seconds, the first included and the last not."""
    bounds = {"gte": int(since.timestamp())}
    return bounds if until is None else {**bounds, "lt": int(until.timestamp())}
