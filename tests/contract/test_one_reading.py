"""What others publish is read in one way: the published schemas, `feed validate` and the consumers take and refuse the same.

The cases are made from the schemas: of every member its bounds and the values just beyond, other types, absence, and whatever
its kind of text may not hold.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from deploy.cli.contracts.files import schemas
from deploy.cli.feed import _Consumed, record_of, refusal
from libs.common.contracts import EVENTS, EXTERNAL_TOPICS, Event
from libs.common.messaging.asyncapi import json_schema
from libs.common.messaging.envelope import Reader, Received

schemas()  # imports every contract
EXTERNAL = [event for event in EVENTS.values() if event.TOPIC in EXTERNAL_TOPICS]
FORMATS = FormatChecker(formats=())
Schema = dict[str, Any]
Path = tuple[str | int, ...]

OTHER_TYPES: list[Any] = [None, True, False, "1", "true", "", 1.5, -0.5, [], ["x"], {}, {"x": 1}]
CONTROLS = ["\0", "a\0b", "\n", "a\n", "\ta", "a\x1b[0m", "\x7f", "a\x80", "\x9fb", "a\r\nb"]
WHITE = [" ", " a", "a ", "\u00a0a", "a\u3000", "\u2028a", "a\ufeff"]
TEXTS = ["a", "A/B", "a+b", "Ä", "茶葉", "007", "R&D", "50%", "#1", "wh?t", "..", "a b", "🍵", "a\u2028b", '"', "\\", "<b>"]
TIMES = [
    *("2031-01-31T23:59:59Z", "2031-01-31T23:59:59+01:00", "2031-01-31t23:59:59.123456789z", "1970-01-01T00:00:00Z"),
    *("2199-12-31T23:59:59Z", "2031-01-31T23:59:59", "2031-01-31", "2031-01-31 23:59:59Z", "1969-12-31T23:59:59Z"),
    *("2200-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2031-02-30T00:00:00Z"),
    *("2031-13-01T00:00:00Z", "2031-01-31T24:00:00Z", "2031-01-31T23:59:60Z", "2031-01-31T23:59:59+0100"),
    *("2031-01-31T23:59:59+25:00", "1769900000", "20310131T235959Z", "now", "2031-01-31T23:59:59Z\n"),
    *(" 2031-01-31T23:59:59Z", "2031-W05-5T00:00:00Z", "2031-01-31T23:59Z", "\u0662031-01-31T23:59:59Z"),
]
UUIDS = [
    *(str(UUID(int=7)), str(UUID(int=2**128 - 1)).upper(), UUID(int=7).hex, f"{{{UUID(int=7)}}}", UUID(int=7).urn),
    *(f"{UUID(int=7)}\n", str(UUID(int=7))[:-1], "order-1"),
]  # fmt: skip


def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) is not None


def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value.upper()).tzinfo is not None


FORMATS.checks("uuid")(_is_uuid)
FORMATS.checks("date-time", raises=ValueError)(_is_time)


def _resolved(schema: Schema, whole: Schema) -> Schema:
    """The schema itself, and of what may be null the part that is not."""
    while "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(choices[0], whole) if choices else schema


def _good(schema: Schema, whole: Schema) -> Any:
    """A value that the schema takes."""
    schema = _resolved(schema, whole)
    if "enum" in schema:
        return "GBP" if "GBP" in schema["enum"] else schema["enum"][0]
    if schema["type"] == "object":
        return {name: _good(each, whole) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [_good(schema["items"], whole)]
    return {"uuid": UUIDS[0], "date-time": TIMES[0], "string": "tea", "integer": 7, "boolean": False}[
        schema.get("format") or schema["type"]
    ]


def _members(schema: Schema, whole: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Every member, with where it stands in the good value."""
    schema = _resolved(schema, whole)
    for name, each in schema.get("properties", {}).items():
        yield (*path, name), _resolved(each, whole)
        yield from _members(each, whole, (*path, name))
    if "items" in schema:
        yield (*path, 0), _resolved(schema["items"], whole)
        yield from _members(schema["items"], whole, (*path, 0))


def _values(schema: Schema, whole: Schema) -> Iterator[Any]:
    """What to put in a member's place."""
    yield from OTHER_TYPES
    if "enum" in schema:
        yield from (*schema["enum"], "gbp", "GBP ", "GBQ", "XXX", "POUND")
    elif schema.get("format") == "date-time":
        yield from TIMES
    elif schema.get("format") == "uuid":
        yield from UUIDS
    elif schema["type"] == "string":
        least, most = schema.get("minLength", 0), schema["maxLength"]
        yield from (length * character for character in "xé🍵" for length in {max(least - 1, 0), least, most - 1, most, most + 1})
        yield from (*CONTROLS, *WHITE, *TEXTS)
    elif schema["type"] == "integer":
        least, most = schema["minimum"], schema["maximum"]
        yield from (least - 1, least, least + 1, most - 1, most, most + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1e300)
    elif schema["type"] == "array":
        one = _good(schema["items"], whole)
        bounds = schema["minItems"], schema["maxItems"]
        yield from ([one] * count for count in (bounds[0] - 1, *bounds, bounds[1] + 1))


