"""Changes as journal records, and back: only what a change touched is written."""

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
    """Return what a journal line says of a change."""
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
    return Change(
        intent=_intent(record.get("intent")),
        charge=_charge(record.get("charge")),
        refund=_refund(record.get("refund")),
        disputes=tuple(_dispute(dispute) for dispute in record.get("disputes", ())),
        transactions=tuple(Transaction(**transaction) for transaction in record.get("transactions", ())),
        endpoint=_endpoint(record.get("endpoint")),
        events=tuple(record.get("events", ())),
    )


def _intent(record: Record | None) -> Intent | None:
    if record is None:
        return None
    challenge = record.get("challenge")
    read = {
        "status": Status(record["status"]),
        "last_error": _decline(record["last_error"]),
        "challenge": None if challenge is None else Challenge(**challenge),
    }
    return Intent(**{**record, **read})


def _charge(record: Record | None) -> Charge | None:
    if record is None:
        return None
    known = dict(record)
    for gone in ("released", "amount_released"):  # of journals from when a release counted as a refund
        known.pop(gone, None)
    return Charge(**{**known, "decline": _decline(record["decline"])})


def _refund(record: Record | None) -> Refund | None:
    return None if record is None else Refund(**{**record, "status": RefundStatus(record["status"])})


def _dispute(record: Record) -> Dispute:
    read = {"status": DisputeStatus(record["status"]), "transactions": tuple(record["transactions"])}
    return Dispute(**{**record, **read})


def _endpoint(record: Record | None) -> WebhookEndpoint | None:
    if record is None:
        return None
    read = {name: tuple(record[name]) for name in ("secrets", "enabled_events")}
    return WebhookEndpoint(**{**record, **read})


def _decline(record: Record | None) -> Decline | None:
    return None if record is None else Decline(**record)
