"""What a service decides with: messages come in, aggregates are looked up, changes go out. All of it in memory.

A handler is `refs(message)`, which names the aggregates the message touches, and a function of a `World` in which
those are loaded. It reads with `world.get`, decides in the service's `domain`, and records with `world.save`; the
shell (`shell.py`) loads and stores whole batches around it. There is no other way to write, so no handler can forget
the tenant, the inbox or the outbox.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast
from uuid import UUID

from libs.common.cells import MAIN
from libs.common.contracts import Event
from libs.common.errors import ForeignError, NotFoundError
from libs.common.origin import Origin


@dataclass(frozen=True, kw_only=True, slots=True)
class Aggregate:
    """One row that changes as a whole. A subclass names its own key and adds its state."""

    KEY: ClassVar[str] = "id"
    OWNER: ClassVar[str | None]
    """The attribute that says which subject's it is; None: the whole tenant's. What does not say it is shown to nobody."""
    tenant_id: UUID
    version: int = 0
    """Rises with every change; 0 is not stored yet."""
    sequence: int = 0
    """How many events it has published."""

    @property
    def key(self) -> Any:
        """What identifies it within its tenant."""
        return getattr(self, self.KEY)

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted, and is only kept for what refers to it."""
        return False

    def stepped(self, event_count: int) -> Self:
        """The same state, one version on."""
        shape = shape_of(type(self))
        tenant_id, version, sequence, *own = shape.values(self)
        return shape.made((tenant_id, version + 1, sequence + event_count, *own))

    @property
    def is_news(self) -> bool:
        """Whether somebody may be waiting for it to be as it is now."""
        return True

    @property
    def news(self) -> Iterable[str]:
        """What is called out to those who wait."""
        return (str(self.key),) if self.is_news else ()


A = TypeVar("A", bound=Aggregate)
D = TypeVar("D")
R = TypeVar("R")


def absent(kind: type[Aggregate]) -> NotFoundError:
    """What there is to say of one that is not there, or not for whoever asks."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    return NotFoundError(f"{words.replace(' ', '-')}-not-found", f"there is no such {words} for you")


def foreign(kind: type[Aggregate]) -> ForeignError:
    """What there is to say of one that is another tenant's: the same."""
    error = absent(kind)
    return ForeignError(error.code, error.detail)


def present(kind: type[A], found: A | None) -> A:
    """What was found. Raises NotFoundError if it is not there."""
    if found is None or found.is_gone:
        raise absent(kind)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who looks or gives a command, as far as a decision needs to know: whose things are their business."""

    subject_id: UUID
    sees_all: bool
    """Shoppers see what is theirs; everybody else what is their tenant's."""

    def sees(self, aggregate: Aggregate) -> bool:
        """Whether it is any of their business."""
        owner = aggregate.OWNER
        return self.sees_all or owner is None or getattr(aggregate, owner) == self.subject_id

    def own(self, kind: type[Aggregate]) -> Mapping[str, UUID]:
        """What the attributes of a kind must be for a list to hold nothing else."""
        owner = kind.OWNER
        return {} if self.sees_all or owner is None else {owner: self.subject_id}

    def demand(self, kind: type[A], found: A | None) -> A:
        """What was found. Raises NotFoundError if it is not there, or none of their business: the two are not told apart."""
        return present(kind, found if found is not None and self.sees(found) else None)


class Shape(Generic[A]):
    """The fields of one kind of aggregate: takes states apart, and puts them together.

    A frozen class sets each of its fields by name, which takes longer, and this is done twice a message.
    """

    __slots__ = ("_kind", "_setters", "names", "values")

    def __init__(self, kind: type[A]) -> None:
        self._kind = kind
        self.names = tuple(field.name for field in fields(kind))
        self.values: Callable[[A], tuple[Any, ...]] = attrgetter(*self.names)
        """A state's values, in the order of the names."""
        self._setters = [getattr(kind, name).__set__ for name in self.names]  # every slot has one

    def made(self, values: Iterable[Any]) -> A:
        """The state with these values, one for each name."""
        state: A = object.__new__(self._kind)
        for setter, value in zip(self._setters, values, strict=True):
            setter(state, value)
        return state


_SHAPES: dict[type[Any], Shape[Any]] = {}


def shape_of(kind: type[A]) -> Shape[A]:
    """The one shape of a kind."""
    shape = _SHAPES.get(kind)
    if shape is None:
        shape = _SHAPES[kind] = Shape(kind)
    return shape


