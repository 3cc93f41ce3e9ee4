"""When to stand still rather than park: whether what fails is ours or theirs.

One tenant's nonsense is that tenant's, however much of it there is: it is parked message by message. When most of the
tenants fail that are heard of at all, the fault is ours, and parking would only spread it. So tenants are counted and
not messages, over the last batches of a topic; and it is that topic alone that stands still.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

FEWEST_FAILURES = 20
FEWEST_TENANTS = 3
WINDOW_MESSAGES, WINDOW_BATCHES = 200, 200
"""What is looked back at: one batch if it is large, else as many as come to so many messages."""
HEARD_SECONDS = 3_600.0
"""How long a tenant counts after it was last heard of."""

Outcomes = dict[UUID, tuple[int, int]]
"""Of each tenant: how many messages were decided, and how many of these failed."""


class TooManyFailuresError(Exception):
    """So many tenants fail on a topic that the fault must be ours: better to stand still and shout."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(reason)
        self.topic = topic


class Brake:
    """What became of each tenant's messages, for one consumer."""

    def __init__(self, *, share: float, foreign: Collection[str]) -> None:
        self._share = share
        self._foreign = foreign
        self._windows: dict[str, deque[Outcomes]] = {}
        self._heard: dict[UUID, float] = {}
        self._looked_at = 0.0

    def judge(self, decided: Mapping[tuple[str, UUID], int], failed: Mapping[tuple[str, UUID], tuple[int, str]]) -> None:
        """Raises TooManyFailuresError when a topic should stand still. Both by topic and tenant; failures with an example."""
        self._hear({tenant_id for _, tenant_id in decided})
        for topic in {topic for topic, _ in failed}:
            batch = _of_topic(topic, decided, failed)
            window = _added([batch, *self._windows.get(topic, ())])
            self._demand_few(topic, window, next(example for (where, _), (_, example) in failed.items() if where == topic))

    def settled(self, decided: Mapping[tuple[str, UUID], int], failed: Mapping[tuple[str, UUID], tuple[int, str]]) -> None:
        """Remember what was committed. What was given up is not remembered: it is judged again when it is tried again."""
        for topic in {topic for topic, _ in decided}:
            window = self._windows.setdefault(topic, deque(maxlen=WINDOW_BATCHES))
            window.appendleft(_of_topic(topic, decided, failed))
            sizes = [sum(count for count, _ in batch.values()) for batch in window]
            while len(window) > 1 and sum(sizes) - sizes[-1] >= WINDOW_MESSAGES:
                window.pop()
                sizes.pop()

    def _demand_few(self, topic: str, window: Outcomes, example: str) -> None:
        failing = {tenant_id: count for tenant_id, (all_, count) in window.items() if count > self._share * all_}
        fewest = FEWEST_TENANTS if topic in self._foreign else min(FEWEST_TENANTS, len(self._heard))
        too_many = len(failing) >= fewest and len(failing) > self._share * len(self._heard)
        if too_many and sum(failing.values()) >= FEWEST_FAILURES:
            who = f"{len(failing)} of {len(self._heard)} tenants fail on {topic}"
            raise TooManyFailuresError(topic, f"{who}, {sum(failing.values())} messages, for example with {example}")

    def _hear(self, tenant_ids: Iterable[UUID]) -> None:
        now = time.monotonic()
        self._heard.update(dict.fromkeys(tenant_ids, now))
        if now - self._looked_at > HEARD_SECONDS / 60:
            self._looked_at = now
            self._heard = {tenant_id: at for tenant_id, at in self._heard.items() if now - at < HEARD_SECONDS}


def _of_topic(
    topic: str, decided: Mapping[tuple[str, UUID], int], failed: Mapping[tuple[str, UUID], tuple[int, str]]
) -> Outcomes:
    of_topic = {place: count for place, count in decided.items() if place[0] == topic}
    return {place[1]: (count, failed[place][0] if place in failed else 0) for place, count in of_topic.items()}


def _added(batches: Iterable[Outcomes]) -> Outcomes:
    total: Outcomes = {}
    for batch in batches:
        for tenant_id, (decided, failed) in batch.items():
            before = total.get(tenant_id, (0, 0))
            total[tenant_id] = before[0] + decided, before[1] + failed
    return total
