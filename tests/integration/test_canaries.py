"""No card's number and no key that anybody writes anywhere is found in a database afterwards, nor in what is told of it.

The places are found, not listed: every text in the body of every request in a service's own OpenAPI, and every text of every
event that others publish. Ids are not tried with the digits of a card alone: those are somebody's number.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import CLIENT, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM
from libs.common.contracts import EXTERNAL_TOPICS, Event
from libs.common.database.statements import write
from libs.common.errors import CartwrightError
from libs.common.messaging.asyncapi import json_schema
from libs.common.messaging.envelope import Invalid, Reader
from libs.common.messaging.parked import Refusal, Stored, park
from tests.shared.callers import Person, edge, onboard
from tests.shared.places import MIGRATED, Place, Places

CANARIES = (
    *("4242 4242 4242 4242", "4242-4242-4242-4242", "4242.4242.4242.4242", "4242\u00a04242\u00a04242\u00a04242"),
    *("\uff14\uff12" * 8, "4242 4242 and then 4242 4242", "3782 822463 10005", "4242\u20134242\u20134242\u20134242"),
    *("sk_live_CANARY51aBcDeFgHiJkLmNoP", "rk_test_CANARY99zYxWvUtSrQpOnMl", "whsec_CANARYq1w2e3r4t5y6u7i8o9p0"),
)
SECRET_MEMBERS = {("payments", "api_key"), ("payments", "webhook_secrets")}
"""What is asked for, to be kept sealed; `test_provider_accounts` looks after them."""
_OFFSETS = count()
EXAMPLES = ["tea", "GB", "GBP", "20", "pm_card_visa", "a@b.test", "acct_1234", "ac_12345678", "x.v1:0:0", "sk_test_a", "whsec_a"]
EXAMPLES += ["https://a.test/", "https://a.test", "#0f6b5c"]

Schema = dict[str, Any]
Path = tuple[str | int, ...]


class Sampler:
    """A value that a schema allows, and the places of the texts in it."""

    def __init__(self, document: Schema) -> None:
        self._document = document

    def sample(self, schema: Schema) -> Any:
        """With every member that there may be."""
        schema = self._resolved(schema)
        match schema:
            case {"enum": [first, *_]} | {"const": first}:
                return first
            case {"type": "object", "properties": members}:
                return {name: self.sample(member) for name, member in members.items()}
            case {"type": "array", "items": items}:
                return [self.sample(items)]
            case {"type": "string"}:
                return self._text(schema)
            case _:
                pass
        return {"integer": schema.get("minimum", 1), "boolean": False}.get(schema.get("type", ""), {})

    def texts(self, schema: Schema, path: Path = ()) -> Iterator[Path]:
        schema = self._resolved(schema)
        match schema:
            case {"type": "object", "properties": members}:
                for name, member in members.items():
                    yield from self.texts(member, (*path, name))
            case {"type": "array", "items": items}:
                yield from self.texts(items, (*path, 0))
            case {"type": "string"}:
                yield path
            case _:
                pass

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            node: Any = self._document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                node = node[step]
            return self._resolved(node)
        if "anyOf" in schema:
            return self._resolved(next(each for each in schema["anyOf"] if each.get("type") != "null"))
        return schema

    @staticmethod
    def _text(schema: Schema) -> str:
        match schema.get("format"):
            case "uuid":
                return str(uuid4())
            case "date-time":
                return "2031-01-31T23:59:59Z"
            case _:
                pass
        return next(each for each in EXAMPLES if re.search(schema.get("pattern", ""), each))


def _with(value: Any, path: Path, text: str) -> Any:
    changed = deepcopy(value)
    node = changed
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = text
    if isinstance(changed, dict) and isinstance(changed.get("payment"), dict):
        changed["payment"].pop("confirmation", None)  # the one member that another excludes
    return changed


async def _rows(place: Place) -> str:
    """Everything in the database, as text; what is stored as bytes as well."""
    admin = await place.as_admin()
    names = await admin.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname"
    )
    texts = []
    for (name,) in names:
        texts += [" ".join(map(_as_text, row.values())) for row in await admin.fetch(f'SELECT * FROM "{name}"')]
    await admin.close()
    return "\n".join(texts)


def _as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _found(told: str) -> list[str]:
    """The canaries in it, however they are escaped."""
    written = [each for canary in CANARIES for each in (canary, json.dumps(canary)[1:-1])]
    return [told[max(0, told.index(each) - 120) :][:200] for each in written if each in told]


def _bodies(service: str, sampler: Sampler, schema: Schema) -> Iterator[tuple[Path, Any]]:
    """The body with a canary in one of its texts at a time."""
    for path in sampler.texts(schema):
        if not any((service, step) in SECRET_MEMBERS for step in path):
            yield from ((path, _with(sampler.sample(schema), path, canary)) for canary in CANARIES)


@pytest.mark.parametrize("service", MIGRATED)
async def test_no_text_of_any_request_leaves_one_behind(empty: Places, service: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = empty(service)
    answers, kept, tried = [], 0, 0
    async with edge(place) as (client, shell):
        tenant_id = uuid4() if service == "identity" else await onboard(shell)
        people = [Person(tenant_id, role=CLIENT), Person(PLATFORM, role=PLATFORM_OPERATOR)]
        document = client._transport.app.openapi()  # type: ignore[attr-defined]  # only the test's transport has one
        sampler = Sampler(document)
        for template, operations in document["paths"].items():
            for method, operation in operations.items():
                body = operation.get("requestBody", {}).get("content", {}).get("application/json")
                if body is None:
                    continue
                for path, sample in _bodies(service, sampler, body["schema"]):
                    own = [each for each in operation.get("parameters", ()) if "name" in each]
                    parameters = {each["name"]: sampler.sample(each["schema"]) for each in own}
                    for person in people:
                        headers = {**person.authorization, "Idempotency-Key": uuid4().hex}
                        answer = await client.request(method, template.format(**parameters), headers=headers, json=sample)
                        assert answer.status_code < 500, answer.text
                        answers.append(f"{template} {path}: {answer.text}")
                        tried, kept = tried + 1, kept + answer.is_success
    assert tried
    assert _found(await _rows(place)) == []
    assert _found("\n".join(answers)) == []
    assert _found(capsys.readouterr().out) == []
    print(f"{service}: {tried} requests, of which {kept} were taken")


@pytest.mark.parametrize("service", ["cart", "checkout", "payments"])
async def test_no_text_of_any_event_of_others_leaves_one_behind(empty: Places, service: str) -> None:
    """Whether it is applied, refused as it is read, or set aside."""
    place, refused = empty(service), set()
    async with edge(place) as (_, shell):
        reader, tenant_id = Reader(shell.handlers.events()), await onboard(shell)
        for event in [each for each in shell.handlers.events() if each.TOPIC in EXTERNAL_TOPICS]:
            for record in _records(event, tenant_id):
                found = reader.read(record)
                assert found is not None
                refused.add(isinstance(found, Invalid))
                if isinstance(found, Invalid):
                    refusal = Refusal.of_invalid(found)
                    assert refusal.reason == "schema"
                else:
                    refusal = Refusal.of_failure(found, ValueError("tried"))
                    with suppress(CartwrightError):
                        await shell.execute(found.message)
                async with shell.database.transaction([tenant_id]) as connection:
                    await write(connection, [park("test", [refusal])])
    assert refused == {True, False} - ({False} if service == "payments" else set()), "payments reads names alone"
    assert _found(await _rows(place)) == []


def _records(event: type[Event], tenant_id: UUID) -> Iterator[Stored]:
    """The event with a canary in one of its texts at a time."""
    schema = json_schema(event)
    sampler = Sampler(schema)
    texts = [(path, canary) for path in sampler.texts(schema) for canary in CANARIES]
    for number, (path, canary) in enumerate(texts):
        data = _with(sampler.sample(schema), path, canary)
        subject = str(data[event.AGGREGATE])
        told = {"ce_id": str(uuid4()), "ce_source": "/x", "ce_type": event.TYPE, "ce_subject": subject, "ce_specversion": "1.0"}
        told |= {"ce_tenantid": str(tenant_id), "ce_sequence": str(number + 1), "ce_time": "2026-01-01T00:00:00Z"}
        headers = [(name, text.encode()) for name, text in told.items()]
        key = f"{tenant_id}:{subject}".encode()
        yield Stored(event.TOPIC, 0, next(_OFFSETS), key, json.dumps(data).encode(), headers)
