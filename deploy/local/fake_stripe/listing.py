"""The order of objects, which pages in Stripe's way, newest first, at the cost of the page alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from deploy.local.fake_stripe.errors import invalid, missing_object
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.store import Store

_PAGE_LIMIT = 100
_EVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Page:
    """The ids of one page, newest first, and whether more lie beyond it in the direction of travel."""

    ids: list[str]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Window:
    """What a list request asks for. Times are Unix seconds, `since` and `until` inclusive."""

    limit: int = 10
    starting_after: str | None = None
    ending_before: str | None = None
    since: int | None = None
    until: int | None = None


class Listed(Protocol):
    """Something that is listed."""

    def __contains__(self, object_id: object) -> bool:
        """Whether a page may begin behind it."""

    def page(self, window: Window) -> Page:
        """Cut one page out; the cursors must be in the listing."""


def page_of_ids(ids: Iterator[str], window: Window) -> Page:
    """Take a page from ids in the direction of travel, which begin behind the cursor."""
    found = list(islice(ids, window.limit + 1))
    page, has_more = found[: window.limit], len(found) > window.limit
    return Page(page[::-1] if window.ending_before is not None else page, has_more)


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of one kind in one account, all or those for which a condition holds; their times never fall."""

    store: Store
    account: str
    kind: str
    condition: str = ""
    values: tuple[Any, ...] = ()
    fits: Callable[[bytes], bool] | None = None
    """Which of them, at the cost of looking at each."""

    def __contains__(self, object_id: object) -> bool:
        """Whether a page may begin behind it."""
        return self._place(object_id) is not None

    def __iter__(self) -> Iterator[str]:
        """The ids of all, oldest first."""
        return self._ids("1", (), "")

    def page(self, window: Window) -> Page:
        """Cut one page out; the cursors must be in the listing."""
        since, until = window.since or 0, _EVER if window.until is None else window.until
        back = window.ending_before is not None
        cursor = window.ending_before if back else window.starting_after
        within = "created BETWEEN ? AND ?"
        behind: tuple[int, ...] = ()
        if cursor is not None and (behind := self._place(cursor) or ()):
            within += f" AND (created, seq) {'>' if back else '<'} (?, ?)"
            # Said twice, since SQLite goes through its index by the first of two bounds.
            since, until = (max(since, behind[0]), until) if back else (since, min(until, behind[0]))
        return page_of_ids(self._ids(within, (since, until, *behind), "" if back else "DESC"), window)

    def _ids(self, within: str, values: Any, direction: str) -> Iterator[str]:
        statement = (
            f"SELECT id{', body' if self.fits else ''} FROM thing WHERE account = ? AND kind = ? {self.condition} AND {within} "  # noqa: S608
            f"ORDER BY created {direction}, seq {direction}"
        )
        for row in self.store.read(statement, self.account, self.kind, *self.values, *values):
            if self.fits is None or self.fits(row[1]):
                yield row[0]

    def _place(self, object_id: object) -> tuple[int, int] | None:
        statement = f"SELECT created, seq, body FROM thing WHERE id = ? AND account = ? AND kind = ? {self.condition}"  # noqa: S608
        self.store.flush()
        row = self.store.first(statement, object_id, self.account, self.kind, *self.values)
        return None if row is None or (self.fits and not self.fits(row[2])) else (row[0], row[1])


def read_window(form: Form, listing: Listed, kind: str) -> Window:
    """Read a list request's `limit`, cursors and `created`; `kind` names the object in a refusal."""
    after, before = form.text("starting_after"), form.text("ending_before")
    if after and before:
        raise invalid("You can only specify one of these parameters: ending_before, starting_after.")
    for param, cursor in (("starting_after", after), ("ending_before", before)):
        if cursor is not None and cursor not in listing:
            raise missing_object(kind, cursor, param=param, status=400)
    since, until = _created_range(form)
    limit = form.integer("limit", low=1, high=_PAGE_LIMIT) or 10
    return Window(limit, after, before, since, until)


def _created_range(form: Form) -> tuple[int | None, int | None]:
    """Read `created` as a moment or as bounds, into inclusive whole seconds."""
    if "created" not in form:
        return None, None
    if form.is_plain("created"):
        moment = form.integer("created")
        return moment, moment
    bounds = form.nested("created")
    bounds.only({"gt", "gte", "lt", "lte"})
    above, below = bounds.integer("gt"), bounds.integer("lt")
    since = [value for value in (bounds.integer("gte"), None if above is None else above + 1) if value is not None]
    until = [value for value in (bounds.integer("lte"), None if below is None else below - 1) if value is not None]
    return max(since, default=None), min(until, default=None)
