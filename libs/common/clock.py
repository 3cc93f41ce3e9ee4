"""The two things no pure function may make for itself: the time and a new id. The shell hands them in."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

NIL = UUID(int=0)
"""Before every id: where a first page begins, and what stands for none."""
PLATFORM = NIL
"""Stands where a tenant stands for what belongs to the platform itself."""


def now() -> datetime:
    """The time in UTC, to the microsecond."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A UUIDv7: unique, and ordered by time, so indexes grow at one end."""
    return uuid7()


def rfc3339(moment: datetime) -> str:
    """A time as every interface of ours writes it: UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
