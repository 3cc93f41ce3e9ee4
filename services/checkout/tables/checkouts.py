"""Tenants, checkouts, and each subject's claim on a cart."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, aggregate, optional, required, tenant_table
from services.checkout.tables.metadata import METADATA

TENANT = tenant_table(METADATA)

CART_CLAIM = aggregate(METADATA, "cart_claim", "id", *required(Uuid, "checkout_id"))

CHECKOUT = aggregate(
    METADATA,
    "checkout",
    "id",
    *required(Uuid, "subject_id", "cart_id"),
    *required(Text, "state"),
    *optional(Text, "reason"),
    *required(Text, "method"),
    *required(Text, "confirmation", default="server"),
    *optional(Text, "email", "shipping_method"),
    *optional(JSONB, "shipping_address", "billing_address"),
    *required(Boolean, "accept_price_changes", default="false"),
    *required(Text, "body_digest"),
    *optional(Text, "currency"),
    *optional(BigInteger, "total_minor"),
    *optional(JSONB, "quote"),
    *required(JSONB, "allocations"),
    *required(Uuid, "order_id", "payment_id"),
    *required(Boolean, "action_required", default="false"),
    *required(MOMENT, "started_at", "expires_at"),
    *optional(Uuid, "origin"),
    *required(Boolean, "is_watched", default="false"),
    *optional(Text, "waiting_for"),
    *required(Boolean, "is_challenged", default="false"),
    *optional(Text, "return_url"),
    CheckConstraint(
        "state IN ('started', 'frozen', 'quoted', 'reserved', 'paying', 'confirmed', 'canceling', 'expiring', "
        "'failed', 'canceled', 'expired')",
        name="checkout_state",
    ),
    CheckConstraint("confirmation IN ('server', 'client')", name="checkout_confirmation"),
    CheckConstraint(
        "(state IN ('canceling', 'expiring', 'failed', 'canceled', 'expired')) = (reason IS NOT NULL)", name="checkout_reason"
    ),
    CheckConstraint(
        "(state NOT IN ('paying', 'confirmed', 'canceling', 'expiring')) OR (quote IS NOT NULL)", name="checkout_quoted"
    ),
)

STRAY_MONEY = aggregate(
    METADATA,
    "stray_money",
    "id",
    *required(Uuid, "checkout_id"),
    *required(BigInteger, "amount_minor"),
    *required(MOMENT, "found_at"),
)

DECLINES = aggregate(
    METADATA,
    "declines",
    "id",
    *required(Text, "by"),
    *required(JSONB, "counts"),
    *required(MOMENT, "last_at"),
    CheckConstraint("by IN ('subject', 'address', 'tenant')", name="declines_by"),
    Index("declines_last_at", "last_at"),
)