@dataclass(slots=True, kw_only=True)
class Message(Generic[D]):
    """A command or an event with the circumstances it came in."""

    data: D
    tenant_id: UUID
    id: str
    time: datetime
    source: str = ""
    actor: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    """The id of the message that led to this one."""
    traceparent: str | None = None
    sequence: int = 0
    origin: Origin | None = None
    """Who asks, for the audit trail; an event has none: what led to it has told it where it was asked."""


@dataclass(slots=True, unsafe_hash=True)
class Ref:
    """An aggregate that a message touches. A shared one is read without a lock and must not be saved."""

    kind: type[Aggregate]
    key: Any
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """An event on its way to the outbox, numbered within its aggregate."""

    event: Event
    aggregate_id: str
    sequence: int
    cause: Message[Any]


class Changed(NamedTuple):
    """What one act changed, on its way to the audit trail."""

    message: Message[Any]
    origin: Origin
    before: Aggregate | None
    after: Aggregate


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What is stored under this tenant and key, and is no aggregate."""

    tenant_id: UUID
    key: Any
    error: Exception
    bookmark: Sequence[Any] = ()
    """Its place in the page that it was found in."""


class UnreadableError(Exception):
    """A decision needs an aggregate whose row cannot be read: it fails, and no other with it."""

    code = "unreadable-row"

    def __init__(self, ref: "Ref", cause: Exception) -> None:
        super().__init__(f"the row of {ref.kind.__name__} {ref.key} cannot be read: {cause}")


class NotLoadedError(Exception):
    """A handler asked for an aggregate that it had not declared in its refs."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"{ref.kind.__name__} {ref.key} is not among the refs of this handler")
        self.ref = ref


Identity = tuple[type[Aggregate], UUID, Any]
"""Where an aggregate stands in the identity map: its kind, tenant and key."""


class Entry:
    """One aggregate in the map: as it was stored, and as the decisions so far have left it."""

    __slots__ = ("is_known", "kind", "place", "state", "stored_version")

    def __init__(self, kind: type[Aggregate], *place: Any) -> None:
        self.kind = kind
        self.place = place
        """Its tenant and key."""
        self.is_known = False
        """Whether it was looked for in the database, or made by a decision that stands."""
        self.state: Aggregate | None = None
        self.stored_version = 0


class Entries(dict[Identity, Entry]):
    """An entry for every identity that is asked for, known or not."""

    def __missing__(self, identity: Identity) -> Entry:
        entry = self[identity] = Entry(*identity)
        return entry


class IdentityMap:
    """The aggregates of one batch, and what was decided about them."""

    def __init__(self) -> None:
        self.entries = Entries()
        self.changed: dict[Entry, None] = {}
        self.published: list[Published] = []
        self.reminders: dict[tuple[UUID, str, UUID], datetime] = {}
        """When to remind of what, by tenant, name and key (`timers.py`)."""
        self.acts: list[Changed] = []
        self.unreadable: dict[Entry, Exception] = {}
        """Those that are there, and that nobody can read. They are known to no decision."""

    def put_loaded(self, kind: type[Aggregate], wanted: Iterable[Entry], rows: Iterable[Aggregate | Unreadable]) -> None:
        """Take what the database has of this kind; what was wanted and is not there is known to be absent."""
        for entry in wanted:
            entry.is_known = True
        key = attrgetter(kind.KEY)
        for row in rows:
            if isinstance(row, Unreadable):
                entry = self.entries[kind, row.tenant_id, row.key]
                entry.is_known, self.unreadable[entry] = False, row.error
                continue
            entry = self.entries[kind, row.tenant_id, key(row)]
            entry.state, entry.stored_version = row, row.version

    def missing(self, tenant_id: UUID, refs: Iterable[Ref]) -> Iterator[Ref]:
        """Those of the refs that nobody has loaded yet."""
        return (ref for ref in refs if not self.entries[ref.kind, tenant_id, ref.key].is_known)


