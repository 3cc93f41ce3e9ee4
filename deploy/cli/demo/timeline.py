"""The story of one order: our own requests, and the events that Kafka has of its checkout, put in order of time."""

import time
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import orjson

from deploy.cli.api import Observed
from deploy.cli.publisher import client_arguments
from deploy.local.description import StackDescription
from libs.common.clock import rfc3339
from libs.common.messaging.reading import Consumer

_TOPICS: Final = ("cart.v1", "checkout.v1", "order.v1", "payment.v1")
_LAST_EVENTS: Final = frozenset({"cart.ordered", "payment.captured"})
_PATIENCE_SECONDS: Final = 5
_CLOCK_SLACK: Final = timedelta(seconds=5)
_PROVIDER_CALL: Final = "provider.called"

Kind: TypeAlias = Literal["request", "event", "provider-call"]


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened on an order's way, and how long it took if that is known."""

    at: datetime
    service: str
    kind: Kind
    name: str
    duration_ms: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the moment as `demo --json` prints it."""
        return {
            "at": rfc3339(self.at),
            "service": self.service,
            "kind": self.kind,
            "name": self.name,
            "duration_ms": self.duration_ms,
        }


async def timeline(stack: StackDescription, checkout_id: str, requests: Iterable[Observed]) -> list[Moment]:
    """Return everything that is known of a purchase, in order of time."""
    moments = [_of_request(request) for request in requests]
    since = min(moment.at for moment in moments) - _CLOCK_SLACK
    moments += [moment async for moment in _events(stack, checkout_id, since)]
    return sorted(moments, key=lambda moment: moment.at)


def _of_request(request: Observed) -> Moment:
    name = f"{request.name} → {request.status}"
    return Moment(request.at, request.service, "request", name, request.duration_ms)


async def _events(stack: StackDescription, checkout_id: str, since: datetime) -> AsyncIterator[Moment]:
    """Yield the events of one checkout, until its last ones have come or patience ends."""
    topics = [stack.topic_prefix + topic for topic in _TOPICS]
    consumer = Consumer(*topics, auto_offset_reset="latest", enable_auto_commit=False, **client_arguments(stack))
    missing, end = set(_LAST_EVENTS), time.monotonic() + _PATIENCE_SECONDS
    await consumer.start()
    try:
        await _go_to(consumer, since)
        while missing and time.monotonic() < end:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for moment, type_ in _of_records(records, checkout_id):
                    missing.discard(type_)
                    yield moment
    finally:
        await consumer.stop()


async def _go_to(consumer: Consumer, since: datetime) -> None:
    partitions = consumer.assignment()
    offsets = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
    for partition in partitions:
        if offsets[partition]:
            consumer.seek(partition, offsets[partition].offset)
        else:
            await consumer.seek_to_end(partition)


def _of_records(records: Collection[Any], checkout_id: str) -> Iterable[tuple[Moment, str]]:
    for record in records:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        if headers.get("ce_correlationid") == checkout_id:
            yield _of_event(headers, record.value), headers["ce_type"]


def _of_event(headers: dict[str, str], payload: bytes) -> Moment:
    at, type_ = datetime.fromisoformat(headers["ce_time"]), headers["ce_type"]
    service = headers["ce_source"].rpartition("/")[2]
    if type_ != _PROVIDER_CALL:
        return Moment(at, service, "event", type_)
    call = orjson.loads(payload)
    # The event tells of a call that is over; the story wants it where it began.
    began = datetime.fromisoformat(call["started_at"])
    return Moment(began, service, "provider-call", f"{call['kind']} → {call['outcome']}", call["duration_ms"])
