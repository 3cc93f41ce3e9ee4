"""What a quote is made of, beside the cart: shipping methods, and tax rates by country."""

from sqlalchemy import CheckConstraint, Column, DateTime, Text
from sqlalchemy.dialects.postgresql import JSONB

from services.checkout.tables.metadata import aggregate

SHIPPING_METHOD = aggregate(
    "shipping_method",
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("rates", JSONB, nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint("kind IN ('flat', 'weight', 'value')", name="shipping_method_kind"),
    CheckConstraint("jsonb_array_length(rates) > 0", name="shipping_method_rates"),
)

TAX_TABLE = aggregate(
    "tax_table",
    Column("country", Text, nullable=False),
    Column("rates", JSONB, nullable=False),
    CheckConstraint("country ~ '^[A-Z]{2}$'", name="tax_table_country"),
)
