"""The objects of one kind in one account: by id, in the order they were made, and in that order by what they belong to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import orjson

from deploy.local.fake_stripe.errors import missing_object
from deploy.local.fake_stripe.listing import Listing
from deploy.local.fake_stripe.store import Store

_KEPT_IN_MEMORY = 1_000
"""Objects of a kind in an account that were touched last: a payment's calls come one soon after the other."""


class Thing(Protocol):
    """What every object of Stripe's has."""

    @property
    def id(self) -> str:
        """Its id, unique in all accounts."""

    @property
    def created(self) -> int:
        """When it was made, in Unix seconds."""


T = TypeVar("T", bound=Thing)


class Shelf(Generic[T]):
    """Objects of one kind; those named in `attributes` are also listed by the value they have when they are made."""

    def __init__(
        self, store: Store, account: str, kind: str, read: Callable[[Mapping[str, Any]], T], attributes: tuple[str, ...] = ()
    ) -> None:
        self.kind = kind
        self._store, self._account, self._read = store, account, read
        self._attributes = attributes
        self._near: OrderedDict[str, T] = OrderedDict()
        names = "".join(f", {name}" for name in attributes)
        marks = ", ?" * len(attributes)
        self._put = (
            f"INSERT INTO thing (account, kind, id, created, body{names}) VALUES (?, ?, ?, ?, ?{marks}) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        )

    def __len__(self) -> int:
        statement = "SELECT count(*) FROM thing WHERE account = ? AND kind = ?"
        return sum(count for (count,) in self._store.read(statement, self._account, self.kind))

    def __iter__(self) -> Iterator[T]:
        statement = "SELECT body FROM thing WHERE account = ? AND kind = ? ORDER BY created, seq"
        return (self._decoded(body) for (body,) in self._store.read(statement, self._account, self.kind))

    def find(self, object_id: str | None) -> T | None:
        """Return the object, or None."""
        if object_id is None:
            return None
        thing = self._near.get(object_id)
        if thing is None:
            statement = "SELECT body FROM thing WHERE id = ? AND account = ? AND kind = ?"
            if object_id in self._store.gathered(self._put):
                self._store.flush()
            row = self._store.first(statement, object_id, self._account, self.kind)
            if row is None:
                return None
            thing = self._decoded(row[0])
            self._keep_near(thing)
        return thing

    def get(self, object_id: str, *, param: str = "id", status: int = 404) -> T:
        """Return the object, or refuse as Stripe does."""
        thing = self.find(object_id)
        if thing is None:
            raise missing_object(self.kind, object_id, param=param, status=status)
        return thing

    def those(self, ids: Sequence[str]) -> list[T]:
        """Return the objects of a page, in its order; those that nobody else asks for are not kept in memory."""
        statement = f"SELECT id, body FROM thing WHERE id IN ({', '.join('?' * len(ids))})"  # noqa: S608
        found = {id_: self._decoded(body) for id_, body in self._store.read(statement, *ids)}
        return [found[id_] for id_ in ids]

    def put(self, thing: T) -> None:
        """Take over an object, new or changed."""
        values = (getattr(thing, name) for name in self._attributes)
        self._store.write(self._put, thing.id, self._account, self.kind, thing.id, thing.created, thing, *values)
        self._keep_near(thing)

    def remove(self, object_id: str) -> None:
        """Forget an object."""
        self._near.pop(object_id, None)
        self._store.delete("DELETE FROM thing WHERE id = ?", object_id)

    def listing(self, **wanted: str | None) -> Listing:
        """Return the order of all objects, or of those with these attributes; a filter of None filters nothing."""
        given = {attribute: value for attribute, value in wanted.items() if value is not None}
        condition = "".join(f" AND {attribute} = ?" for attribute in given)
        return Listing(self._store, self._account, self.kind, condition, tuple(given.values()))

    def only(self, fits: Callable[[T], bool]) -> Listing:
        """Return the order of the objects that fit, at the cost of looking at each."""
        return Listing(self._store, self._account, self.kind, fits=lambda body: fits(self._decoded(body)))

    def _decoded(self, body: bytes) -> T:
        return self._read(orjson.loads(body))

    def _keep_near(self, thing: T) -> None:
        self._near[thing.id] = thing
        self._near.move_to_end(thing.id)
        if len(self._near) > _KEPT_IN_MEMORY:
            self._near.popitem(last=False)
