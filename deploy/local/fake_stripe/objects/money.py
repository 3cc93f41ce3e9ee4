"""Refunds, disputes, balance transactions and the balance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.disputes import WAITING, is_inquiry
from deploy.local.fake_stripe.records import Dispute, DisputeStatus, Refund, RefundStatus, Transaction

Json = dict[str, Any]

_EVIDENCE = (
    *("access_activity_log", "billing_address", "cancellation_policy", "cancellation_policy_disclosure"),
    *("cancellation_rebuttal", "customer_communication", "customer_email_address", "customer_name"),
    *("customer_purchase_ip", "customer_signature", "duplicate_charge_documentation", "duplicate_charge_explanation"),
    *("duplicate_charge_id", "product_description", "receipt", "refund_policy", "refund_policy_disclosure"),
    *("refund_refusal_explanation", "service_date", "service_documentation", "shipping_address", "shipping_carrier"),
    *("shipping_date", "shipping_documentation", "shipping_tracking_number", "uncategorized_file", "uncategorized_text"),
)
EVIDENCE = frozenset(_EVIDENCE)
_NETWORK_REASONS = {"fraudulent": "10.4", "product_not_received": "13.1", "product_unacceptable": "13.3", "duplicate": "12.6.1"}


def refund_object(refund: Refund) -> Json:
    """Render a Refund; the members that tell of a failure are there only when it failed, as with Stripe."""
    body: Json = {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": refund.balance_transaction,
        "charge": refund.charge,
        "created": refund.created,
        "currency": refund.currency,
        "destination_details": {"card": _destination(refund), "type": "card"},
        "metadata": refund.metadata,
        "payment_intent": refund.payment_intent,
        "reason": refund.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": refund.status,
        "transfer_reversal": None,
    }
    if refund.failure_balance_transaction is not None:
        body["failure_balance_transaction"] = refund.failure_balance_transaction
    if refund.failure_reason is not None:
        body["failure_reason"] = refund.failure_reason
    if refund.status is RefundStatus.PENDING:
        body["pending_reason"] = "processing"
    return body


def dispute_object(dispute: Dispute, transactions: Iterable[Transaction], now: int) -> Json:
    """Render a Dispute with the transactions it caused."""
    inquiry = is_inquiry(dispute)
    reason_code = _NETWORK_REASONS.get(dispute.reason)
    return {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": [transaction_object(transaction, now) for transaction in transactions],
        "charge": dispute.charge,
        "created": dispute.created,
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": {name: dispute.evidence.get(name) for name in _EVIDENCE} | {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": dispute.due_by if dispute.status in WAITING else None,
            "enhanced_eligibility": {},
            "has_evidence": bool(dispute.evidence),
            "past_due": now >= dispute.due_by,
            "submission_count": dispute.submission_count,
        },
        "is_charge_refundable": inquiry or dispute.status is DisputeStatus.WON,
        "livemode": False,
        "metadata": dispute.metadata,
        "payment_intent": dispute.payment_intent,
        "payment_method_details": {
            "card": {
                "brand": CARDS[dispute.payment_method].brand,
                "case_type": "inquiry" if inquiry else "chargeback",
                "network": CARDS[dispute.payment_method].brand,
                "network_reason_code": reason_code,
            },
            "type": "card",
        },
        "reason": dispute.reason,
        "status": dispute.status,
    }


def transaction_object(transaction: Transaction, now: int) -> Json:
    """Render a BalanceTransaction as it stands now: pending until it is available."""
    fee = {
        "amount": transaction.fee,
        "application": None,
        "currency": transaction.currency,
        "description": "Dispute fee" if transaction.type == "adjustment" else "Stripe processing fees",
        "type": "stripe_fee",
    }
    return {
        "id": transaction.id,
        "object": "balance_transaction",
        "amount": transaction.amount,
        "available_on": transaction.available_on,
        "balance_type": "payments",
        "created": transaction.created,
        "currency": transaction.currency,
        "description": None,
        "exchange_rate": None if transaction.exchange_rate is None else float(transaction.exchange_rate),
        "fee": transaction.fee,
        "fee_details": [fee] if transaction.fee else [],
        "net": transaction.net,
        "reporting_category": transaction.reporting_category,
        "source": transaction.source,
        "status": "available" if now >= transaction.available_on else "pending",
        "type": transaction.type,
    }


def balance_object(transactions: Iterable[Transaction], now: int) -> Json:
    """Render the Balance: per currency what is available and what is still settling."""
    sums: dict[str, dict[str, int]] = {"available": {}, "pending": {}}
    for transaction in transactions:
        kind = sums["available" if now >= transaction.available_on else "pending"]
        kind[transaction.currency] = kind.get(transaction.currency, 0) + transaction.net
    currencies = sorted(sums["available"].keys() | sums["pending"].keys()) or ["gbp"]

    def rows(kind: str) -> list[Json]:
        amounts = [(sums[kind].get(currency, 0), currency) for currency in currencies]
        return [{"amount": amount, "currency": currency, "source_types": {"card": amount}} for amount, currency in amounts]

    return {"object": "balance", "available": rows("available"), "livemode": False, "pending": rows("pending")}


def _destination(refund: Refund) -> Json:
    if refund.status is RefundStatus.SUCCEEDED:
        return {"reference": refund.id[-11:], "reference_status": "available", "type": "refund"}
    return {"reference_status": "pending", "type": "refund"}
