"""What a quote is made of, beside the cart: shipping methods, and tax rates by country."""

from sqlalchemy import CheckConstraint, Text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.checkout.tables.metadata import METADATA

SHIPPING_METHOD = aggregate(
    METADATA,
    "shipping_method",
    "code",
    *required(Text, "name", "kind", "currency"),
    *required(JSONB, "rates"),
    *optional(MOMENT, "deleted_at"),
    CheckConstraint("kind IN ('flat', 'weight', 'value')", name="shipping_method_kind"),
    CheckConstraint("jsonb_array_length(rates) > 0", name="shipping_method_rates"),
    kind=Text,
)

TAX_TABLE = aggregate(
    METADATA,
    "tax_table",
    "country",
    *required(JSONB, "rates"),
    CheckConstraint("country ~ '^[A-Z]{2}$'", name="tax_table_country"),
    kind=Text,
)
