"""Who asks for most of a crowded process lets others go first.

A limit in numbers must be as high as the largest sale; on a small machine, less than that is already in somebody's way. So
while a process waits for a processor, a tenant, or a stranger, who asks for more than all other tenants together takes a
moment longer, and nobody is refused. A tenant that is alone in it is held up by nobody.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final
from uuid import UUID

from libs.common.crowding import CROWDING

MEMORY_SECONDS: Final = 2.0
"""After so long half of what was asked for is forgotten."""
HELD_SECONDS: Final = 0.25
"""So long at most: for all that is asked, of a process that is never let on at once."""


class Turns:
    """What one process has been asked for of late, and by whom."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: Counter[Hashable] = Counter()
        self._of_tenants = 0
        self._since = clock()

    async def take(self, tenant_id: UUID | None, address: str) -> None:
        """Let others go first, if somebody should who acts in this tenant, or is a stranger at this address."""
        if wait := self._wait(tenant_id, address):
            await asyncio.sleep(wait)

    def _wait(self, tenant_id: UUID | None, address: str) -> float:
        self._forget()
        who = tenant_id or address
        self._asked[who] += 1
        self._of_tenants += tenant_id is not None
        own = self._asked[who]
        others = self._of_tenants - (own if tenant_id else 0)
        if own <= others or not others:
            return 0.0
        return HELD_SECONDS * CROWDING.share() * own / (own + others)

    def _forget(self) -> None:
        times = int((self._clock() - self._since) / MEMORY_SECONDS)
        if times:
            self._since = self._clock()
            self._asked = Counter({who: left for who, count in self._asked.items() if (left := count >> times)})
            self._of_tenants = sum(count for who, count in self._asked.items() if isinstance(who, UUID))
