"""CloudEvents 1.0 in Kafka's binary content mode: how an event is written, and how anything at all is read.

Reading trusts nothing: whatever a record holds, the answer is a message, a reason to reject it, or None for what
this service does not react to. What others publish is read more strictly still: `feed validate`, the published schemas
and every consumer ask this one reader.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast
from uuid import UUID

from asyncpg.pgproto import pgproto
from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator, core_schema

from libs.common.clock import PLATFORM, rfc3339
from libs.common.contracts import EVENTS, EXTERNAL_TOPICS, Event
from libs.common.decision import Message, Published
from libs.common.json_text import NotJsonError, pointer_part, read_strictly
from libs.common.messaging.attributes import (
    Position,
    UnusableError,
    demand_bounds,
    demand_json,
    demand_text,
    moment_of,
    parse_position,
    sequence_of,
    tenant_of,
    version_of,
)
from libs.common.messaging.belief import demand_one_subject, demand_origin
from libs.common.messaging.headers import pack
from libs.common.messaging.reading.notes import UNREADABLE, Place, Unreadable, note_of
from libs.common.telemetry import Counter

IGNORED = Counter("cartwright_inbox_ignored_total", "Records of a type that nobody here knows, passed over", ["topic"])

MAX_EVENT_BYTES = 900_000
"""Headers and payload together; a larger event is refused at insert, before the broker could."""

TOLD = 5
"""So many of a payload's errors are told."""

Header = tuple[str, bytes | None]
"""A header of a record may be there with no value at all."""


class KafkaRecord(Protocol):
    """What is read of a consumed record."""

    # Read-only, so that an immutable record will do.
    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[Header]: ...  # noqa: D102


class EventTooLargeError(ValueError):
    """The broker would never take this event, so neither does the outbox."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the outbox: everything the relay needs, already encoded."""

    event_id: UUID
    tenant_id: UUID
    topic: str
    key: bytes
    headers: bytes
    payload: bytes


@dataclass(slots=True)
class Received:
    """A record that is a message for us. `position` is there when one of our relays sent it."""

    record: KafkaRecord
    message: Message[Any]
    origin: str
    position: Position | None


@dataclass(frozen=True, slots=True)
class Invalid:
    """A record that claims to be for us and cannot be used, with the reason."""

    record: KafkaRecord
    reason: str
    detail: str


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def adapter(data_type: type[Any]) -> TypeAdapter[Any]:
    """The reader and writer of one data class, compiled once."""
    if data_type not in _ADAPTERS:
        _ADAPTERS[data_type] = TypeAdapter(data_type)
    return _ADAPTERS[data_type]


_READERS: dict[type[Any], Callable[[bytes], Any]] = {}


def reader(data_type: type[Any]) -> Callable[[bytes], Any]:
    """The reader of one data class, with the ids as the database's client makes them.

    They are told apart and turned into text in C; those of the standard library run Python for it, twenty times a message.
    """
    if data_type not in _READERS:
        read = SchemaValidator(_with_quick_ids(adapter(data_type).core_schema)).validate_json
        _READERS[data_type] = _strictly(read) if getattr(data_type, "TOPIC", None) in EXTERNAL_TOPICS else read
    return _READERS[data_type]


def _strictly(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The same reader for a payload that must mean the same to everybody."""

    def reading(payload: bytes) -> Any:
        read_strictly(payload)
        return read(payload)

    return reading


_QUICK_ID = core_schema.chain_schema([core_schema.str_schema(), core_schema.no_info_plain_validator_function(pgproto.UUID)])


def _with_quick_ids(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_quick_ids(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "uuid":
        return _QUICK_ID
    return {name: _with_quick_ids(each) for name, each in schema.items()}


def schema_of(event: type[Event]) -> str:
    """The name of an event's schema, which tells its version."""
    return f"urn:cartwright:schema:{event.TYPE}:{event.VERSION}"


def encode(published: Published, *, source: str, event_id: UUID, time: datetime) -> Row:
    """Write an event as the relay will send it, except for its position, which only the relay knows."""
    event, cause = published.event, published.cause
    tenant_id = cause.tenant_id
    checkout_id = getattr(event, "checkout_id", None)
    is_alone = tenant_id == PLATFORM or not event.KEYED_BY_TENANT
    partition_key = published.aggregate_id if is_alone else f"{tenant_id}:{published.aggregate_id}"
    headers = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", str(event_id)),
        ("ce_source", source),
        ("ce_type", event.TYPE),
        ("ce_dataschema", schema_of(type(event))),
        ("ce_subject", published.aggregate_id),
        ("ce_time", rfc3339(time)),
        ("ce_tenantid", str(tenant_id)),
        ("ce_partitionkey", partition_key),
        ("ce_correlationid", str(checkout_id) if checkout_id else cause.correlation_id),
        ("ce_causationid", cause.id),
        ("ce_sequence", str(published.sequence)),
        ("ce_actor", cause.actor),
    ]
    if cause.traceparent:
        headers.append(("traceparent", cause.traceparent))
    payload = adapter(type(event)).dump_json(event, exclude_none=True)
    row = Row(event_id, tenant_id, event.TOPIC, partition_key.encode(), pack(headers), payload)
    if len(row.headers) + len(payload) > MAX_EVENT_BYTES:
        reason = f"{event.TYPE} of {published.aggregate_id} has {len(payload)} bytes; the limit is {MAX_EVENT_BYTES}"
        raise EventTooLargeError(reason)
    return row