class World:
    """All that one decision may see and do: its tenant's loaded aggregates, the time, and new ids.

    What it saves is kept apart until the decision is over, so that one that fails halfway leaves nothing behind.
    """

    def __init__(
        self, aggregates: IdentityMap, message: Message[Any], now: datetime, new_id: Callable[[], UUID], cell: str = MAIN
    ) -> None:
        self.now, self.new_id, self.cell = now, new_id, cell
        self.tenant_id = message.tenant_id
        self._aggregates = aggregates
        self._message = message
        self._saved: dict[Entry, Aggregate] = {}
        self._published: list[Published] = []
        self._reminders: dict[tuple[UUID, str, UUID], datetime] = {}

    def get(self, kind: type[A], key: Any) -> A | None:
        """The aggregate as the decisions before this one left it; None when there is none."""
        entry = self._aggregates.entries[kind, self.tenant_id, key]
        if entry in self._saved:
            return cast("A", self._saved[entry])
        if not entry.is_known:
            unreadable = self._aggregates.unreadable.get(entry)
            raise NotLoadedError(Ref(kind, key)) if unreadable is None else UnreadableError(Ref(kind, key), unreadable)
        return cast("A | None", entry.state)

    def save(self, state: A, *events: Event) -> A:
        """Record the aggregate's next state and what it publishes; answers the state as it will be stored."""
        first = state.sequence + 1
        state = state.stepped(len(events))
        self._saved[self._aggregates.entries[type(state), state.tenant_id, state.key]] = state
        for sequence, event in enumerate(events, first):
            self.publish(event, sequence)
        return state

    def publish(self, event: Event, sequence: int, *, by: str | None = None) -> None:
        """Publish for something that is no aggregate of ours, and so must say its own number; `by` its other key."""
        if by not in (None, event.OR_BY):
            raise TypeError(f"{event.TYPE} has no key by {by}: nobody would believe it")
        self._published.append(Published(event, str(getattr(event, by or event.AGGREGATE)), sequence, self._message))

    def remind(self, name: str, key: UUID, at: datetime) -> None:
        """Ask for the command of this name and key at a time. There is one timer for both, and the last word counts."""
        self._reminders[self.tenant_id, name, key] = at

    def on_record(self, origin: Origin) -> None:
        """Tell the audit trail of each change of this decision, which stands from here on."""
        self._aggregates.acts += [Changed(self._message, origin, entry.state, state) for entry, state in self._saved.items()]

    def commit(self) -> None:
        """Let the decision stand: later decisions of the batch see it."""
        for entry, state in self._saved.items():
            entry.state, entry.is_known = state, True
            self._aggregates.changed[entry] = None
        self._aggregates.published.extend(self._published)
        self._aggregates.reminders.update(self._reminders)


Refs = Callable[[Message[Any]], Iterable[Ref]]
More = Callable[[World, Message[Any]], Iterable[Ref]]


@dataclass(frozen=True, slots=True)
class Handler(Generic[D, R]):
    """What happens to one type of message."""

    decide: Callable[[World, Message[D]], R]
    refs: Refs
    more: More | None = None
    """A second round of refs, for those that only the first can name."""
    is_delta: bool = False
    """Applying it twice would show, so a foreign publisher's message is remembered by its id."""
    unaudited: str | None = None
    """Why the audit trail does not tell of it. None: it does, whenever anybody but a shopper asks for it."""
    always_audited: bool = False
    """Whether it does also when the service asks for it of its own accord."""
    outlives: bool = False
    """Whether it is decided also for a tenant that is erased."""


@dataclass(slots=True)
class Handlers:
    """The table `message type → handler` of a service."""

    table: dict[type[Any], Handler[Any, Any]] = field(default_factory=dict)
    discards: dict[type[Any], Handler[Any, Any]] = field(default_factory=dict)

    def on(
        self,
        data_type: type[D],
        refs: Callable[[Message[D]], Iterable[Ref]],
        more: More | None = None,
        *,
        is_delta: bool = False,
        unaudited: str | None = None,
        always_audited: bool = False,
        outlives: bool = False,
    ) -> Callable[[Callable[[World, Message[D]], R]], Callable[[World, Message[D]], R]]:
        """Register the function below for this command or event."""

        def register(decide: Callable[[World, Message[D]], R]) -> Callable[[World, Message[D]], R]:
            self.table[data_type] = Handler(decide, refs, more, is_delta, unaudited, always_audited, outlives)
            return decide

        return register

    def on_discard(
        self, data_type: type[D], refs: Callable[[Message[D]], Iterable[Ref]]
    ) -> Callable[[Callable[[World, Message[D]], None]], Callable[[World, Message[D]], None]]:
        """Register what is recorded when an operator discards a parked message of this type: that it will never come."""

        def register(decide: Callable[[World, Message[D]], None]) -> Callable[[World, Message[D]], None]:
            self.discards[data_type] = Handler(decide, refs)
            return decide

        return register

    def __getitem__(self, data_type: type[Any]) -> Handler[Any, Any]:
        return self.table[data_type]

    def events(self) -> Sequence[type[Event]]:
        """The event types among the handled messages, so that the inbox knows what to read."""
        return [data_type for data_type in self.table if issubclass(data_type, Event)]
