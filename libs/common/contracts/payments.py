"""Events of the payments service (`payment.v1`)."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from libs.common.contracts import Currency, Event, Minor, Text, event


@event("payment.v1", "payment.authorized", aggregate="payment_id")
class PaymentAuthorized(Event):
    """The provider holds this amount for us."""

    payment_id: UUID
    checkout_id: UUID
    amount_minor: Minor
    currency: Currency
    expires_at: datetime | None = None


@event("payment.v1", "payment.action-required", aggregate="payment_id")
class PaymentActionRequired(Event):
    """The payer has to do something (3-D Secure). What, only the payer may ask payments."""

    payment_id: UUID
    checkout_id: UUID


@event("payment.v1", "payment.declined", aggregate="payment_id")
class PaymentDeclined(Event):
    """The issuer said no, or the provider refused: nothing is held, and nothing will be."""

    payment_id: UUID
    checkout_id: UUID
    code: Text


@event("payment.v1", "payment.unknown", aggregate="payment_id")
class PaymentUnknown(Event):
    """Nobody knows yet whether the provider acted. Neither retry elsewhere nor release anything."""

    payment_id: UUID
    checkout_id: UUID


@event("payment.v1", "payment.captured", aggregate="payment_id")
class PaymentCaptured(Event):
    """The money is ours: `amount_minor` now, `captured_minor` in all."""

    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    captured_minor: Minor


@event("payment.v1", "payment.voided", aggregate="payment_id")
class PaymentVoided(Event):
    """The hold is gone, or never was."""

    payment_id: UUID
    checkout_id: UUID


@event("payment.v1", "payment.expired", aggregate="payment_id")
class PaymentExpired(Event):
    """The hold lapsed before it was captured: nothing is held any more."""

    payment_id: UUID
    checkout_id: UUID


@event("payment.v1", "refund.pending", aggregate="refund_id")
class RefundPending(Event):
    """The provider has taken the refund on; the money is on its way back, or will be."""

    refund_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency


@event("payment.v1", "refund.succeeded", aggregate="refund_id")
class RefundSucceeded(Event):
    """The buyer has this much back; `refunded_minor` of the payment in all."""

    refund_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency
    refunded_minor: Minor
    cause: Text | None = None
    """`no-order`: nobody asked for it, but checkout told that no order stands on the payment. Absent: anything else."""


@event("payment.v1", "refund.failed", aggregate="refund_id")
class RefundFailed(Event):
    """The money did not go back, or came back to us: it may be refunded again. May follow `refund.succeeded`."""

    refund_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency
    code: Text
    refunded_minor: Minor


@event("payment.v1", "order.status-asked", aggregate="payment_id")
class OrderStatusAsked(Event):
    """Money was taken, and of its order nothing was heard: what became of it? Answered with `order.status-told`.

    Until it is, nothing goes back: that nothing is heard may be a lag, or a message that was parked.
    """

    question_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID


@event("payment.v1", "dispute.opened", aggregate="dispute_id")
class DisputeOpened(Event):
    """The buyer's bank contests this much of the payment."""

    dispute_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency
    reason: Text


@event("payment.v1", "dispute.closed", aggregate="dispute_id")
class DisputeClosed(Event):
    """The case is over: `won`, `lost`, or `warning_closed` (it never became a dispute)."""

    dispute_id: UUID
    payment_id: UUID
    checkout_id: UUID
    order_id: UUID
    amount_minor: Minor
    currency: Currency
    outcome: Text


@event("payment.v1", "provider.called", aggregate="payment_id")
class ProviderCalled(Event):
    """One call to the payment provider and what came of it, for whoever tells an order's story."""

    payment_id: UUID
    checkout_id: UUID
    kind: Text
    attempt: int
    outcome: Text
    duration_ms: int
    started_at: datetime | None = None


@event("payment.v1", "tenant.provisioned", aggregate="tenant_id")
class TenantProvisioned(Event):
    """The payments service can serve this tenant."""

    tenant_id: UUID
    service: Literal["payments"]
    tenant_version: int


@event("payment.v1", "tenant.settled", aggregate="tenant_id")
class TenantSettled(Event):
    """All money of a tenant that is to be erased has come to its end, and there is nothing to ask checkout for any more."""

    tenant_id: UUID
    service: Literal["payments"]
    tenant_version: int


@event("payment.v1", "tenant.erased", aggregate="tenant_id")
class TenantErased(Event):
    """The payments service has nothing of this tenant any more. The digest is that of its export, of what was deleted."""

    tenant_id: UUID
    service: Literal["payments"]
    tenant_version: int
    row_count: int
    sha256: str
