"""What a service publishes and what it reacts to, as an AsyncAPI 3.0 document, and every event as a JSON Schema.

Both are written from the contracts and from the service's table of handlers. The documents are committed under
`docs/contracts`, and each worker serves its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from libs.common.contracts import EVENTS, Event
from libs.common.contracts.external import CONTROLS, FIRST_YEAR, LAST_YEAR, MAX_STEP
from libs.common.decision import Handlers
from libs.common.messaging.attributes import LONGER, MAX_SEQUENCE, MAX_TEXT

Schema = dict[str, Any]

DIALECT: Final = GenerateJsonSchema.schema_dialect
_CONTRACTS: Final = "libs.common.contracts"
_BINDING: Final = {"bindingVersion": "0.5.0"}
_UUID: Final = {"type": "string", "format": "uuid"}
_TEXT: Final = {"type": "string"}
_LINE: Final = _TEXT | {"maxLength": MAX_TEXT, "not": {"pattern": f"[{CONTROLS}]"}}

_HEADERS: Final[Schema] = {
    "type": "object",
    "description": "CloudEvents 1.0 in Kafka's binary content mode: every header is text in UTF-8.",
    "properties": {
        "content-type": _TEXT
        | {"description": "`application/json`, also by another name (`…+json`). The whole event as payload is refused."},
        "ce_specversion": {"const": "1.0"},
        "ce_id": _LINE | {"minLength": 1, "description": "Unique within its source; of our services a UUIDv7."},
        "ce_source": _LINE
        | {
            "minLength": 1,
            "maxLength": LONGER["ce_source"],
            "format": "uri-reference",
            "description": "Of our services `/cartwright/<service>`, which nobody else may begin with.",
        },
        "ce_type": _LINE,
        "ce_dataschema": _TEXT | {"format": "uri", "description": "`urn:cartwright:schema:<type>:<version>`; absent: version 1."},
        "ce_subject": _LINE | {"description": "The aggregate's id, as the key and the payload name it."},
        "ce_time": _TEXT
        | {
            "format": "date-time",
            "description": f"When it was decided: RFC 3339 with its offset, from {FIRST_YEAR} to {LAST_YEAR}.",
        },
        "ce_tenantid": _UUID | {"description": "The tenant; the nil UUID for what belongs to the platform."},
        "ce_partitionkey": _LINE
        | {"maxLength": LONGER["ce_partitionkey"], "description": "The Kafka key: tenant, colon, aggregate's id."},
        "ce_correlationid": _LINE | {"description": "The checkout's id, else the request's."},
        "ce_causationid": _LINE | {"description": "The id of the message or request that led to this one."},
        "ce_sequence": _TEXT
        | {
            "pattern": "^[1-9][0-9]{0,15}$",
            "description": f"From 1, +1 an event of an aggregate on a topic; {MAX_SEQUENCE} at most. Of others' products and "
            f"stock, one that is more than {MAX_STEP} above the last is rejected as `sequence-leap`.",
        },
        "ce_actor": _LINE | {"description": "Who did it."},
        "ce_relayposition": _LINE
        | {"description": "`<database>/<timeline>.<window>.<n>`: rises for ever, repeats when sent again. Our relays' alone."},
        "traceparent": _LINE | {"description": "W3C trace context."},
    },
    "required": ["ce_id", "ce_source", "ce_type", "ce_tenantid", "ce_sequence", "ce_time"],
}
_OURS: Final = (
    "content-type",
    "ce_specversion",
    "ce_dataschema",
    "ce_subject",
    "ce_partitionkey",
    "ce_correlationid",
    "ce_causationid",
    "ce_actor",
    "ce_relayposition",
)
"""What this service sends with every event, beyond what any publisher owes."""


class _Schemas(GenerateJsonSchema):
    """Pydantic's schemas without a title for every field: the name says it already."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        del schema
        return False


def schema_id(event: type[Event]) -> str:
    """The `ce_dataschema` of an event. Unique within a topic."""
    return f"urn:cartwright:schema:{event.TYPE}:{event.VERSION}"


def payload_schema(event: type[Event], *, definitions: str = "#/$defs") -> Schema:
    """What an event's payload must look like for a reader to take it; its nested types stand at `definitions`."""
    written = TypeAdapter(event).json_schema(schema_generator=_Schemas, ref_template=f"{definitions}/{{model}}")
    nested = {"$defs": written.pop("$defs")} if "$defs" in written else {}
    return (
        {"title": written.pop("title"), "description": written.pop("description"), "x-aggregate": event.AGGREGATE}
        | written
        | nested
    )


