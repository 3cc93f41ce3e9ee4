"""The published language: every event another system may see, one module per publisher.

Plain frozen dataclasses and nothing else, so that a contract can be read without knowing a framework. Bounds are
`annotated_types` metadata: whoever validates (the inbox does) may honour them, whoever only reads need not.

Evolving an event: an optional field may be added and keeps the version. Anything else is a new class with a higher
`version`, published beside the old one until nobody reads that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeVar, dataclass_transform

from annotated_types import Ge, Le, MaxLen, MinLen

__all__ = [
    "ANYBODY",
    "EVENTS",
    "EXTERNAL_TOPICS",
    "OTHERS",
    "Currency",
    "Event",
    "KeptSku",
    "Minor",
    "Quantity",
    "Sequence",
    "Text",
    "event",
]

EXTERNAL_TOPICS = frozenset({"catalog.v1", "inventory.v1", "fulfilment.v1"})
"""Where others publish. What stands there is read strictly (`external.py`), for nobody of ours has judged it before."""

OTHERS = ""
"""In the place of a publisher: systems that are not ours."""
ANYBODY = "*"
"""In the place of a publisher: a topic on which every claim is taken as it is. No event of the language is on one."""

KeptSku = Annotated[str, MinLen(1), MaxLen(64)]
"""A SKU in an event of ours: whoever took it in has judged it (`external.Sku`)."""
Text = Annotated[str, MaxLen(500)]
Currency = Annotated[str, MinLen(3), MaxLen(3)]
Quantity = Annotated[int, Ge(1), Le(1_000_000)]
Minor = Annotated[int, Ge(0), Le(9_000_000_000_000_000)]
Sequence = Annotated[int, Ge(1)]


class Event:
    """What every event class says of itself."""

    __slots__ = ()
    TOPIC: ClassVar[str]
    TYPE: ClassVar[str]
    VERSION: ClassVar[int]
    AGGREGATE: ClassVar[str]
    OR_BY: ClassVar[str | None]
    """The field that names the key instead where there is no such aggregate, or not one of the publisher's."""
    KEYED_BY_TENANT: ClassVar[bool]
    """Whether the tenant leads the Kafka key: of what names a tenant. Else the aggregate's id is all of it."""
    PUBLISHER: ClassVar[str]
    """The service that alone may say it, or OTHERS."""


EVENTS: dict[tuple[str, str, int], type[Event]] = {}
"""Every event of the language by (topic, type, version)."""

E = TypeVar("E", bound=Event)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def event(
    topic: str,
    type_: str,
    *,
    aggregate: str,
    or_by: str | None = None,
    version: int = 1,
    publisher: str | None = None,
    keyed_by_tenant: bool = True,
) -> Callable[[type[E]], type[E]]:
    """Declare an event: its topic, its `ce_type`, and the field that names its aggregate (the Kafka key).

    Its publisher is the service that its module is named after, unless said otherwise.
    """

    def declare(cls: type[E]) -> type[E]:
        frozen = dataclass(frozen=True, kw_only=True, slots=True)(cls)
        own = OTHERS if topic in EXTERNAL_TOPICS else cls.__module__.rpartition(".")[2]
        frozen.OR_BY, frozen.PUBLISHER = or_by, own if publisher is None else publisher
        frozen.KEYED_BY_TENANT = keyed_by_tenant
        frozen.TOPIC, frozen.TYPE, frozen.VERSION, frozen.AGGREGATE = topic, type_, version, aggregate
        EVENTS[topic, type_, version] = frozen
        return frozen

    return declare
