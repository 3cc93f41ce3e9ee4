"""Fetch sessions (KIP-227): a broker remembers what we read of it, so that a fetch says and answers only what has changed.

aiokafka names every partition in every fetch, and is answered for each. What it asks is put here into terms of the session
that its broker has for us; to aiokafka an answer looks as ever, less the partitions of which there is nothing to say.

A session holds exactly what aiokafka's last fetch asked for. What that leaves out is forgotten: a partition that is paused,
or has records that nobody has taken yet, would be sent again and again. Whatever goes wrong ends the session, and
the next fetch names everything and begins another. A broker without sessions is asked by aiokafka's own request.
"""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.protocol.api import Request
from aiokafka.protocol.fetch import FetchRequest_v11

NO_SESSION: Final = 0
FIRST_EPOCH: Final = 0
LAST_EPOCH: Final = 2**31 - 1
RENEWED_SECONDS: Final = 5.0
"""So often everything is named, and answered for: a partition may be silent because it is at its end, or cannot be read."""
_CONSUMER: Final = -1
"""We are no replica, know no leader's epoch, and hold no log of our own."""

Ask = Callable[..., Awaitable[Any]]
Part = tuple[str, int]
Wanted = dict[Part, tuple[int, int]]
"""From which offset a partition is read, and how many bytes at most."""


@dataclass(slots=True)
class Session:
    """What one broker knows of us."""

    number: int
    epoch: int
    known: Wanted
    begun: float

    def follows(self, wanted: Wanted) -> None:
        """It was answered; the next fetch is told from this one by its epoch."""
        self.known = wanted
        self.epoch = self.epoch + 1 if self.epoch < LAST_EPOCH else FIRST_EPOCH + 1


class SessionFetch(Request[FetchRequest_v11]):  # type: ignore[misc]  # aiokafka has no types
    """A fetch of aiokafka's, in terms of a session."""

    API_KEY = 1

    def __init__(self, asked: Any, number: int, epoch: int, told: Wanted, forgotten: Iterable[Part]) -> None:
        """Take the limits from aiokafka's own."""
        self._asked, self._number, self._epoch = asked, number, epoch
        self._told, self._forgotten = told, forgotten

    def build(self, request_struct_class: type[Any]) -> Any:
        """Write the request of the one version that we have."""
        asked = self._asked
        told, forgotten = defaultdict[str, list[Any]](list), defaultdict[str, list[int]](list)
        for (topic, partition), (offset, size) in self._told.items():
            told[topic].append((partition, _CONSUMER, offset, _CONSUMER, size))
        for topic, partition in self._forgotten:
            forgotten[topic].append(partition)
        limits = (asked._max_wait_ms, asked._min_bytes, asked._max_bytes, asked._isolation_level)  # noqa: SLF001 - it has no other words
        return request_struct_class(
            _CONSUMER,
            *limits,
            self._number,
            self._epoch,
            [*told.items()],
            [*forgotten.items()],
            asked._rack_id,  # noqa: SLF001
        )


class Sessions:
    """One consumer's, a broker each."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        """Say how a broker is asked."""
        self._ask, self._clock = ask, clock
        self._known: dict[int, Session] = {}
        self._without: set[int] = set()
        """Brokers that are older than sessions."""

    async def fetch(self, node: int, request: Any, *, doubted: Iterable[Part] = ()) -> Any:
        """Ask a broker for what aiokafka wants of it. What is doubted must be answered for, if it is among that."""
        if node in self._without:
            return await self._ask(node, request)
        wanted = {(topic, each[0]): each[1:] for topic, parts in request.topics for each in parts}
        session = self._known.pop(node, None)  # until it is answered: what is canceled half-way may have been heard, or not
        if session and wanted.keys().isdisjoint(doubted) and self._clock() - session.begun < RENEWED_SECONDS:
            answer = await self._ask(node, _difference(request, session, wanted))
            if answer.error_code == 0 and _is_of(wanted, answer):
                session.follows(wanted)
                self._known[node] = session
                return answer
        return await self._begin(node, request, session, wanted)

    async def _begin(self, node: int, request: Any, old: Session | None, wanted: Wanted) -> Any:
        """Name everything, in the place of an old session if there was one. The broker may have no room for a new one."""
        number = old.number if old else NO_SESSION
        try:
            answer = await self._ask(node, SessionFetch(request, number, FIRST_EPOCH, wanted, ()))
        except NotImplementedError:
            self._without.add(node)
            return await self._ask(node, request)
        if answer.error_code or not _is_of(wanted, answer):
            return await self._ask(node, request)
        if answer.session_id != NO_SESSION:
            self._known[node] = Session(answer.session_id, FIRST_EPOCH + 1, wanted, self._clock())
        return answer


def _difference(request: Any, session: Session, wanted: Wanted) -> SessionFetch:
    known = session.known
    told = {part: where for part, where in wanted.items() if known.get(part) != where}
    return SessionFetch(request, session.number, session.epoch, told, known.keys() - wanted.keys())


def _is_of(wanted: Mapping[Part, Any], answer: Any) -> bool:
    """Whether it speaks of nothing else than it was asked for: aiokafka ends at what it does not expect."""
    return all((topic, each[0]) in wanted for topic, parts in answer.topics for each in parts)
