"""An append-only order of ids that pages in Stripe's way, newest first, at the cost of the page alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.local.fake_stripe.errors import invalid, missing_object
from deploy.local.fake_stripe.form import Form

_PAGE_LIMIT = 100


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


class Listing:
    """Ids in the order they were made; their times never fall, so a time range is two binary searches."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._created: list[int] = []
        self._position: dict[str, int] = {}

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._position

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def add(self, object_id: str, created: int) -> None:
        """Append an id unless it is known."""
        if object_id not in self._position:
            self._position[object_id] = len(self._ids)
            self._ids.append(object_id)
            self._created.append(created)

    def page(self, window: Window) -> Page:
        """Cut one page out; the cursors must be in the listing."""
        low = 0 if window.since is None else bisect_left(self._created, window.since)
        high = len(self._ids) if window.until is None else bisect_right(self._created, window.until)
        if window.ending_before is not None:
            low = max(low, self._position[window.ending_before] + 1)
            end = min(low + window.limit, high)
            return Page(self._ids[low:end][::-1], has_more=end < high)
        if window.starting_after is not None:
            high = min(high, self._position[window.starting_after])
        start = max(low, high - window.limit)
        return Page(self._ids[start : max(start, high)][::-1], has_more=start > low)


def read_window(form: Form, listing: Listing, kind: str) -> Window:
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
