"""The cart service's tables. The tenant leads every key."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database import tenant_table

METADATA = MetaData()

TENANT = tenant_table(METADATA)


def _product(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("tenant_id", Uuid, nullable=False),
        Column("sku", Text, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("name", Text, nullable=False),
        Column("category", Text, nullable=False),
        Column("weight_grams", Integer),
        Column("prices", JSONB, nullable=False),
        Column("described_sequence", BigInteger, nullable=False),
        Column("withdrawn_sequence", BigInteger, nullable=False),
        PrimaryKeyConstraint("tenant_id", "sku", name=f"{name}_pkey"),
    )


PRODUCT = _product("product")
PRODUCT_REBUILD = _product("product_rebuild")
"""The products beside the products, while they are rebuilt from the catalogue's topic."""

CART = Table(
    "cart",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("lines", JSONB, nullable=False),
    Column("checkout_id", Uuid),
    Column("checkout_attempt", BigInteger, nullable=False, server_default=text("0")),
    Column("order_id", Uuid),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "id", name="cart_pkey"),
    CheckConstraint("state IN ('open', 'frozen', 'ordered', 'merged', 'expired')", name="cart_state"),
    CheckConstraint("(state IN ('frozen', 'ordered')) = (checkout_id IS NOT NULL)", name="cart_checkout"),
    CheckConstraint("(state = 'ordered') = (order_id IS NOT NULL)", name="cart_order"),
    Index("cart_of_subject", "tenant_id", "subject_id", "id"),
)
# Ids are the client's to choose, and one id means one cart, whosever it is: the only constraint without a tenant.
Index("cart_id_not_available", CART.c.id, unique=True)
