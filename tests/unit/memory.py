"""A service's real handlers on aggregates in memory: the shell's `decide`, without the database around it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from libs.common.clock import new_id
from libs.common.contracts import Event
from libs.common.decision import Aggregate, Handlers, Identity, IdentityMap, Message, Published, Ref, World

TENANT = UUID(int=0xA)
NOW = datetime(2026, 1, 1, tzinfo=UTC)

A = TypeVar("A", bound=Aggregate)
E = TypeVar("E", bound=Event)


@dataclass
class Memory:
    """What one tenant's rows and outbox would be."""

    handlers: Handlers
    rows: dict[Identity, Aggregate] = field(default_factory=dict)
    outbox: list[Published] = field(default_factory=list)
    timers: dict[tuple[str, UUID], datetime] = field(default_factory=dict)

    def execute(self, data: Any, *, sequence: int = 1, now: datetime = NOW) -> Any:
        """Carry out one command or event; one that raises leaves nothing behind."""
        message = Message(data=data, tenant_id=TENANT, id=str(new_id()), time=now, sequence=sequence)
        handler = self.handlers[type(data)]
        aggregates = IdentityMap()
        shared: set[Identity] = set()

        def load(refs: Iterator[Ref]) -> None:
            for ref in refs:
                identity = (ref.kind, TENANT, ref.key)
                shared.add(identity) if ref.shared else shared.discard(identity)
                row = self.rows.get(identity)
                aggregates.put_loaded(ref.kind, [aggregates.entries[ref.kind, TENANT, ref.key]], [row] if row else [])

        load(iter(handler.refs(message)))
        if handler.more:
            load(aggregates.missing(TENANT, list(handler.more(World(aggregates, message, now, new_id), message))))
        world = World(aggregates, message, now, new_id)
        answer = handler.decide(world, message)
        world.commit()
        self._store(aggregates, shared)
        return answer

    def _store(self, aggregates: IdentityMap, shared: set[Identity]) -> None:
        for entry in aggregates.changed:
            identity = (entry.kind, *entry.place)
            assert identity not in shared, f"{identity} was only looked at, without a lock"
            assert entry.state is not None
            assert entry.state.version > entry.stored_version
            self.rows[identity] = entry.state
        self.outbox.extend(aggregates.published)
        self.timers.update({(name, key): at for (_, name, key), at in aggregates.reminders.items()})

    def all(self, kind: type[A]) -> list[A]:
        """Every row of a kind."""
        return [cast("A", row) for identity, row in self.rows.items() if identity[0] is kind]

    def get(self, kind: type[A], key: Any) -> A:
        """One row that must be there."""
        return cast("A", self.rows[kind, TENANT, key])

    def events(self, kind: type[E]) -> list[E]:
        """Every event of a kind, in the order of publishing."""
        return [published.event for published in self.outbox if isinstance(published.event, kind)]

    def assert_numbered(self) -> None:
        """Each aggregate's events on a topic are numbered from 1 without a gap."""
        numbers: dict[tuple[str, str], list[int]] = {}
        for published in self.outbox:
            numbers.setdefault((published.event.TOPIC, published.aggregate_id), []).append(published.sequence)
        for key, found in numbers.items():
            assert found == list(range(1, len(found) + 1)), key