class Reader:
    """Turns records into messages for one service: the event types it reacts to, on topics with this prefix."""

    def __init__(self, reacts_to: Iterable[type[Event]], *, topic_prefix: str = "") -> None:
        self._wanted = {(topic_prefix + event.TOPIC, event.TYPE, event.VERSION): event for event in reacts_to}
        self._known = {(topic_prefix + topic, type_) for topic, type_, _ in EVENTS}
        self._wanted_types = {(topic, type_) for topic, type_, _ in self._wanted}
        self._as_we_write = {
            (topic, type_.encode(), schema_of(event).encode()): event for (topic, type_, _), event in self._wanted.items()
        }
        """By topic and two headers as they come from our own publishers, which nearly all records do."""

    def read(self, record: KafkaRecord) -> Received | Invalid | None:
        """A message, a reason, or None when the record is no concern of this service."""
        try:
            return self._read(record)
        except (KeyError, ValueError, ArithmeticError) as error:
            return Invalid(record, *_why(error))

    def _read(self, record: KafkaRecord) -> Received | Invalid | None:
        raw = dict(record.headers)
        if None in raw.values():
            raw = {name: value for name, value in raw.items() if value is not None}
        given = cast("dict[str, bytes]", raw)
        data_type = self._as_we_write.get((record.topic, given.get("ce_type", b""), given.get("ce_dataschema", b"")))
        if data_type is None:
            found = self._data_type(record, given)
            if found is None or isinstance(found, Invalid):
                return found
            data_type = found
        demand_text(given)
        is_external = data_type.TOPIC in EXTERNAL_TOPICS
        if is_external:
            demand_bounds(given, len(record.headers))
        data = reader(data_type)(record.value or b"")
        tenant_id = tenant_of(given["ce_tenantid"])
        origin, position = parse_position(given.get("ce_relayposition", b"").decode())
        demand_origin(data_type, given, origin, position)
        demand_one_subject(data_type, record.key, given, tenant_id, data)
        traceparent = given.get("traceparent")
        message = Message(
            data=data,
            tenant_id=tenant_id,
            id=given["ce_id"].decode(),
            time=moment_of(given["ce_time"].decode(), strictly=is_external),
            source=given["ce_source"].decode(),
            actor=given.get("ce_actor", b"").decode(),
            correlation_id=given.get("ce_correlationid", b"").decode(),
            causation_id=given.get("ce_causationid", b"").decode(),
            traceparent=traceparent.decode() if traceparent is not None else None,
            sequence=sequence_of(given["ce_sequence"]),
        )
        return Received(record, message, origin, position)

    def _data_type(self, record: KafkaRecord, raw: Mapping[str, bytes]) -> type[Event] | Invalid | None:
        """What a record holds that says so in other words than ours, or holds nothing for us."""
        if "ce_type" not in raw:
            note = note_of(record)
            if isinstance(note, Unreadable):
                return Invalid(Place(record.topic, record.partition, record.offset), UNREADABLE, note.detail)
            if note is not None:
                return None
            demand_json(raw)
            return Invalid(record, "malformed", "the header ce_type is missing")
        type_ = raw["ce_type"].decode()
        if (record.topic, type_) not in self._wanted_types:
            if (record.topic, type_) not in self._known:
                IGNORED.labels(record.topic).inc()
            return None
        demand_text(raw)
        version = version_of(raw["ce_dataschema"].decode(), type_) if "ce_dataschema" in raw else 1
        return self._wanted.get((record.topic, type_, version)) or Invalid(
            record, "unknown-version", f"{type_} version {version}"
        )


def _why(error: Exception) -> tuple[str, str]:
    """The reason and the words under which a record is rejected."""
    match error:
        case UnicodeDecodeError():
            return "undecodable-header", str(error)
        case ValidationError():
            return "schema", told(error)
        case NotJsonError():
            return "schema", str(error)
        case UnusableError():
            return error.reason, str(error)
        case KeyError():
            return "malformed", f"the header {error.args[0]} is missing"
        case _:
            return "malformed", str(error)


def told(error: ValidationError) -> str:
    """What is wrong with a payload, each with its JSON pointer."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{''.join(f'/{pointer_part(str(step))}' for step in each['loc']) or '/'}: {each['msg']}" for each in errors[:TOLD]]
    return "; ".join(lines) + (f" ({len(errors)} in all)" if len(errors) > TOLD else "")
