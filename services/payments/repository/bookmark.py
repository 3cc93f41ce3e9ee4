"""Where a page of what is ordered by time ended, and the next begins."""

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from libs.common.clock import NIL


class Bookmark(NamedTuple):
    """The moment of a row, and its id."""

    moment: datetime
    id: UUID


BEGINNING = Bookmark(datetime.min.replace(tzinfo=UTC), NIL)
"""Before every row."""
