"""What the provider told us by webhook: of each notice only what is needed to look again."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Integer, PrimaryKeyConstraint, Table, Text, Uuid, text

from libs.common.database.tables import MOMENT, optional, required
from services.payments.tables.metadata import METADATA

WEBHOOK_EVENT = Table(
    "webhook_event",
    METADATA,
    *required(Uuid, "tenant_id"),
    *required(Text, "id", "type", "subject", "object_id"),
    *optional(Text, "intent_id"),
    *optional(Uuid, "payment_id"),
    *optional(Text, "status"),
    *optional(BigInteger, "amount_minor"),
    *required(Boolean, "livemode"),
    *optional(Text, "account"),
    *required(MOMENT, "occurred_at", "received_at"),
    *required(Integer, "attempts"),
    *optional(MOMENT, "due_at"),
    *optional(Text, "result"),
    PrimaryKeyConstraint("tenant_id", "id", name="webhook_event_pkey"),
    CheckConstraint("subject IN ('intent', 'refund', 'dispute', 'other')", name="webhook_event_subject"),
    CheckConstraint("result IN ('observed', 'nothing-new', 'not-ours', 'of-no-interest', 'gone')", name="webhook_event_result"),
    CheckConstraint("(due_at IS NULL) = (result IS NOT NULL)", name="webhook_event_due"),
    CheckConstraint(
        "char_length(id) <= 255 AND char_length(type) <= 255 AND char_length(object_id) <= 255 "
        "AND char_length(intent_id) <= 255 AND char_length(account) <= 255 AND char_length(status) <= 255",
        name="webhook_event_bounded",
    ),
    Index("webhook_event_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("webhook_event_received_at", "received_at"),
)