def _with(good: Any, path: Path, value: Any) -> Any:
    changed = deepcopy(good)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


def _without(good: Any, path: Path) -> Any:
    changed = _with(good, path, None)
    place = changed
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return changed


def cases(schema: Schema) -> Iterator[Any]:
    """Payloads around everything that the schema says."""
    good = _good(schema, schema)
    yield good
    yield {**good, "later": {"addition": [1]}}
    yield from OTHER_TYPES
    for path, member in _members(schema, schema):
        yield _without(good, path)
        yield from (_with(good, path, value) for value in _values(member, schema))


NO_HEADER = re.compile("[\\x00-\\x1f\\x7f-\\x9f\ud800-\udfff]")


def line_of(event: type[Event], payload: Any, **attributes: Any) -> dict[str, Any]:
    """A structured event, about whatever its payload says it is about."""
    about = payload.get(event.AGGREGATE) if isinstance(payload, dict) else None
    about = about if isinstance(about, str) and not NO_HEADER.search(about) else "about"
    tenant = str(uuid4())
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/probe/cases",
        "type": event.TYPE,
        "subject": about,
        "tenantid": tenant,
        "partitionkey": f"{tenant}:{about}",
        "sequence": 1,
        "time": "2026-01-01T00:00:00Z",
        "data": payload,
        **attributes,
    }


@pytest.mark.parametrize("event", EXTERNAL, ids=lambda event: event.TYPE)
def test_the_schema_the_feed_and_the_consumers_take_and_refuse_the_same(event: type[Event]) -> None:
    schema = json_schema(event)
    validator, reader = Draft202012Validator(schema, format_checker=FORMATS), Reader([event])
    differing, taken, refused = [], 0, 0
    for payload in cases(schema):
        expected = validator.is_valid(payload)
        record = record_of(json.dumps(line_of(event, payload)).encode())
        by_feed = not refusal(record)
        by_reader = isinstance(reader.read(_Consumed(record.topic, record.key, record.value, record.headers)), Received)
        taken, refused = taken + expected, refused + (not expected)
        if not expected == by_feed == by_reader:
            differing.append((payload, {"schema": expected, "feed": by_feed, "consumer": by_reader}))
    assert differing == []
    assert min(taken, refused) > 5


def test_what_no_schema_can_say_is_refused_with_its_reason_and_its_place() -> None:
    price = next(event for event in EXTERNAL if event.TYPE == "price.changed")
    good = {"sku": "tea", "currency": "GBP", "unit_minor": 250}
    for data, reason in (
        (b'{"sku":"tea","currency":"GBP","unit_minor":5.0}', "schema: /unit_minor: Input should be a valid integer"),
        (b'{"sku":"tea","currency":"GBP","unit_minor":5e1}', "schema: /unit_minor: Input should be a valid integer"),
        (b'{"sku":"the\\u0301","currency":"GBP","unit_minor":5}', "schema: /sku: A SKU is 1 to 64 characters"),
        (b'{"sku":"tea","sku":"gin","currency":"GBP","unit_minor":5}', "schema: a member stands there twice: sku"),
        (b'{"sku":"tea","currency":"GBP","unit_minor":5,"x":{"a":1,"a":2}}', "schema: a member stands there twice: a"),
        (b'{"sku":"tea","currency":"GBP","unit_minor":5,"x":NaN}', "schema: not JSON"),
        (b'{"sku":"tea","currency":"GBP","unit_minor":5,"x":Infinity}', "schema: not JSON"),
        (b'{"sku":"te\\ud800a","currency":"GBP","unit_minor":5}', "schema: not JSON"),
        (b'{"sku":"te\xffa","currency":"GBP","unit_minor":5}', "schema: not JSON"),
        (b'{"sku":"tea","currency":"GBP","unit_minor":5,"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "schema: not JSON"),
    ):
        record = record_of(orjson.dumps({**line_of(price, good), "data": None, "data_base64": b64encode(data).decode()}))
        assert refusal(record).startswith(reason), data
    like_a_name = b'{"sku":"tea","currency":"GBP","unit_minor":5,"x":"\\": \\":","y":": "}'
    line = {**line_of(price, good), "data": None, "data_base64": b64encode(like_a_name).decode()}
    assert not refusal(record_of(orjson.dumps(line)))
    with pytest.raises(ValueError, match="a member stands there twice: unit_minor"):
        record_of(orjson.dumps(line_of(price, good)).replace(b'"unit_minor"', b'"unit_minor":1,"unit_minor"'))
