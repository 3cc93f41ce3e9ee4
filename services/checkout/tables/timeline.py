"""What happened on each order's way: added to, and never changed."""

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, PrimaryKeyConstraint, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from services.checkout.tables.metadata import METADATA


def _entries(name: str, index: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("tenant_id", Uuid, nullable=False),
        Column("id", Text, nullable=False),
        Column("story_id", Uuid, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("service", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("cause", Text, nullable=False),
        Column("duration_ms", Integer),
        Column("trace_id", Text),
        Column("actor", Text, nullable=False),
        Column("details", JSONB, nullable=False),
        PrimaryKeyConstraint("tenant_id", "id", name=f"{name}_pkey"),
        CheckConstraint("kind IN ('event', 'provider-call')", name="timeline_entry_kind"),
        CheckConstraint("(kind = 'provider-call') = (duration_ms IS NOT NULL)", name="timeline_entry_duration"),
        Index(index, "tenant_id", "story_id"),
    )


TIMELINE = _entries("timeline_entry", "timeline_entry_of_story")
TIMELINE_REBUILD = _entries("timeline_entry_rebuild", "timeline_entry_rebuild_tenant_id_story_id_idx")
"""The entries beside the entries, while they are read again from the topics."""
