"""Drops and the places in their queues. No two have one number, and nobody is served who has not arrived."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKeyConstraint, Index, Text, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.checkout.tables.metadata import METADATA

DROP = aggregate(
    METADATA,
    "product_drop",
    "id",
    *required(Text, "sku"),
    *required(BigInteger, "per_minute", "patience_seconds"),
    *required(MOMENT, "starts_at"),
    *optional(MOMENT, "ends_at"),
    *required(BigInteger, "last_number", "opened_after", "served_number"),
    *required(MOMENT, "rated_at"),
    *required(JSONB, "waves"),
    *required(Boolean, "sold_out"),
    *optional(MOMENT, "deleted_at"),
    UniqueConstraint("tenant_id", "sku", name="product_drop_sku"),
    CheckConstraint("per_minute > 0 AND patience_seconds > 0", name="product_drop_terms"),
    CheckConstraint(
        "opened_after >= 0 AND served_number >= opened_after AND last_number >= served_number", name="product_drop_numbers"
    ),
)

DROP_PLACE = aggregate(
    METADATA,
    "drop_place",
    "id",
    *required(Uuid, "drop_id", "subject_id"),
    *required(BigInteger, "number"),
    *required(MOMENT, "joined_at"),
    *optional(Uuid, "checkout_id"),
    ForeignKeyConstraint(["tenant_id", "drop_id"], ["product_drop.tenant_id", "product_drop.id"], name="drop_place_of_drop"),
    UniqueConstraint("tenant_id", "drop_id", "number", name="drop_place_number"),
    UniqueConstraint("tenant_id", "drop_id", "subject_id", name="drop_place_subject"),
    CheckConstraint("number > 0", name="drop_place_first"),
    Index("drop_place_joined_at", "joined_at"),
)
