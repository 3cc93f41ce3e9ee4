"""An order's story, as the published events of all services tell it: what happened, why, and how long it took. Pure.

An entry is written down once for each event and never changed. What leads from one to the next is found when the story is
told: most entries name the event that caused them. A cause that is no event is how something began (a request, a webhook, a
timer), and a call to the provider follows from the event that asks for one. No event of identity's concerns an order.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from libs.common.contracts import Event
from libs.common.contracts.payments import ProviderCalled
from libs.common.decision import Aggregate, Message

Detail = str | int | bool


class EntryKind(StrEnum):
    """What sort of thing happened."""

    REQUEST = "request"
    WEBHOOK = "webhook"
    TIMER = "timer"
    EVENT = "event"
    PROVIDER_CALL = "provider-call"


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineEntry(Aggregate):
    """One event that concerns an order, or the checkout that it comes from."""

    id: str
    """The event's id; a foreign one is told apart by who published it."""
    story_id: UUID
    """The checkout's id; the order's, in events that name no checkout."""
    at: datetime
    """When it happened; of a call to the provider, when it began."""
    service: str
    kind: EntryKind
    name: str
    cause: str
    """The id of the message that led to it; empty if nobody said."""
    duration_ms: int | None = None
    trace_id: str | None = None
    actor: str
    details: dict[str, Detail] = field(default_factory=dict)

    @property
    def event_id(self) -> str:
        """The event's id as its publisher gave it, which is how causes are named."""
        return self.id.rpartition(" ")[2]


OURS = "/cartwright/"
TOLD = (
    *("reason", "code", "outcome", "attempt", "number", "amount_minor", "captured_minor", "refunded_minor", "currency"),
    *("payment_id", "refund_id", "dispute_id", "shipment_id", "return_id", "restock"),
)
"""What an entry repeats of its event: enough to see what happened, and nothing that is long."""


def entry_of(message: Message[Any]) -> TimelineEntry | None:
    """The entry that an event makes; None if it names neither a checkout nor an order."""
    event: Event = message.data
    story_id = getattr(event, "checkout_id", None) or getattr(event, "order_id", None)
    if story_id is None:
        return None
    details = {name: _detail(value) for name in TOLD if (value := getattr(event, name, None)) is not None}
    entry = TimelineEntry(
        tenant_id=message.tenant_id,
        id=message.id if message.source.startswith(OURS) else f"{message.source} {message.id}",
        story_id=story_id,
        at=message.time,
        service=message.source.rpartition("/")[2],
        kind=EntryKind.EVENT,
        name=event.TYPE,
        cause=message.causation_id,
        trace_id=message.traceparent.split("-")[1] if message.traceparent and message.traceparent.count("-") > 2 else None,
        actor=message.actor,
        details=details,
    )
    return _of_call(entry, event) if isinstance(event, ProviderCalled) else entry


def _detail(value: Any) -> Detail:
    return value if isinstance(value, str | int) else str(value)


def _of_call(entry: TimelineEntry, call: ProviderCalled) -> TimelineEntry:
    """The event tells of a call that is over; the story wants it where it began.

    Calls that follow each other may be recorded together, so when one began it says; older events leave that to be guessed.
    """
    return replace(
        entry,
        at=call.started_at or entry.at - timedelta(milliseconds=call.duration_ms),
        kind=EntryKind.PROVIDER_CALL,
        name=call.kind,
        duration_ms=call.duration_ms,
    )


# --- Telling it ---------------------------------------------------------------------------------------------------

ASKED_FOR_BY: Mapping[str, tuple[str, ...]] = {
    "create": ("payment.requested",),
    "confirm": ("create", "payment.requested"),
    "capture": ("order.confirmed", "shipment.dispatched"),
    "cancel": ("payment.void-requested", "order.canceled"),
    "refund": ("refund.requested", "order.canceled", "payment.captured"),
}
"""What a call of each kind may follow from, the likeliest first. A reading call follows from the call before it."""

UNDOING = frozenset({"payment.void-requested", "payment.voided", "cart.reopened", "order.canceled", "cancel"})
"""What takes back something that had been done; and whatever follows from it does so too."""

OPERATION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:([1-9][0-9]*)")
"""How payments names a try of an operation at the provider."""
TIMER = re.compile(r"([a-z-]+):[0-9a-f-]{36}:\d{4}-.*")
WEBHOOK = "webhook:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """What led to an entry."""

    id: str
    name: str
    is_inferred: bool = False
    """Nobody said so; it is how things are connected here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An entry in its story."""

    entry: TimelineEntry
    cause: Cause | None = None
    after_ms: int | None = None
    """How long after the end of its cause."""
    is_retry: bool = False
    is_compensation: bool = False


def tell(entries: Iterable[TimelineEntry]) -> Sequence[Told]:
    """The story: beginnings added, causes resolved, and no effect before its cause, whatever the services' clocks say."""
    known = sorted(entries, key=lambda entry: (entry.at, entry.id))
    return _Story([*_beginnings(known), *known]).told()


