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


@event("payment.v1", "provider.called", aggregate="payment_id")
class ProviderCalled(Event):
    """One call to the payment provider and what came of it, for whoever tells an order's story."""

    payment_id: UUID
    checkout_id: UUID
    kind: Text
    attempt: int
    outcome: Text
    duration_ms: int


@event("payment.v1", "tenant.provisioned", aggregate="tenant_id")
class TenantProvisioned(Event):
    """The payments service can serve this tenant."""

    tenant_id: UUID
    service: Literal["payments"]
    tenant_version: int
