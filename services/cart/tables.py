"""The cart service's tables. The tenant leads every key."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Integer, MetaData, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.holdings import Holdings
from libs.common.database.tables import MOMENT, aggregate, optional, required, tenant_table

METADATA = MetaData()

TENANT = tenant_table(METADATA)


def _product(name: str) -> Table:
    return aggregate(
        METADATA,
        name,
        "sku",
        *required(Text, "name", "category"),
        *optional(Integer, "weight_grams"),
        *required(JSONB, "prices"),
        *required(BigInteger, "described_sequence", "withdrawn_sequence"),
        kind=Text,
    )


PRODUCT = _product("product")
PRODUCT_REBUILD = _product("product_rebuild")
"""The products beside the products, while they are rebuilt from the catalogue's topic."""

CART = aggregate(
    METADATA,
    "cart",
    "id",
    *required(Uuid, "subject_id"),
    *required(Text, "state", "currency"),
    *required(JSONB, "lines"),
    *optional(Uuid, "checkout_id"),
    *required(BigInteger, "checkout_attempt", default=text("0")),
    *optional(Uuid, "order_id"),
    *required(JSONB, "coupons", "discounts", default="[]"),
    *required(BigInteger, "put_discount_minor", default=text("0")),
    *required(MOMENT, "expires_at"),
    CheckConstraint("state IN ('open', 'frozen', 'ordered', 'merged', 'expired')", name="cart_state"),
    CheckConstraint("(state IN ('frozen', 'ordered')) = (checkout_id IS NOT NULL)", name="cart_checkout"),
    CheckConstraint("(state = 'ordered') = (order_id IS NOT NULL)", name="cart_order"),
    Index("cart_of_subject", "tenant_id", "subject_id", "id"),
)
# Ids are the client's to choose, and one id means one cart, whosever it is: the only constraint without a tenant.
Index("cart_id_not_available", CART.c.id, unique=True)

PROMOTION = aggregate(
    METADATA,
    "promotion",
    "code",
    *required(Text, "name", "kind"),
    *optional(Integer, "basis_points"),
    *optional(BigInteger, "amount_minor"),
    *optional(Text, "currency"),
    *required(JSONB, "skus", "categories"),
    *optional(BigInteger, "minimum_subtotal_minor"),
    *optional(MOMENT, "valid_from", "valid_until"),
    *required(Boolean, "requires_coupon"),
    *optional(BigInteger, "max_uses"),
    *required(BigInteger, "used_count"),
    *required(Integer, "priority"),
    *required(Boolean, "exclusive"),
    *optional(MOMENT, "deleted_at"),
    CheckConstraint("kind IN ('percentage', 'amount')", name="promotion_kind"),
    CheckConstraint("(kind = 'percentage') = coalesce(basis_points BETWEEN 1 AND 10000, false)", name="promotion_percentage"),
    CheckConstraint("(kind = 'amount') = coalesce(amount_minor > 0, false)", name="promotion_amount"),
    CheckConstraint(
        "currency IS NOT NULL OR (amount_minor IS NULL AND minimum_subtotal_minor IS NULL)", name="promotion_currency"
    ),
    CheckConstraint("valid_from < valid_until", name="promotion_time"),
    CheckConstraint("used_count >= 0 AND used_count <= max_uses", name="promotion_never_overused"),
    kind=Text,
)

OFFERS = aggregate(METADATA, "offers", "tenant_id", *required(JSONB, "automatic", "limited"))

STOCK_HINT = aggregate(
    METADATA,
    "stock_hint",
    "sku",
    *required(Text, "availability"),
    *required(BigInteger, "told_sequence"),
    CheckConstraint(
        "availability IN ('in_stock', 'low_stock', 'backorder', 'out_of_stock', 'unknown')", name="stock_hint_availability"
    ),
    kind=Text,
)

HOLDINGS = Holdings(metadata=METADATA, left_out=["product_rebuild"])
"""A cart that is frozen waits for its checkout, which is erased before it: nothing is under way here that is not there."""
