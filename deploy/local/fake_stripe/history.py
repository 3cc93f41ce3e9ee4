"""What happened in an account: every change as it was then, from which its events are made when somebody asks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

import orjson

from deploy.local.fake_stripe.errors import missing_object
from deploy.local.fake_stripe.listing import Page, Window, page_of_ids
from deploy.local.fake_stripe.records import Change, Charge, Dispute, Intent, Refund
from deploy.local.fake_stripe.restoring import change_from, change_record
from deploy.local.fake_stripe.store import Store

KIND = "event"
_EVER = 1 << 62
_MARK = 2
"""So many characters behind a change's id tell its events apart."""

Subject = Intent | Charge | Refund | Dispute


@dataclass(frozen=True, slots=True)
class Happened:
    """A change as it was when it happened: the events are made from it when somebody asks."""

    id: str
    at: int
    change: Change
    request_id: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell the world: its type and the object as it was at that moment."""

    id: str
    type: str
    created: int
    subject: Subject
    request_id: str | None
    key: str | None


def write(store: Store, account: str, happened: Happened) -> None:
    """Write down what happened."""
    record = change_record(happened.change)
    if happened.request_id is not None:
        record["request_id"] = happened.request_id
    if happened.key is not None:
        record["key"] = happened.key
    statement = "INSERT OR IGNORE INTO happened (account, id, at, body) VALUES (?, ?, ?, ?)"
    store.write(statement, happened.id, account, happened.id, happened.at, zlib.compress(orjson.dumps(record), 1))


def forget_old(store: Store, before: int) -> None:
    """Delete what is so old, but for what somebody is still owed."""
    if store.first("SELECT 1 FROM happened WHERE at <= ?", before):
        store.delete(
            "DELETE FROM happened WHERE at <= ? AND id NOT IN (SELECT substr(event, 1, length(event) - ?) FROM owed)",
            before,
            _MARK,
        )


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one account; those that `fits` alone, at the cost of looking at each."""

    store: Store
    account: str
    fits: Callable[[Event], bool] = lambda _: True

    def __contains__(self, event_id: object) -> bool:
        """Whether a page may begin behind it."""
        found = self.find(str(event_id))
        return found is not None and self.fits(found)

    def find(self, event_id: str) -> Event | None:
        """Return the event, or None."""
        row = self._row(event_id)
        return None if row is None else next((event for event in _events(row) if event.id == event_id), None)

    def get(self, event_id: str) -> Event:
        """Return the event, or refuse as Stripe does."""
        event = self.find(event_id)
        if event is None:
            raise missing_object(KIND, event_id, param="id")
        return event

    def page(self, window: Window) -> Page:
        """Cut one page out; the cursors must be among the events."""
        since, until = window.since or 0, _EVER if window.until is None else window.until
        back = window.ending_before is not None
        cursor = window.ending_before if back else window.starting_after
        within = "at BETWEEN ? AND ?"
        behind: tuple[int, ...] = ()
        if cursor is not None and (row := self._row(cursor)) is not None:
            within, behind = within + f" AND (at, seq) {'>=' if back else '<='} (?, ?)", (row[2], row[0])
            # Said twice, since SQLite goes through its index by the first of two bounds.
            since, until = (max(since, row[2]), until) if back else (since, min(until, row[2]))
        ids = self._ids(within, (since, until, *behind), newest_first=not back)
        if cursor is not None:
            ids = dropwhile(lambda event_id: event_id != cursor, ids)
            next(ids, None)
        return page_of_ids(ids, window)

    def _ids(self, within: str, values: tuple[int, ...], *, newest_first: bool) -> Iterator[str]:
        direction = "DESC" if newest_first else ""
        statement = (
            f"SELECT seq, id, at, body FROM happened WHERE account = ? AND {within} "  # noqa: S608 - words of our own
            f"ORDER BY at {direction}, seq {direction}"
        )
        for row in self.store.read(statement, self.account, *values):
            events = list(_events(row))
            for event in reversed(events) if newest_first else events:
                if self.fits(event):
                    yield event.id

    def _row(self, event_id: str) -> tuple[Any, ...] | None:
        statement = "SELECT seq, id, at, body FROM happened WHERE id = ? AND account = ?"
        self.store.flush()
        return self.store.first(statement, event_id[:-_MARK], self.account)


def _events(row: tuple[Any, ...]) -> Iterator[Event]:
    _, id_, at, body = row
    record = orjson.loads(zlib.decompress(body))
    return events_of(Happened(id_, at, change_from(record), record.get("request_id"), record.get("key")))


def events_of(happened: Happened) -> Iterator[Event]:
    """Make the events of one change, under ids that are the same whenever they are made."""
    number = 0
    for kind in happened.change.events:
        for subject in _subjects(kind, happened.change):
            event_id = f"{happened.id}{number:02x}"
            yield Event(event_id, kind, happened.at, subject, happened.request_id, happened.key)
            number += 1


def _subjects(kind: str, change: Change) -> tuple[Subject, ...]:
    """Return what an event of this type tells of."""
    if kind.startswith("charge.dispute."):
        return change.disputes
    subject: Subject | None = change.charge
    if kind.startswith("payment_intent."):
        subject = change.intent
    elif kind.startswith("refund.") or kind == "charge.refund.updated":
        subject = change.refund
    return () if subject is None else (subject,)
