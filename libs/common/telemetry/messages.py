"""The spans of messages: a command's while it is carried out, an event's where it is made and where it is handled.

An event carries the context of its own PRODUCER span from the insert on, through relay and Kafka; whoever handles it
goes on from there, and what that publishes goes on from the handling. Batches and chunks hold messages of many traces,
so their spans are linked to the messages and are not their parents.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from libs.common.decision import Message, Published
from libs.common.errors import CartwrightError
from libs.common.telemetry.traces import MAX_LINKS, Attributes, Recorder, Span, reason_of, recorder

SYSTEM: Attributes = {"messaging.system": "kafka"}


class Record(Protocol):
    """Where a message was read."""

    # Read-only, so that an immutable record will do.
    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class Found(Protocol):
    """A message with the record it was read from."""

    @property
    def record(self) -> Record: ...  # noqa: D102
    @property
    def message(self) -> Message[Any]: ...  # noqa: D102


class Spans:
    """The spans of messages that are decided together: they end together, for their effects commit together."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: Sequence[Span] = ()

    def settle(self, errors: Iterable[Exception | None]) -> None:
        """What became of each message."""
        if not self._spans:
            return
        for span, error in zip(self._spans, errors, strict=True):
            if error is not None:
                self._settle(span, error)

    def end(self, error: BaseException | None) -> None:
        """Everything is committed, or nothing."""
        for span in self._spans:
            if error is not None:
                self._settle(span, error)
            span.end()

    def _settle(self, span: Span, error: BaseException) -> None:
        span.fail(reason_of(error))


class CommandSpans(Spans):
    """Commands, each with an INTERNAL span around its transaction and the tries it takes."""

    __slots__ = ("messages",)

    def __init__(self, messages: Sequence[Message[Any]]) -> None:
        super().__init__()
        self.messages = messages
        """The commands, each in the context of its span."""
        record = recorder()
        if record is not None:
            self._spans = [_command_span(record, message) for message in messages]
            self.messages = in_context(messages, self._spans)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        self.end(error)

    def _settle(self, span: Span, error: BaseException) -> None:
        """A refusal that the sender is told of is an answer, and no failure of ours."""
        if isinstance(error, CartwrightError) and error.status < 500:
            span.note("cartwright.refusal", error.code)
        else:
            super()._settle(span, error)


class BatchSpans(Spans):
    """A transaction of the inbox: a CONSUMER span for each message, and one for the batch, linked to them.

    One that handles nothing (repetitions, others' business, a lost fence) has no span.
    """

    __slots__ = ("_batch", "_group", "_started_ns")

    def __init__(self, group: str) -> None:
        super().__init__()
        self._group = group
        self._batch: Span | None = None
        self._started_ns = 0

    async def __aenter__(self) -> Self:
        if recorder() is not None:
            self._started_ns = time.time_ns()
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        self.end(error)
        if self._batch is not None:
            if error is not None:
                self._batch.fail(reason_of(error))
            self._batch.end()

    def open(self, found: Sequence[Found]) -> list[Message[Any]]:
        """The messages about to be decided, each in the context of its span."""
        messages = [each.message for each in found]
        record = recorder()
        if record is None or not messages:
            return messages
        links = [message.traceparent for message in messages[:MAX_LINKS] if message.traceparent]
        attributes = self._attributes() | {"messaging.batch.message_count": len(messages)}
        self._batch = record.start(
            f"process {self._group}", "consumer", None, attributes, links=links, started_ns=self._started_ns
        )
        self._spans = [self._consumer_span(record, each) for each in found]
        return in_context(messages, self._spans)

    def _attributes(self) -> dict[str, str | int]:
        return {
            **SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": self._group,
        }

    def _consumer_span(self, record: Recorder, found: Found) -> Span:
        message, place = found.message, found.record
        attributes = self._attributes() | {
            "messaging.destination.name": place.topic,
            "messaging.destination.partition.id": str(place.partition),
            "messaging.kafka.offset": place.offset,
            "messaging.message.id": message.id,
            "messaging.message.conversation_id": message.correlation_id,
            "cloudevents.event_type": message.data.TYPE,
            "cloudevents.event_source": message.source,
            "cartwright.tenant.id": str(message.tenant_id),
        }
        links = [self._batch.traceparent] if self._batch is not None and self._batch.traceparent else []
        name, parent = f"process {message.data.TYPE}", message.traceparent
        return record.start(name, "consumer", parent, attributes, links=links, started_ns=self._started_ns)


def created(published: Sequence[Published]) -> Sequence[Published]:
    """Events about to be stored, each in the context of a PRODUCER span of its own."""
    record = recorder()
    if record is None:
        return published
    return [_created(record, each) for each in published]


def _created(record: Recorder, published: Published) -> Published:
    event, cause = published.event, published.cause
    attributes: Attributes = {
        **SYSTEM,
        "messaging.operation.name": "create",
        "messaging.operation.type": "create",
        "messaging.destination.name": event.TOPIC,
        "cloudevents.event_type": event.TYPE,
        "cloudevents.event_subject": published.aggregate_id,
        "cartwright.tenant.id": str(cause.tenant_id),
    }
    with record.start(f"create {event.TYPE}", "producer", cause.traceparent, attributes) as span:
        return replace(published, cause=replace(cause, traceparent=span.traceparent))


def chunk_span(rows: Sequence[Mapping[str, Any]], traceparent_of: Callable[[bytes], str | None]) -> Span:
    """A relay's chunk on its way to the broker: outbox rows, of which `headers` is read, and that only when tracing is on."""
    record = recorder()
    if record is None:
        return Span(None)
    links = [context for row in rows[:MAX_LINKS] if (context := traceparent_of(row["headers"]))]
    attributes: Attributes = {
        **SYSTEM,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": len(rows),
    }
    return record.start("send chunk", "client", None, attributes, links=links)


def _command_span(record: Recorder, message: Message[Any]) -> Span:
    attributes: Attributes = {
        "cartwright.command": type(message.data).__name__,
        "cartwright.request.id": message.id,
        "cartwright.tenant.id": str(message.tenant_id),
    }
    return record.start(f"execute {type(message.data).__name__}", "internal", message.traceparent, attributes)


def in_context(messages: Sequence[Message[Any]], spans: Sequence[Span]) -> list[Message[Any]]:
    """The messages, each carrying on its span."""
    return [replace(message, traceparent=span.traceparent) for message, span in zip(messages, spans, strict=True)]
