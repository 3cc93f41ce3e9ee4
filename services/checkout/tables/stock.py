"""Stock by product. What must never be is a constraint: none oversold, none below zero, none unaccounted for."""

from sqlalchemy import BigInteger, CheckConstraint, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import aggregate, required
from services.checkout.tables.metadata import METADATA

STOCK = aggregate(
    METADATA,
    "stock",
    "sku",
    *required(BigInteger, "on_hand", "reserved", "sold", "adjusted"),
    *required(JSONB, "levels"),
    *required(BigInteger, "inventory_sequence"),
    *required(Text, "policy", default="tracked"),
    *required(BigInteger, "promised", "owed", default=text("0")),
    *required(JSONB, "holds", default="{}"),
    CheckConstraint("on_hand >= 0 AND reserved >= 0 AND sold >= 0", name="stock_never_negative"),
    CheckConstraint("adjusted = on_hand + reserved + sold", name="stock_conserved"),
    CheckConstraint("policy IN ('tracked', 'backorder', 'untracked')", name="stock_policy"),
    CheckConstraint("promised >= 0 AND owed >= 0 AND (owed = 0 OR on_hand = 0)", name="stock_backordered"),
    kind=Text,
)
