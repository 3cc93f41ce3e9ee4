"""Objects and changes as JSON, and back: only what a change touched is written of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.local.fake_stripe.records import (
    Challenge,
    Change,
    Charge,
    Decline,
    Dispute,
    DisputeStatus,
    Intent,
    Refund,
    RefundStatus,
    Status,
    Transaction,
    WebhookEndpoint,
)

Record = Mapping[str, Any]


def change_record(change: Change) -> dict[str, Any]:
    """Return what is written of a change."""
    record: dict[str, Any] = {"events": change.events}
    if change.intent is not None:
        record["intent"] = change.intent
    if change.charge is not None:
        record["charge"] = change.charge
    if change.refund is not None:
        record["refund"] = change.refund
    if change.endpoint is not None:
        record["endpoint"] = change.endpoint
    if change.disputes:
        record["disputes"] = change.disputes
    if change.transactions:
        record["transactions"] = change.transactions
    return record


def change_from(record: Record) -> Change:
    """Read a change back."""
    intent, charge, refund = (record.get(name) for name in ("intent", "charge", "refund"))
    endpoint = record.get("endpoint")
    return Change(
        intent=intent and read_intent(intent),
        charge=charge and read_charge(charge),
        refund=refund and read_refund(refund),
        disputes=tuple(read_dispute(dispute) for dispute in record.get("disputes", ())),
        transactions=tuple(read_transaction(transaction) for transaction in record.get("transactions", ())),
        endpoint=endpoint and read_endpoint(endpoint),
        events=tuple(record.get("events", ())),
    )


def read_intent(record: Record) -> Intent:
    """Read an intent back."""
    challenge = record.get("challenge")
    read = {
        "status": Status(record["status"]),
        "last_error": _decline(record["last_error"]),
        "challenge": None if challenge is None else Challenge(**challenge),
    }
    return Intent(**{**record, **read})


def read_charge(record: Record) -> Charge:
    """Read a charge back."""
    known = dict(record)
    for gone in ("released", "amount_released"):  # of journals from when a release counted as a refund
        known.pop(gone, None)
    return Charge(**{**known, "decline": _decline(record["decline"])})


def read_refund(record: Record) -> Refund:
    """Read a refund back."""
    return Refund(**{**record, "status": RefundStatus(record["status"])})


def read_transaction(record: Record) -> Transaction:
    """Read a movement of money back."""
    return Transaction(**record)


def read_dispute(record: Record) -> Dispute:
    """Read a dispute back."""
    read = {"status": DisputeStatus(record["status"]), "transactions": tuple(record["transactions"])}
    return Dispute(**{**record, **read})


def read_endpoint(record: Record) -> WebhookEndpoint:
    """Read a webhook endpoint back."""
    read = {name: tuple(record[name]) for name in ("secrets", "enabled_events")}
    return WebhookEndpoint(**{**record, **read})


def _decline(record: Record | None) -> Decline | None:
    return None if record is None else Decline(**record)