def json_schema(event: type[Event]) -> Schema:
    """Write an event as a schema that stands by itself (JSON Schema 2020-12)."""
    return {"$schema": DIALECT, "$id": schema_id(event)} | payload_schema(event)


def published_by(service: str) -> list[type[Event]]:
    """The events that a service's module of contracts declares, in the order of their names."""
    return [EVENTS[name] for name in sorted(EVENTS) if EVENTS[name].__module__ == f"{_CONTRACTS}.{service}"]


def document(service: str, handlers: Handlers, apart: Mapping[str, Handlers] | None = None) -> Schema:
    """Write a service's AsyncAPI 3.0 document. `apart`: what its projections with groups of their own react to, by name."""
    groups = {service: handlers} | {f"{service}.{name}": each for name, each in (apart or {}).items()}
    sent, received = published_by(service), {event for table in groups.values() for event in table.events()}
    events = sorted({*sent, *received}, key=_name)
    return {
        "asyncapi": "3.0.0",
        "id": f"urn:cartwright:service:{service}",
        "info": {
            "title": f"Cartwright {service}",
            "version": "1",
            "description": f"The events that the {service} service publishes, and those it reacts to.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic, events) for topic in sorted({event.TOPIC for event in events})},
        "operations": dict([*_sending(sent), *_receiving(service, groups)]),
        "components": {
            "messages": {_name(event): _message(event, ours=event in sent) for event in events},
            "schemas": {"cloudevent-headers": _HEADERS} | {_name(event): _component(event) for event in events},
        },
    }


def _name(event: type[Event]) -> str:
    return f"{event.TOPIC}.{event.TYPE}.{event.VERSION}"


def _channel(topic: str, events: Sequence[type[Event]]) -> Schema:
    names = [_name(event) for event in events if topic == event.TOPIC]
    return {
        "address": topic,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": {"topic": topic} | _BINDING},
    }


def _sending(events: Sequence[type[Event]]) -> Iterator[tuple[str, Schema]]:
    for event in events:
        yield f"send.{_name(event)}", {"action": "send", "summary": f"Publish `{event.TYPE}`."} | _on(event)


def _receiving(service: str, groups: Mapping[str, Handlers]) -> Iterator[tuple[str, Schema]]:
    """What each consumer group reacts to; a projection's is said in the operation's name."""
    for group, handlers in groups.items():
        bindings = {"kafka": {"groupId": {"type": "string", "const": group}} | _BINDING}
        projection = group.removeprefix(service).removeprefix(".")
        for event in sorted(handlers.events(), key=_name):
            what = {"action": "receive", "summary": _summary(handlers[event].decide)}
            name = ".".join(part for part in ("receive", projection, _name(event)) if part)
            yield name, what | _on(event) | {"bindings": bindings}


def _on(event: type[Event]) -> Schema:
    channel = f"#/channels/{event.TOPIC}"
    return {"channel": {"$ref": channel}, "messages": [{"$ref": f"{channel}/messages/{_name(event)}"}]}


def _message(event: type[Event], *, ours: bool) -> Schema:
    key = (
        "`<ce_tenantid>:<ce_subject>`, so one aggregate's events stay in order; what belongs to the platform has no tenant in it."
    )
    return {
        "name": event.TYPE,
        "title": event.__name__,
        "summary": _summary(event),
        "contentType": "application/json",
        "correlationId": {"location": "$message.header#/ce_correlationid"},
        "headers": _headers(event, _OURS if ours else ()),
        "payload": {"$ref": f"#/components/schemas/{_name(event)}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}} | _BINDING},
    }


def _headers(event: type[Event], always: Sequence[str]) -> Schema:
    """Everybody's headers, this event's own values in them, and which of the optional ones are always there."""
    return {
        "type": "object",
        "allOf": [{"$ref": "#/components/schemas/cloudevent-headers"}],
        "properties": {"ce_type": {"const": event.TYPE}, "ce_dataschema": {"const": schema_id(event)}},
    } | ({"required": list(always)} if always else {})


def _component(event: type[Event]) -> Schema:
    return payload_schema(event, definitions=f"#/components/schemas/{_name(event)}/$defs")


def _summary(documented: Any) -> str:
    return " ".join(str(documented.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
