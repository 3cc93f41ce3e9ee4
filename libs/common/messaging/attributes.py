"""What the headers of a record may hold: text on one line, of bounded lengths, with numbers and times that can be kept.

Our own events are held to what their readers need, those of others to all of it.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from asyncpg.pgproto import pgproto

from libs.common.contracts.external import CANONICAL_UUID, CONTROLS, FIRST_YEAR, LAST_YEAR, RFC3339

MAX_SEQUENCE = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259 §6)."""
MAX_SEQUENCE_DIGITS = 16
MAX_TEXT = 256
"""Of a header's characters, unless `LONGER` says otherwise."""
LONGER = {"ce_source": 1_024, "ce_dataschema": 1_024, "ce_partitionkey": 1_024, "tracestate": 512}
MAX_HEADERS_BYTES = 16_384
MAX_ORIGIN = 64
MAX_POSITION_DIGITS = 18
"""Of each number in a relay's position: a column can hold it."""

Position = tuple[int, int, int]
"""Where a relay sent an event: (timeline, window, ordinal). Rises for ever, also across a failover."""

_CONTROLS = re.compile(f"[{CONTROLS}]")
_JSON_TYPE = re.compile(rb"application/(?:json|[\w.+-]+\+json)\s*(?:;.*)?", re.IGNORECASE)


class UnusableError(ValueError):
    """A record that nobody can use, under a reason of its own."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def version_of(schema: str, type_: str) -> int:
    """The version that a `ce_dataschema` names, which is of this type."""
    stem, _, version = schema.rpartition(":")
    if stem != f"urn:cartwright:schema:{type_}" or not version.isdecimal() or len(version) > MAX_ORIGIN:
        raise ValueError(f"ce_dataschema of version 1 is urn:cartwright:schema:{type_}:1, and not {schema[:MAX_TEXT]}")
    return int(version)


@lru_cache(maxsize=10_000)
def tenant_of(text: bytes) -> UUID:
    """There are few tenants and many messages, and making a UUID costs as much as reading the payload."""
    written = text.decode()
    if not CANONICAL_UUID.fullmatch(written):
        raise ValueError(f"ce_tenantid {written[:MAX_TEXT]!r} is no UUID with its four hyphens")
    tenant_id: UUID = pgproto.UUID(written)
    return tenant_id


def demand_text(raw: Mapping[str, bytes]) -> None:
    """Every header must be UTF-8 that a column can keep, also those that nobody here reads. Raises ValueError."""
    together = b"".join(raw.values())
    if not together.isascii():
        for value in raw.values():
            value.decode()
    if b"\0" in together:
        raise ValueError("a header has U+0000 in it")
    if len(together) > MAX_HEADERS_BYTES:
        raise ValueError(f"the headers have {len(together)} bytes; the limit is {MAX_HEADERS_BYTES}")


def demand_json(raw: Mapping[str, bytes]) -> None:
    """Refuse a payload that says of itself that it is something else, or the whole event. Raises UnusableError."""
    content_type = raw.get("content-type")
    if content_type is None or content_type == b"application/json":
        return
    if content_type.lower().startswith(b"application/cloudevents"):
        detail = "send it in Kafka's binary content mode: the attributes as ce_ headers, the data alone as the payload"
        raise UnusableError("structured-mode", detail)
    if not _JSON_TYPE.fullmatch(content_type):
        shown = content_type[:MAX_TEXT].decode(errors="backslashreplace")
        raise UnusableError("content-type", f"the payload is application/json, and not {shown}")


def demand_bounds(raw: Mapping[str, bytes], count: int) -> None:
    """What others say of themselves, in so many headers, is said once and fits where it is kept. Raises ValueError."""
    if count != len(raw):
        raise ValueError("a header stands there twice, or has no value")
    demand_json(raw)
    if max(map(len, raw.values())) > MAX_TEXT or not b"".join(raw.values()).decode().isprintable():  # as nearly all do not
        _demand_each(raw)
    for name in ("ce_id", "ce_source"):
        if not raw[name]:
            raise ValueError(f"the header {name} is empty")
    if raw.get("ce_specversion", b"1.0") != b"1.0":
        raise ValueError(f"ce_specversion is 1.0, and not {raw['ce_specversion'].decode()}")


def _demand_each(raw: Mapping[str, bytes]) -> None:
    for name, value in raw.items():
        text = value.decode()
        if _CONTROLS.search(text):
            raise ValueError(f"the header {name} has control characters")
        if len(text) > LONGER.get(name, MAX_TEXT):
            raise ValueError(f"the header {name} has more than {LONGER.get(name, MAX_TEXT)} characters")


def moment_of(text: str, *, strictly: bool) -> datetime:
    """An RFC 3339 time; one without a zone is no moment, and one at the end of time no fact."""
    if strictly and not RFC3339.fullmatch(text):
        raise ValueError(f"ce_time {text!r} is no time of RFC 3339 with its offset, from {FIRST_YEAR} to {LAST_YEAR}")
    moment = datetime.fromisoformat(text.upper() if strictly else text)
    if moment.tzinfo is None:
        raise ValueError(f"ce_time {text!r} has no offset")
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"ce_time {text!r} is not from {FIRST_YEAR} to {LAST_YEAR}")
    return moment


def sequence_of(text: bytes) -> int:
    """A sequence counts from 1, and everybody can read it exactly."""
    if text.isdigit() and len(text) <= MAX_SEQUENCE_DIGITS and text[:1] != b"0" and (sequence := int(text)) <= MAX_SEQUENCE:
        return sequence
    raise ValueError(f"ce_sequence {text[:MAX_TEXT].decode()!r} is no integer from 1 to {MAX_SEQUENCE}, in digits alone")


def parse_position(text: str) -> tuple[str, Position | None]:
    """Split `<database>/<timeline>.<window>.<ordinal>`; a foreign publisher has none. Raises ValueError."""
    if "/" not in text:
        return "", None
    window_of, _, ordinal = text.rpartition(".")
    origin, timeline, window = _window(window_of)
    return origin, (timeline, window, _number(ordinal))


@lru_cache(maxsize=1_000)
def _window(text: str) -> tuple[str, int, int]:
    """The messages of one window come together."""
    origin, _, numbers = text.rpartition("/")
    timeline, _, window = numbers.partition(".")
    if len(origin) > MAX_ORIGIN:
        raise ValueError(f"ce_relayposition names a database of more than {MAX_ORIGIN} characters")
    return origin, _number(timeline), _number(window)


def _number(text: str) -> int:
    """A part of a position, which is kept as the number it is."""
    if text.isdecimal() and text.isascii() and len(text) <= MAX_POSITION_DIGITS:
        return int(text)
    raise ValueError(f"ce_relayposition has {text[:MAX_ORIGIN]!r} where a number of {MAX_POSITION_DIGITS} digits at most belongs")
