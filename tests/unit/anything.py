"""Values of any type, made of few parts: with two ids, three moments and a handful of amounts, things happen to fit."""

import random
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, Literal
from uuid import UUID

from annotated_types import Ge, Le, MaxLen, MinLen

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARTS: Mapping[Any, Sequence[Any]] = {
    UUID: (UUID(int=1), UUID(int=2)),
    bool: (False, True),
    int: (0, 1, 2, 100, 250),
    str: ("", "a", "GBP"),
    float: (0.0, 1.5),
    bytes: (b"a", b"b"),
    Decimal: (Decimal(0), Decimal(20)),
    datetime: (NOW - timedelta(days=1), NOW, NOW + timedelta(days=1)),
    date: (NOW.date(),),
    timedelta: (timedelta(0), timedelta(days=1)),
    Any: (None, 1, "a"),
    object: (None, 1, "a"),
    type(None): (None,),
}


@cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


Known = Callable[["Anything"], Any] | Sequence[Any]


class Anything:
    """The same values again for the same seed. `known` says what a field of this name is made of, whatever its class."""

    def __init__(self, seed: int, known: Mapping[str, Known] | None = None) -> None:
        self.random = random.Random(seed)
        self._known = known or {}

    def of(self, wanted: Any) -> Any:
        """Anything of this type."""
        if wanted in PARTS:
            return self.random.choice(PARTS[wanted])
        origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
        if origin is typing.Annotated:
            return self._within(arguments[0], arguments[1:])
        if origin in (typing.Union, types.UnionType):
            return self.of(self.random.choice(arguments))
        if origin is Literal or (origin is None and issubclass(wanted, Enum)):
            return self.random.choice(arguments or list(wanted))
        return self.made(wanted) if origin is None else self._several(origin, arguments)

    def made(self, kind: type[Any], **given: Any) -> Any:
        """One of these, with these fields as they are given and all others as they come."""
        assert is_dataclass(kind), f"say in PARTS or in `known` what {kind} is made of"
        hints = _hints(kind)
        names = [each.name for each in fields(kind) if each.name not in given]
        return kind(**given, **{name: self._field(name, hints[name]) for name in names})

    def _field(self, name: str, wanted: Any) -> Any:
        known = self._known.get(name)
        if known is None:
            return self.of(wanted)
        return known(self) if callable(known) else self.random.choice(known)

    def _several(self, origin: Any, arguments: Sequence[Any]) -> Any:
        count = self.random.choice((0, 1, 2))
        if origin is dict or issubclass(origin, Mapping):
            return {self.of(arguments[0]): self.of(arguments[1]) for _ in range(count)}
        if origin is tuple and (len(arguments) != 2 or arguments[1] is not ...):
            return tuple(map(self.of, arguments))
        return (tuple if issubclass(origin, tuple) else list)(self.of(arguments[0]) for _ in range(count))

    def _within(self, wanted: Any, bounds: Iterable[Any]) -> Any:
        """A part that keeps to the bounds, as what comes over Kafka does."""
        if wanted not in PARTS:
            return self.of(wanted)
        return self.random.choice([part for part in PARTS[wanted] if all(_keeps(part, bound) for bound in bounds)])


def _keeps(part: Any, bound: Any) -> bool:
    match bound:
        case Ge(ge=least):
            return bool(part >= least)
        case Le(le=most):
            return bool(part <= most)
        case MinLen(min_length=least):
            return len(part) >= least
        case MaxLen(max_length=most):
            return len(part) <= most
        case _:
            return True
