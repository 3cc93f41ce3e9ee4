"""Tenants, checkouts, and each subject's claim on a cart."""

from sqlalchemy import Boolean, CheckConstraint, Column, DateTime, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database import tenant_table
from services.checkout.tables.metadata import METADATA, aggregate, bigint

TENANT = tenant_table(METADATA)

CART_CLAIM = aggregate("cart_claim", Column("id", Uuid, nullable=False), Column("checkout_id", Uuid, nullable=False))

CHECKOUT = aggregate(
    "checkout",
    Column("id", Uuid, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("cart_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("method", Text, nullable=False),
    Column("confirmation", Text, nullable=False, server_default="server"),
    Column("email", Text),
    Column("shipping_method", Text),
    Column("shipping_address", JSONB),
    Column("billing_address", JSONB),
    Column("body_digest", Text, nullable=False),
    Column("currency", Text),
    bigint("total_minor", nullable=True),
    Column("quote", JSONB),
    Column("allocations", JSONB, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("action_required", Boolean, nullable=False, server_default="false"),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
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
    "stray_money",
    Column("id", Uuid, nullable=False),
    Column("checkout_id", Uuid, nullable=False),
    bigint("amount_minor"),
    Column("found_at", DateTime(timezone=True), nullable=False),
)
