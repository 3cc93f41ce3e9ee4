"""Stock by product. What must never be is a constraint: none oversold, none below zero, none unaccounted for."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from services.checkout.tables.metadata import aggregate, bigint

STOCK = aggregate(
    "stock",
    Column("sku", Text, nullable=False),
    bigint("on_hand"),
    bigint("reserved"),
    bigint("sold"),
    bigint("adjusted"),
    Column("levels", JSONB, nullable=False),
    bigint("inventory_sequence"),
    Column("policy", Text, nullable=False, server_default="tracked"),
    Column("promised", BigInteger, nullable=False, server_default=text("0")),
    Column("owed", BigInteger, nullable=False, server_default=text("0")),
    Column("holds", JSONB, nullable=False, server_default="{}"),
    CheckConstraint("on_hand >= 0 AND reserved >= 0 AND sold >= 0", name="stock_never_negative"),
    CheckConstraint("adjusted = on_hand + reserved + sold", name="stock_conserved"),
    CheckConstraint("policy IN ('tracked', 'backorder', 'untracked')", name="stock_policy"),
    CheckConstraint("promised >= 0 AND owed >= 0 AND (owed = 0 OR on_hand = 0)", name="stock_backordered"),
)
