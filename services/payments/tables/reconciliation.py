"""Reconciliations, and the breaks they found."""

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Integer, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, aggregate, optional, required
from services.payments.tables.metadata import METADATA

RECONCILIATION = aggregate(
    METADATA,
    "reconciliation",
    "id",
    *required(MOMENT, "window_from", "window_to"),
    *required(Integer, "grace_seconds"),
    *required(Text, "requested_by", "state"),
    *required(Integer, "tries"),
    *optional(MOMENT, "due_at"),
    *required(MOMENT, "started_at"),
    *optional(MOMENT, "finished_at"),
    *required(JSONB, "counts", "totals"),
    *optional(Text, "error"),
    CheckConstraint("state IN ('requested', 'running', 'finished', 'failed')", name="reconciliation_state"),
    CheckConstraint("window_from < window_to", name="reconciliation_window"),
    CheckConstraint("grace_seconds >= 0 AND tries >= 0", name="reconciliation_numbers"),
    CheckConstraint("(state IN ('requested', 'running')) = (due_at IS NOT NULL)", name="reconciliation_due"),
    CheckConstraint("(state IN ('finished', 'failed')) = (finished_at IS NOT NULL)", name="reconciliation_finished"),
    # Two at once would each repair what the other is just looking at.
    Index("reconciliation_running", "tenant_id", unique=True, postgresql_where=text("finished_at IS NULL")),
    Index("reconciliation_of_time", "tenant_id", "started_at"),
)

BREAK = aggregate(
    METADATA,
    "reconciliation_break",
    "id",
    *required(Text, "kind", "subject"),
    *optional(Uuid, "our_id"),
    *optional(Text, "provider_id"),
    *optional(Uuid, "payment_id"),
    *required(Text, "currency"),
    *optional(JSONB, "ours", "theirs"),
    *optional(Text, "repair"),
    *required(Text, "state"),
    *required(MOMENT, "first_seen_at", "last_seen_at"),
    *required(Integer, "seen_count"),
    *optional(MOMENT, "closed_at"),
    *optional(Text, "closed_by", "closed_reason"),
    *required(Uuid, "reconciliation_id"),
    ForeignKeyConstraint(
        ["tenant_id", "reconciliation_id"],
        ["reconciliation.tenant_id", "reconciliation.id"],
        name="reconciliation_break_of_run",
    ),
    CheckConstraint(
        "kind IN ('missing-here', 'missing-there', 'amount', 'state', 'fee')",
        name="reconciliation_break_kind",
    ),
    CheckConstraint("subject IN ('payment', 'refund', 'dispute', 'transaction')", name="reconciliation_break_subject"),
    CheckConstraint("state IN ('open', 'repaired', 'gone', 'settled')", name="reconciliation_break_state"),
    CheckConstraint(
        "(state = 'settled') = (closed_by IS NOT NULL) AND (closed_by IS NULL) = (closed_reason IS NULL)",
        name="reconciliation_break_settled",
    ),
    CheckConstraint("repair IN ('observe', 'post')", name="reconciliation_break_repair"),
    CheckConstraint("(kind = 'missing-here') = (ours IS NULL)", name="reconciliation_break_here"),
    CheckConstraint("(kind = 'missing-there') = (theirs IS NULL)", name="reconciliation_break_there"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="reconciliation_break_closed"),
    CheckConstraint("our_id IS NOT NULL OR provider_id IS NOT NULL", name="reconciliation_break_named"),
    Index(
        "reconciliation_break_open",
        "tenant_id",
        "first_seen_at",
        "id",
        postgresql_where=text("closed_at IS NULL"),
    ),
    Index("reconciliation_break_of_time", "tenant_id", "first_seen_at", "id"),
)
