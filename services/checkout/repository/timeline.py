"""The projection of what happened: entries are added by the batch, and a story is read whole."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from libs.common.database import Connection, Projection, Rows, Statement, Write
from services.checkout import tables
from services.checkout.domain.timeline import TimelineEntry


class Added(Rows[TimelineEntry]):
    """Rows that are written once. Whoever reads an event a second time adds nothing."""

    LEFT_OUT: ClassVar[frozenset[str]] = frozenset({"version", "sequence"})

    @cached_property
    def _add(self) -> str:
        names = ", ".join(f'"{name}"' for name in self._names)
        arrays = ", ".join(f"${index}::{self._type(name)}[]" for index, name in enumerate(self._names, 1))
        return (
            f'INSERT INTO "{self.table.name}" ({names}) SELECT * FROM unnest({arrays}) '  # noqa: S608 - names of our own tables only
            "ON CONFLICT DO NOTHING"
        )

    def changes(self, states: Sequence[tuple[TimelineEntry, int]]) -> list[Write]:
        """What adds those that are not there yet."""
        return [Write(self._add, [*zip(*[self._encoded(entry) for entry, _ in states], strict=True)])]


TIMELINE = Added(tables.TIMELINE, TimelineEntry)

TOPICS = ("cart.v1", "checkout.v1", "order.v1", "payment.v1", "fulfilment.v1")
PROJECTION = Projection("timeline", TIMELINE, Added(tables.TIMELINE_REBUILD, TimelineEntry), TOPICS)
"""It is kept, and rebuilt, under a consumer group of its own."""

_OF_STORIES = Statement(
    select(tables.TIMELINE).where(
        tables.TIMELINE.c.tenant_id == bindparam("tenant_id"),
        tables.TIMELINE.c.story_id == any_(bindparam("story_ids", type_=ARRAY(Uuid))),
    )
)


async def entries(connection: Connection, tenant_id: UUID, story_ids: Sequence[UUID]) -> Sequence[TimelineEntry]:
    """Everything of these stories, in no particular order."""
    rows = await _OF_STORIES.fetch(connection, tenant_id=tenant_id, story_ids=story_ids)
    return [TIMELINE.decode(row) for row in rows]
