"""Whom a record is believed: our own events their owner's relay alone, those of others everybody who is none of ours.

And about whom: key, headers and payload must name one tenant and one aggregate, for none of them alone is believed.
"""

from collections.abc import Mapping
from functools import cache
from uuid import UUID

from libs.common.clock import PLATFORM
from libs.common.contracts import ANYBODY, OTHERS, Event
from libs.common.messaging.attributes import MAX_TEXT, Position, UnusableError

FOREIGN_SOURCE = "foreign-source"
MISMATCH = "tenant-mismatch"

_OURS = "/cartwright/"
_SAME_TENANT = "tenant_id"
"""The field of an aggregate that is a tenant itself."""


def source_of(service: str) -> str:
    """What a service calls itself in the events that it publishes."""
    return f"{_OURS}{service}"


@cache
def _source(service: str) -> bytes:
    return source_of(service).encode()


def demand_origin(event: type[Event], raw: Mapping[str, bytes], origin: str, position: Position | None) -> None:
    """Refuse an event from whom it cannot come. Raises UnusableError.

    A relay's position counts only where its service is the one to speak: a mark of another's name, set as high as a
    stranger likes, would have all that this one says later taken for repetitions.
    """
    publisher = event.PUBLISHER
    if publisher == ANYBODY:
        return
    if publisher == OTHERS:
        if raw["ce_source"][: len(_OURS)].lower() == _OURS.encode():
            raise UnusableError(FOREIGN_SOURCE, f"{_shown(raw)} is a name of our own services, which say nothing here")
        if "ce_relayposition" in raw:
            raise UnusableError(FOREIGN_SOURCE, "ce_relayposition is our own relays', which send nothing here")
        return
    expected = _source(publisher)
    if raw["ce_source"] != expected:
        raise UnusableError(FOREIGN_SOURCE, f"{event.TYPE} is {expected.decode()}'s to say, and not {_shown(raw)}'s")
    if position is None or origin.partition(".")[0] != publisher:
        raise UnusableError(FOREIGN_SOURCE, f"{event.TYPE} comes with a position of the relay of {publisher}, and this did not")


def _shown(raw: Mapping[str, bytes]) -> str:
    return raw["ce_source"].decode()[:MAX_TEXT]


def demand_one_subject(event: type[Event], key: bytes | None, raw: Mapping[str, bytes], tenant_id: UUID, data: object) -> None:
    """Refuse an event that names two tenants or two aggregates. Raises UnusableError.

    The letters of a UUID may be upper or lower case, as RFC 9562 has it; everything else is compared as it is.
    """
    aggregate = getattr(data, event.AGGREGATE)
    if tenant_id == PLATFORM and event.PUBLISHER == OTHERS:
        raise UnusableError(MISMATCH, "the nil UUID is the platform, about which others say nothing")
    if event.AGGREGATE == _SAME_TENANT and aggregate != tenant_id:
        raise UnusableError(MISMATCH, f"the payload is of tenant {aggregate}, and ce_tenantid {tenant_id}")
    leads = tenant_id if event.KEYED_BY_TENANT else PLATFORM
    why = _mismatch(key, raw, leads, aggregate)
    if why and (event.OR_BY is None or _mismatch(key, raw, leads, getattr(data, event.OR_BY))):
        raise UnusableError(MISMATCH, why)


def _mismatch(key: bytes | None, raw: Mapping[str, bytes], tenant_id: UUID, aggregate: object) -> str | None:
    """What does not name this aggregate of this tenant."""
    subject, is_id = str(aggregate), isinstance(aggregate, UUID)
    expected = subject if tenant_id == PLATFORM else f"{tenant_id}:{subject}"
    written = expected.encode()
    if key != written and not _is(key, expected, is_id=is_id):
        return f"the key {(key or b'').decode()[:MAX_TEXT]!r} is not of tenant {tenant_id} and aggregate {subject!r}"
    named = raw.get("ce_partitionkey", written)
    if named != written and not _is(named, expected, is_id=is_id):
        return f"ce_partitionkey {named.decode()[:MAX_TEXT]!r} is not the key"
    about = raw["ce_subject"].decode() if "ce_subject" in raw else subject
    if about != subject and not (is_id and about.lower() == subject):
        return f"ce_subject {about[:MAX_TEXT]!r} is not the aggregate {subject!r}"
    return None


def _is(key: bytes | None, expected: str, *, is_id: bool) -> bool:
    """Whether this is the key with some of its UUIDs in capitals."""
    tenant, colon, aggregate = (key or b"").decode().partition(":")
    return bool(colon) and f"{tenant.lower()}:{aggregate.lower() if is_id else aggregate}" == expected
