"""The objects of one kind in one account: by id, in the order they were made, and in that order by what they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from deploy.local.fake_stripe.errors import missing_object
from deploy.local.fake_stripe.listing import Listing


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

    def __init__(self, kind: str, *attributes: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._order = Listing()
        self._by = {attribute: defaultdict[str, Listing](Listing) for attribute in attributes}

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[T]:
        return iter(self._things.values())

    def find(self, object_id: str | None) -> T | None:
        """Return the object, or None."""
        return None if object_id is None else self._things.get(object_id)

    def get(self, object_id: str, *, param: str = "id", status: int = 404) -> T:
        """Return the object, or refuse as Stripe does."""
        try:
            return self._things[object_id]
        except KeyError:
            raise missing_object(self.kind, object_id, param=param, status=status) from None

    def put(self, thing: T) -> None:
        """Take over an object, new or changed."""
        if thing.id not in self._things:
            self._order.add(thing.id, thing.created)
            for attribute, listings in self._by.items():
                value = getattr(thing, attribute)
                if value is not None:
                    listings[value].add(thing.id, thing.created)
        self._things[thing.id] = thing

    def remove(self, object_id: str) -> None:
        """Forget an object; the order is built again, since few are ever removed."""
        del self._things[object_id]
        self._order = self.only(lambda _: True)

    def listing(self, **wanted: str | None) -> Listing:
        """Return the order of all objects, or of those with this attribute; a filter of None filters nothing."""
        given = {attribute: value for attribute, value in wanted.items() if value is not None}
        if not given:
            return self._order
        (attribute, value), *others = given.items()
        listing = self._by[attribute].get(value, Listing())
        if not others:
            return listing
        return self.only(lambda thing: all(getattr(thing, name) == other for name, other in others), listing)

    def only(self, fits: Callable[[T], bool], within: Listing | None = None) -> Listing:
        """Return the order of the objects that fit, at the cost of looking at each."""
        listing = Listing()
        for object_id in self._order if within is None else within:
            thing = self._things.get(object_id)
            if thing is not None and fits(thing):
                listing.add(object_id, thing.created)
        return listing
