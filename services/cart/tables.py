"""The cart service's tables. The tenant leads every key."""

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, MetaData, Table, Text, Uuid, text
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
    *required(MOMENT, "expires_at"),
    CheckConstraint("state IN ('open', 'frozen', 'ordered', 'merged', 'expired')", name="cart_state"),
    CheckConstraint("(state IN ('frozen', 'ordered')) = (checkout_id IS NOT NULL)", name="cart_checkout"),
    CheckConstraint("(state = 'ordered') = (order_id IS NOT NULL)", name="cart_order"),
    Index("cart_of_subject", "tenant_id", "subject_id", "id"),
)
# Ids are the client's to choose, and one id means one cart, whosever it is: the only constraint without a tenant.
Index("cart_id_not_available", CART.c.id, unique=True)

HOLDINGS = Holdings(metadata=METADATA, left_out=["product_rebuild"])
"""A cart that is frozen waits for its checkout, which is erased before it: nothing is under way here that is not there."""
