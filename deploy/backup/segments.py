"""Names of WAL segments, and the moments that can be gone back to. Pure."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

PARTIAL: Final = ".partial"
"""Behind the name of the segment that is still being written."""
_NAME_DIGITS: Final = 24
_PER_LOG: Final = 1 << 32


def is_segment(name: str) -> bool:
    """Whether a file's name is a segment's: 24 hexadecimal digits."""
    plain = name.removesuffix(PARTIAL)
    return len(plain) == _NAME_DIGITS and all(digit in "0123456789ABCDEF" for digit in plain)


def following(name: str, segment_bytes: int) -> str:
    """The segment after one, of the same timeline."""
    log, number = int(name[8:16], 16), int(name[16:], 16) + 1
    if number == _PER_LOG // segment_bytes:
        log, number = log + 1, 0
    return f"{name[:8]}{log:08X}{number:08X}"


def run_from(first: str, there: Collection[str], segment_bytes: int) -> Iterator[str]:
    """The files of one segment after the other for as long as they are there, the last perhaps a partial one."""
    name = first
    while name in there:
        yield name
        name = following(name, segment_bytes)
    if name + PARTIAL in there:
        yield name + PARTIAL


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Base:
    """A base backup: from its end on any moment can be gone back to, for as far as the log behind it reaches."""

    ended_at: datetime
    series: str
    """Of which history it is: the cluster, and its timeline."""
    name: str
    first_segment: str
    segment_bytes: int
    server_version: int
    """Its major version."""


def base_for(bases: Sequence[Base], to: datetime | None) -> Base | None:
    """The newest that ended by then; the newest of all for the latest moment."""
    return max((base for base in bases if to is None or base.ended_at <= to), default=None)


def superfluous(bases: Sequence[Base], now: datetime, keep: timedelta) -> list[Base]:
    """Those that nobody needs to go back so far: older than the one from which the oldest moment that is kept is reached."""
    needed = base_for(bases, now - keep)
    return [base for base in bases if needed is not None and base < needed]


def superfluous_segments(names: Sequence[str], kept: Sequence[Base]) -> list[str]:
    """Of a series' segments those before the first base of it that is kept; all of them when there is none."""
    first = min((base.first_segment for base in kept), default=None)
    return [name for name in names if first is None or name < first]
