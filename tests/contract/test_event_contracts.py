"""The published language keeps its promises: schemas and documents are what the code says, and no event breaks."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from starlette.requests import Request

from deploy.cli.contracts import __main__ as contracts
from deploy.cli.contracts import files
from deploy.cli.contracts.compatibility import breaks
from deploy.cli.documents import _apart, _declared_topics, _handlers
from deploy.cli.errors import CommandError
from deploy.cli.feed import record_of, refusal
from deploy.composition import parts_of
from deploy.local.state import ROOT
from libs.common.contracts import EVENTS
from libs.common.contracts.cart import CartReopened
from libs.common.decision import Message, Published
from libs.common.messaging.asyncapi import published_by
from libs.common.messaging.envelope import encode
from libs.common.messaging.headers import unpack
from services import SERVICES
from tests.shared import toy

Schema = dict[str, Any]
NAME = "cart.v1/cart.changed.1"

BEFORE: Schema = {
    "title": "CartChanged",
    "description": "Once.",
    "x-aggregate": "cart_id",
    "type": "object",
    "properties": {
        "cart_id": {"type": "string", "format": "uuid"},
        "count": {"type": "integer", "minimum": 1, "maximum": 10},
        "reason": {"type": "string", "enum": ["full", "empty"]},
        "service": {"type": "string", "const": "cart"},
        "note": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}], "default": None},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "keys": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["cart_id", "count", "reason", "service", "lines", "keys"],
    "$defs": {
        "Line": {
            "title": "Line",
            "type": "object",
            "properties": {"sku": {"type": "string", "minLength": 1}, "weight": {"type": "integer", "default": 0}},
            "required": ["sku"],
        }
    },
}


def _changed(change: Callable[[Schema], object]) -> Schema:
    after = copy.deepcopy(BEFORE)
    change(after)
    return after


def _fields(schema: Schema) -> Schema:
    fields: Schema = schema["properties"]
    return fields


def _line(schema: Schema) -> Schema:
    line: Schema = schema["$defs"]["Line"]
    return line


def _rename_line(schema: Schema) -> None:
    schema["$defs"]["Goods"] = schema["$defs"].pop("Line") | {"title": "Goods"}
    _fields(schema)["lines"]["items"] = {"$ref": "#/$defs/Goods"}


BREAKING: dict[str, tuple[Callable[[Schema], object], str]] = {
    "a field is gone": (lambda s: _fields(s).pop("note"), "note: is gone"),
    "a nested field is gone": (lambda s: _line(s)["properties"].pop("weight"), "lines[].weight: is gone"),
    "another type": (lambda s: _fields(s)["count"].update(type="string"), "count: was integer and is string now"),
    "another format": (lambda s: _fields(s)["cart_id"].pop("format"), "cart_id: was string (uuid) and is string now"),
    "another type of item": (
        lambda s: _fields(s)["lines"].update(items={"type": "string"}),
        "lines[]: was object and is string now",
    ),
    "another type of what a map holds": (
        lambda s: _fields(s)["keys"].update(additionalProperties={"type": "integer"}),
        "keys{}: was string and is integer now",
    ),
    "a map that holds anything": (
        lambda s: _fields(s)["keys"].update(additionalProperties=True),
        "keys{}: was {'type': 'string'} and is True now",
    ),
    "nullable": (
        lambda s: _fields(s).update(reason={"anyOf": [_fields(s)["reason"], {"type": "null"}]}),
        "reason: was string and is string or null now",
    ),
    "never null": (lambda s: _fields(s).update(note={"type": "string"}), "note: was string or null and is string now"),
    "a new required field": (
        lambda s: (_fields(s).update(new={"type": "string"}), s["required"].append("new")),
        "new: is new and required: only an optional field may be added",
    ),
    "a new required field of a line": (
        lambda s: (_line(s)["properties"].update(new={"type": "string"}), _line(s)["required"].append("new")),
        "lines[].new: is new and required: only an optional field may be added",
    ),
    "optional no more": (lambda s: s["required"].append("note"), "note: was optional and is required now"),
    "required no more": (lambda s: s["required"].remove("count"), "count: was always there and is optional now"),
    "a higher minimum": (
        lambda s: _fields(s)["count"].update(minimum=2),
        "count: minimum was 1 and is 2 now, so it refuses what was published",
    ),
    "a new bound": (
        lambda s: _fields(s)["lines"].update(maxItems=5),
        "lines: maxItems was not there and is 5 now, so it refuses what was published",
    ),
    "a lower maximum within a choice": (
        lambda s: _fields(s)["note"]["anyOf"][0].update(maxLength=8),
        "note: maxLength was 9 and is 8 now, so it refuses what was published",
    ),
    "a higher maximum": (
        lambda s: _fields(s)["count"].update(maximum=11),
        "count: maximum was 10 and is 11 now, so an old reader refuses what it allows",
    ),
    "a bound less": (
        lambda s: _line(s)["properties"]["sku"].pop("minLength"),
        "lines[].sku: minLength was 1 and is not there now, so an old reader refuses what it allows",
    ),
    "a value less": (lambda s: _fields(s)["reason"].update(enum=["full"]), "reason: 'empty' is no longer a value of it"),
    "a value more": (
        lambda s: _fields(s)["reason"]["enum"].append("torn"),
        "reason: 'torn' is a new value of it, unknown to whoever matches every case",
    ),
    "a constant becomes one of two": (
        lambda s: _fields(s).update(service={"type": "string", "enum": ["cart", "basket"]}),
        "service: 'basket' is a new value of it, unknown to whoever matches every case",
    ),
    "any value": (lambda s: _fields(s)["reason"].pop("enum"), "reason: took only some values and takes any now"),
    "only some values": (
        lambda s: _fields(s)["cart_id"].update(enum=["1"]),
        "cart_id: took any value and takes only some now",
    ),
    "another default": (
        lambda s: _line(s)["properties"]["weight"].update(default=1),
        "lines[].weight: default was 0 and is 1 now",
    ),
    "another aggregate": (
        lambda s: s.update({"x-aggregate": "reason"}),
        "x-aggregate was 'cart_id' and is 'reason' now",
    ),
    "a keyword that nobody thought of": (
        lambda s: _fields(s)["count"].update(multipleOf=2),
        "count: multipleOf was not there and is 2 now",
    ),
}

COMPATIBLE: dict[str, Callable[[Schema], object]] = {
    "nothing": lambda s: s,
    "a new optional field": lambda s: _fields(s).update(new={"type": "string", "default": ""}),
    "a new optional field of a line": lambda s: _line(s)["properties"].update(new={"anyOf": [{"type": "null"}], "default": None}),
    "other words": lambda s: s.update(title="ChangedCart", description="Twice."),
    "another order": lambda s: (s["required"].reverse(), s.update(properties=dict(reversed(_fields(s).items())))),
    "another order of values": lambda s: _fields(s)["reason"]["enum"].reverse(),
    "another name of a nested class": _rename_line,
}


@pytest.mark.parametrize("kind", BREAKING)
def test_a_change_that_a_reader_or_publisher_trips_over_is_a_break_and_says_where(kind: str) -> None:
    change, expected = BREAKING[kind]
    assert [str(each) for each in breaks(BEFORE, _changed(change))] == [expected]


@pytest.mark.parametrize("kind", COMPATIBLE)
def test_a_change_that_nobody_notices_is_no_break(kind: str) -> None:
    assert breaks(BEFORE, _changed(COMPATIBLE[kind])) == []


def test_an_event_that_is_gone_is_a_break_and_a_new_one_is_not() -> None:
    assert list(contracts.broken({NAME: BEFORE}, {}, {})) == [(NAME, ["the event is gone"])]
    assert list(contracts.broken({}, {NAME: BEFORE}, {})) == []


def test_an_accepted_break_lets_go_of_one_state_of_a_schema_and_of_no_later_one() -> None:
    later = _changed(COMPATIBLE["a new optional field"])
    accepted = {f"{NAME}@{files.digest(BEFORE)}": "never released"}
    assert list(contracts.broken({NAME: BEFORE}, {}, accepted)) == []
    assert [name for name, _ in contracts.broken({NAME: later}, {}, accepted)] == [NAME]
    assert f"{NAME}@{files.digest(BEFORE)}: " in contracts.advice(NAME, BEFORE)


@pytest.mark.parametrize("line", [f"{NAME}@0123456789ab:", f"- {NAME}", f"{NAME}@0123456789ab: nobody: ever"])
def test_an_accepted_break_without_a_reason_or_without_form_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / files.DIRECTORY).mkdir(parents=True)
    (tmp_path / files.DIRECTORY / files.BREAKS).write_text(f"{line}\n")
    with pytest.raises(CommandError, match=r"breaks\.yaml: "):
        files.accepted(tmp_path)


def _commit(root: Path, schema: Schema) -> None:
    _lie_about(root, schema)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "a schema"], check=True)


def _lie_about(root: Path, schema: Schema) -> None:
    file = root / files.DIRECTORY / f"{NAME}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(files.text(schema), encoding="utf-8")


@pytest.mark.skipif(shutil.which("git") is None, reason="not proven: what is compared when there is git (git is not installed)")
def test_writing_the_files_anew_hides_no_break_and_neither_does_committing_them(tmp_path: Path) -> None:
    _commit(tmp_path, BEFORE)
    after = _changed(BREAKING["a field is gone"][0])
    _lie_about(tmp_path, after)
    assert contracts.bases(tmp_path) == {"HEAD": {NAME: BEFORE}}
    _commit(tmp_path, after)
    assert contracts.bases(tmp_path) == {"HEAD": {NAME: after}, "HEAD^1": {NAME: BEFORE}}


def test_without_git_the_files_that_lie_about_are_what_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _lie_about(tmp_path, BEFORE)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert contracts.bases(tmp_path) == {"the files": {NAME: BEFORE}}


def test_the_code_breaks_no_event_and_the_committed_files_are_what_it_says() -> None:
    assert list(contracts.report()) == []
    assert files.stale() == [], "run: ./cartwright fmt"


def test_writing_repairs_what_differs_adds_what_is_missing_and_removes_what_is_no_event_any_more(tmp_path: Path) -> None:
    _lie_about(tmp_path, BEFORE)
    (tmp_path / files.DIRECTORY / "README.md").write_text("by hand")
    assert tmp_path / files.DIRECTORY / f"{NAME}.json" in files.write(tmp_path)
    assert files.working(tmp_path) == files.schemas()
    assert files.stale(tmp_path) == []
    assert (tmp_path / files.DIRECTORY / "README.md").exists()


def test_every_event_has_a_schema_under_the_name_that_its_header_says() -> None:
    published = [event for event in EVENTS.values() if event.__module__.startswith("libs.common.contracts")]
    assert len(files.schemas()) == len(published)
    event = CartReopened(cart_id=UUID(int=1), checkout_id=UUID(int=2))
    cause = Message(data=None, tenant_id=UUID(int=3), id="1", time=datetime.now(UTC))
    row = encode(Published(event, str(event.cart_id), 1, cause), source="/cartwright/cart", event_id=UUID(int=4), time=cause.time)
    headers = {name: value.decode() for name, value in unpack(row.headers)}
    schema = files.schemas()["cart.v1/cart.reopened.1"]
    assert schema["$id"] == headers["ce_dataschema"]
    assert schema["description"] == CartReopened.__doc__
    assert schema["required"] == list(orjson.loads(row.payload))


def test_an_event_that_only_a_test_declares_is_no_part_of_the_language() -> None:
    assert toy.Bumped in EVENTS.values()
    assert toy.Bumped not in files.events()
    assert not [name for name in files.schemas() if name.startswith(toy.TOPIC)]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_document_tells_every_event_that_a_service_publishes_or_handles_and_no_other(service: str) -> None:
    document = files.documents()[f"asyncapi/{service}"]
    told = {"send": set[str](), "receive": set[str]()}
    for operation in document["operations"].values():
        (message,) = operation["messages"]
        assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
        told[operation["action"]].add(message["$ref"].rpartition("/")[2])
    names = {event: f"{event.TOPIC}.{event.TYPE}.{event.VERSION}" for event in files.events()}
    assert told["send"] == {names[event] for event in published_by(service)}
    apart = _apart(service).values()
    assert told["receive"] == {names[event] for handlers in (_handlers(service), *apart) for event in handlers.events()}
    assert told["send"] | told["receive"] == set(document["components"]["messages"])
    assert {channel["address"] for channel in document["channels"].values()} <= set(_declared_topics())


@pytest.mark.parametrize("service", SERVICES)
def test_every_group_that_a_worker_joins_is_told_with_all_that_it_reads(service: str) -> None:
    operations = files.documents()[f"asyncapi/{service}"]["operations"].values()
    read: dict[str, set[str]] = {}
    for operation in operations:
        if operation["action"] == "receive":
            group = operation["bindings"]["kafka"]["groupId"]["const"]
            read.setdefault(group, set()).add(operation["channel"]["$ref"].rpartition("/")[2])
    parts = parts_of(service)
    apart = {f"{service}.{kept.projection.name}": set(kept.projection.topics) for kept in parts.apart}
    assert read == {service: set(parts.topics)} | apart


@pytest.mark.parametrize("service", SERVICES)
async def test_a_worker_serves_the_committed_document(service: str) -> None:
    from libs.common.processes.worker import _asyncapi

    served = await _asyncapi(parts_of(service)).endpoint(Request({"type": "http"}))
    file = ROOT / files.DIRECTORY / "asyncapi" / f"{service}.json"
    assert json.loads(bytes(served.body)) == json.loads(file.read_text(encoding="utf-8"))


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _references(each)


@pytest.mark.parametrize("name", [*files.schemas(), *files.documents()])
def test_every_reference_leads_to_a_part_of_the_same_file(name: str) -> None:
    whole = {**files.schemas(), **files.documents()}[name]
    for reference in _references(whole):
        root, *steps = reference.split("/")
        found: Any = whole
        for step in steps:
            found = found[step]
        assert root == "#"
        assert isinstance(found, dict)


@pytest.mark.parametrize("service", SERVICES)
def test_a_document_has_the_structure_of_asyncapi_3(service: str) -> None:
    document = files.documents()[f"asyncapi/{service}"]
    assert ApplicationSchema.model_validate(document).asyncapi == "3.0.0"
    for message in document["components"]["messages"].values():
        assert message["payload"]["$ref"].startswith("#/components/schemas/")
        assert message["headers"]["type"] == "object"
        assert message["bindings"]["kafka"]["key"]


PARSER = """
const { Parser } = require('@asyncapi/parser');
const judge = async (text) => (await new Parser().validate(text)).filter((found) => found.severity === 0);
Promise.all(JSON.parse(require('fs').readFileSync(0)).map(judge)).then((found) => console.log(JSON.stringify(found)));
"""


def test_the_reference_parser_of_asyncapi_finds_no_error_in_any_document_and_one_in_a_spoilt_one() -> None:
    node = shutil.which("node")
    available = node and subprocess.run([node, "-e", "require.resolve('@asyncapi/parser')"], capture_output=True, check=False)
    if not node or not available or available.returncode:
        pytest.skip("not proven: AsyncAPI documents against the official schema (node with @asyncapi/parser on its NODE_PATH)")
    texts = [files.text(document) for document in files.documents().values()]
    spoilt = texts[0].replace('"action": "send"', '"action": "shout"', 1)
    done = subprocess.run([node, "-e", PARSER], input=json.dumps([*texts, spoilt]), capture_output=True, text=True, check=True)
    *found, found_in_spoilt = json.loads(done.stdout)
    assert found == [[]] * len(SERVICES)
    assert found_in_spoilt


@pytest.mark.parametrize("name", files.schemas())
def test_a_schema_is_valid_json_schema(name: str) -> None:
    jsonschema = pytest.importorskip(
        "jsonschema", reason="not proven: schemas against the metaschema (jsonschema is not installed)"
    )
    schema = files.schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid({})


ORDER = "0198c0de-0000-7000-8000-000000000001"
LINES = [{"line_id": "1", "quantity": 2}]


@pytest.mark.parametrize(
    ("type_", "content", "expected"),
    [
        ("shipment.dispatched", {"shipment_id": "S1", "lines": LINES}, ""),
        ("shipment.delivered", {"shipment_id": "S1"}, ""),
        ("return.received", {"return_id": "R1", "lines": LINES, "restock": True}, ""),
        ("shipment.dispatched", {"shipment_id": "S1", "lines": []}, "schema: /lines: "),
        ("return.received", {"return_id": "R1", "lines": LINES}, "schema: /restock: "),
        ("shipment.lost", {"shipment_id": "S1"}, "unknown-type: shipment.lost"),
    ],
)
def test_what_the_fulfilment_system_says_is_taken_or_refused_with_the_reason(type_: str, content: Schema, expected: str) -> None:
    tenant = "0198c0de-0000-7000-8000-000000000002"
    attributes = {"specversion": "1.0", "id": "1", "source": "/fulfilment", "type": type_, "time": "2026-01-01T00:00:00Z"}
    line = attributes | {"tenantid": tenant, "sequence": "1", "data": {"order_id": ORDER} | content}
    assert refusal(record_of(orjson.dumps(line))).startswith(expected)
    assert bool(refusal(record_of(orjson.dumps(line)))) is bool(expected)
