"""`feed`: other systems' facts from a file, one structured CloudEvent a line: sent as given, or only judged."""

import asyncio
import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import echo, progress
from deploy.cli.publisher import Record, publishing
from libs.common.contracts import EVENTS, catalog, fulfilment, inventory
from libs.common.json_text import read_strictly
from libs.common.messaging.envelope import Header, Invalid, Reader

_TOPICS: Final = {
    "product": "catalog.v1",
    "price": "catalog.v1",
    "stock": "inventory.v1",
    "shipment": "fulfilment.v1",
    "return": "fulfilment.v1",
}
"""Where a type belongs, by its first word. To any other topic nobody but its own service publishes."""

_PUBLISHERS: Final = frozenset(module.__name__ for module in (catalog, fulfilment, inventory))
_CONTENT: Final = frozenset({"data", "data_base64", "datacontenttype"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a feed: a record, or why it cannot even be sent."""

    number: int
    record: Record | None
    reason: str = ""


@dataclass(slots=True)
class _Consumed:
    """A record as a consumer would find it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    partition: int = 0
    offset: int = 0


def publish(*, file: Path) -> int:
    """Send every event of a file as it is given; nothing is sent when a line is no event at all."""
    lines = list(read_feed(file))
    for line in lines:
        if line.record is None:
            raise CommandError(f"{file}, line {line.number}: {line.reason}; nothing was sent", ExitCode.USAGE)
    records = [line.record for line in lines if line.record]

    async def run() -> int:
        async with deployment(progress(), may_start=True) as stack, publishing(stack) as publisher:
            return await publisher.publish(records)

    print(f"{asyncio.run(run())} events published")
    return ExitCode.DONE


def validate(*, file: Path) -> int:
    """Tell line by line what consumers would refuse; 1 when there is such a line."""
    count = refused = 0
    for line in read_feed(file):
        count += 1
        reason = line.reason if line.record is None else refusal(line.record)
        if reason:
            refused += 1
            print(f"line {line.number}: {reason}")
    echo(f"{count} events, {refused} would be refused")
    return ExitCode.NOT_SO if refused else ExitCode.DONE


def read_feed(file: Path) -> Iterator[Line]:
    """Yield every line that is not blank. Raises CommandError when the file cannot be read."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield Line(number, record_of(line))
            except ValueError as error:
                yield Line(number, None, str(error))


def record_of(line: bytes) -> Record:
    """Rewrite a structured event in binary mode, attribute by attribute. Raises ValueError when it is none."""
    event = read_strictly(line)
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ValueError("not a structured CloudEvent: a JSON object with a `type` is expected")  # noqa: TRY004 - a line to refuse
    topic = _TOPICS.get(event["type"].partition(".")[0])
    if topic is None:
        raise ValueError(f"{event['type']!r} belongs to no topic of the catalogue, inventory or fulfilment systems")
    attributes = {name: _text(content) for name, content in event.items() if name not in _CONTENT and content is not None}
    headers = [("content-type", _text(event.get("datacontenttype") or "application/json").encode())]
    headers += [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
    return Record(topic, _key(attributes, event.get("data")).encode(), _payload(event), headers)


def refusal(record: Record) -> str:
    """Why consumers would refuse a record, from the reader they use; empty when they would not."""
    reader = Reader(event for event in EVENTS.values() if event.__module__ in _PUBLISHERS)
    found = reader.read(_Consumed(record.topic, record.key, record.value, record.headers))
    if found is None:
        return f"unknown-type: {dict(record.headers)['ce_type'].decode()}, which everybody ignores"
    return f"{found.reason}: {found.detail}" if isinstance(found, Invalid) else ""


def _key(attributes: dict[str, str], content: Any) -> str:
    """The partition key if the event says one, else the tenant and what the event is about."""
    if "partitionkey" in attributes:
        return attributes["partitionkey"]
    members = content if isinstance(content, dict) else {}
    about = attributes.get("subject") or members.get("sku") or members.get("order_id") or ""
    return f"{attributes.get('tenantid', '')}:{about}"


def _payload(event: dict[str, Any]) -> bytes:
    if "data_base64" not in event:
        return orjson.dumps(event.get("data"))
    try:
        return base64.b64decode(event["data_base64"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"data_base64 is not base64 ({error})") from error


def _text(content: Any) -> str:
    """An attribute as a header has it: text, and what is no text as JSON writes it."""
    return content if isinstance(content, str) else orjson.dumps(content).decode()
