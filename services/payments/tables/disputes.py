"""Disputes: the cases that buyers' banks open, and the money that each has moved."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Text, UniqueConstraint, Uuid, text

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.payments.tables.metadata import METADATA

DISPUTE = aggregate(
    METADATA,
    "dispute",
    "id",
    *required(Uuid, "payment_id", "checkout_id", "order_id"),
    *required(Text, "provider_id"),
    *required(BigInteger, "amount_minor"),
    *required(Text, "currency", "reason", "state"),
    *optional(MOMENT, "respond_by"),
    *required(BigInteger, "withdrawn_minor", "reinstated_minor", "fee_minor"),
    *optional(Text, "fee_currency"),
    *required(MOMENT, "created_at"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="dispute_of_payment"),
    UniqueConstraint("tenant_id", "provider_id", name="dispute_of_provider"),
    CheckConstraint(
        "state IN ('warning_needs_response', 'warning_under_review', 'warning_closed', 'needs_response', 'under_review', "
        "'won', 'lost', 'prevented')",
        name="dispute_state",
    ),
    CheckConstraint("amount_minor >= 0", name="dispute_amount"),
    CheckConstraint("char_length(currency) = 3", name="dispute_currency"),
    CheckConstraint("char_length(fee_currency) = 3", name="dispute_fee_currency"),
    CheckConstraint("withdrawn_minor >= 0 AND reinstated_minor >= 0 AND fee_minor >= 0", name="dispute_money"),
    Index("dispute_by_payment", "tenant_id", "payment_id"),
    Index(
        "dispute_wants_evidence",
        "tenant_id",
        "created_at",
        "id",
        postgresql_where=text("state IN ('warning_needs_response', 'needs_response')"),
    ),
)