def _beginnings(entries: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    """What is behind those events whose cause was no event, each at the time of its first effect."""
    events = {entry.event_id for entry in entries}
    begun: dict[str, TimelineEntry] = {}
    for entry in entries:
        found = None if entry.cause in events or entry.cause in begun else _beginning(entry)
        if found is not None:
            kind, name = found
            begun[entry.cause] = replace(entry, id=entry.cause, kind=kind, name=name, cause="", duration_ms=None, details={})
    return list(begun.values())


def _beginning(entry: TimelineEntry) -> tuple[EntryKind, str] | None:
    """What its cause was, if that was neither an event nor the outcome of a call."""
    if not entry.cause or OPERATION.fullmatch(entry.cause):
        return None
    if entry.cause.startswith(WEBHOOK):
        return EntryKind.WEBHOOK, "webhook"
    timer = TIMER.fullmatch(entry.cause)
    if timer:
        return EntryKind.TIMER, timer[1]
    if entry.actor.startswith(OURS):
        return EntryKind.TIMER, "look"
    return EntryKind.REQUEST, "request"


class _Story:
    """The entries of one story, in the order of their own clocks, and what connects them."""

    def __init__(self, entries: Sequence[TimelineEntry]) -> None:
        self._entries = entries
        self._by_id = {entry.event_id: entry for entry in entries}
        self._causes: dict[str, tuple[TimelineEntry, bool]] = {}
        self._calls: dict[str, TimelineEntry] = {}
        for entry in entries:
            if entry.kind is EntryKind.PROVIDER_CALL:
                self._calls[entry.cause] = entry  # the last call of a try is the one that settled it
        for place, entry in enumerate(entries):
            found = self._cause(place, entry)
            if found is not None:
                self._causes[entry.id] = found

    def _cause(self, place: int, entry: TimelineEntry) -> tuple[TimelineEntry, bool] | None:
        """The entry that led to this one, and whether that is inferred."""
        if entry.kind is EntryKind.PROVIDER_CALL:
            asked = self._asked_for(place, entry)
            return (asked, True) if asked else None
        named = self._by_id.get(entry.cause) or self._calls.get(entry.cause)
        return (named, False) if named is not None and named is not entry else None

    def _asked_for(self, place: int, call: TimelineEntry) -> TimelineEntry | None:
        """What a call follows from: the nearest event before it that asks for one, or the call before it."""
        before = self._entries[:place][::-1]
        if call.name not in ASKED_FOR_BY:
            return next((entry for entry in before if entry.kind is EntryKind.PROVIDER_CALL), None)
        nearest = (next((entry for entry in before if entry.name == name), None) for name in ASKED_FOR_BY[call.name])
        return next((entry for entry in nearest if entry is not None), None)

    def told(self) -> Sequence[Told]:
        places = {entry.id: self._place(entry) for entry in self._entries}
        ordered = sorted(self._entries, key=lambda entry: places[entry.id])
        return [self._told(entry) for entry in ordered]

    def _chain(self, entry: TimelineEntry) -> list[TimelineEntry]:
        """The entry, what led to it, and so on to the beginning. Causes that go round in circles are followed once."""
        chain = [entry]
        while (found := self._causes.get(chain[-1].id)) is not None and found[0] not in chain:
            chain.append(found[0])
        return chain

    def _place(self, entry: TimelineEntry) -> tuple[datetime, int, str]:
        chain = self._chain(entry)
        return max(each.at for each in chain), len(chain), entry.id

    def _told(self, entry: TimelineEntry) -> Told:
        cause, after_ms = None, None
        found = self._causes.get(entry.id)
        if found is not None:
            led, is_inferred = found
            cause = Cause(id=led.event_id, name=led.name, is_inferred=is_inferred)
            after_ms = max(round((entry.at - led.at).total_seconds() * 1000) - (led.duration_ms or 0), 0)
        return Told(
            entry=entry,
            cause=cause,
            after_ms=after_ms,
            is_retry=_is_retry(entry),
            is_compensation=any(each.name in UNDOING for each in self._chain(entry)),
        )


def _is_retry(entry: TimelineEntry) -> bool:
    """Whether the provider had been asked the same before: under a new key, or again under the same."""
    tried = OPERATION.fullmatch(entry.cause)
    attempt = entry.details.get("attempt", 1)
    return entry.kind is EntryKind.PROVIDER_CALL and (attempt != 1 or (tried is not None and int(tried[1]) > 1))
