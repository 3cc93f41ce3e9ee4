"""What happened on each order's way: added to, and never changed."""

from sqlalchemy import CheckConstraint, Index, Integer, PrimaryKeyConstraint, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, optional, required
from services.checkout.tables.metadata import METADATA


def _entries(name: str, index: str) -> Table:
    return Table(
        name,
        METADATA,
        *required(Uuid, "tenant_id"),
        *required(Text, "id"),
        *required(Uuid, "story_id"),
        *required(MOMENT, "at"),
        *required(Text, "service", "kind", "name", "cause"),
        *optional(Integer, "duration_ms"),
        *optional(Text, "trace_id"),
        *required(Text, "actor"),
        *required(JSONB, "details"),
        PrimaryKeyConstraint("tenant_id", "id", name=f"{name}_pkey"),
        CheckConstraint("kind IN ('event', 'provider-call')", name="timeline_entry_kind"),
        CheckConstraint("(kind = 'provider-call') = (duration_ms IS NOT NULL)", name="timeline_entry_duration"),
        Index(index, "tenant_id", "story_id"),
    )


TIMELINE = _entries("timeline_entry", "timeline_entry_of_story")
TIMELINE_REBUILD = _entries("timeline_entry_rebuild", "timeline_entry_rebuild_tenant_id_story_id_idx")
"""The entries beside the entries, while they are read again from the topics."""
