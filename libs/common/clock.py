"""The two things no pure function may make for itself: the time and a new id. The shell hands them in.

The time is the database's, as far as it is known: whoever decides has one clock with all others who decide on the same rows,
however wrong the machine's own may be.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

NIL = UUID(int=0)
"""Before every id: where a first page begins, and what stands for none."""
PLATFORM = NIL
"""Stands where a tenant stands for what belongs to the platform itself."""
TOLERATED: Final = timedelta(seconds=1)
"""So far clocks may be apart, and nobody's is corrected: it would go back and forth with how long answers take."""


class _Machine:
    """This machine's clock."""

    correction = timedelta()


def now() -> datetime:
    """The time in UTC, to the microsecond."""
    return datetime.now(UTC) + _Machine.correction


def correction() -> timedelta:
    """By how much this machine's clock is corrected."""
    return _Machine.correction


def go_by(theirs: datetime) -> timedelta:
    """Take this for the time it is now; answers how far this machine's clock is ahead of it."""
    behind = theirs - datetime.now(UTC)
    if abs(behind - _Machine.correction) > TOLERATED:
        _Machine.correction = behind if abs(behind) > TOLERATED else timedelta()
    return -behind


def new_id() -> UUID:
    """A UUIDv7: unique, and ordered by time, so indexes grow at one end."""
    return uuid7()


def rfc3339(moment: datetime) -> str:
    """A time as every interface of ours writes it: UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
