"""Spans recorded with OpenTelemetry's SDK; the one module that loads it, and only when tracing is on."""

import atexit
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from typing import Self

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace import Span as OtelSpan

from libs.common.telemetry.traces import MAX_LINKS, TRACEPARENT, Attributes, Kind, Span
from libs.common.version import VERSION

FLUSH_SECONDS = 5.0
"""How long the end of a process may wait for a collector that does not answer."""
KINDS: dict[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class RecordedSpan(Span):
    """A span of the SDK."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}")
        self._span = span

    def note(self, name: str, value: str | int) -> None:  # noqa: D102
        self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:  # noqa: D102
        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:  # noqa: D102
        self._span.end()


class OpenTelemetry:
    """Records with a provider of the SDK, which it keeps to itself.

    A global one would have FastAPI record every request a second time, with its exceptions' texts, and no text is safe to
    record.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("cartwright")

    @classmethod
    def exporting(cls, names: Iterable[str], service: str, process: str) -> Self:
        """Record what the environment's sampler takes, and export it in the background."""
        provider = TracerProvider(resource=resource(service, process), shutdown_on_exit=False)
        for name in names:
            provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
        _flush_at_exit(provider)
        return cls(provider)

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Attributes,
        *,
        links: Sequence[str] = (),
        started_ns: int | None = None,
    ) -> Span:
        """A span that has begun now, or then; a parent that cannot be read begins a new trace."""
        context = context_of(parent)
        within = set_span_in_context(NonRecordingSpan(context)) if context else None
        linked = [Link(known) for link in links[:MAX_LINKS] if (known := context_of(link))] if links else None
        span = self._tracer.start_span(name, within, KINDS[kind], attributes, linked, started_ns)
        return RecordedSpan(span)


def context_of(traceparent: str | None) -> SpanContext | None:
    """What a `traceparent` says, or None."""
    if traceparent is None or not TRACEPARENT.fullmatch(traceparent):
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def resource(service: str, process: str) -> Resource:
    """Who records; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what we say ourselves."""
    ours = {
        "service.namespace": "cartwright",
        "service.name": service,
        "service.version": VERSION,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "cartwright.process": process,
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _flush_at_exit(provider: TracerProvider) -> None:
    """Send what is left when the process ends, but wait for it no longer than a while.

    The SDK would wait half a minute for a collector that is away, and a thread can't be started that late.
    """
    ending = threading.Event()

    def flush() -> None:
        ending.wait()
        provider.shutdown()

    flusher = threading.Thread(target=flush, name="traces", daemon=True)
    flusher.start()

    def end() -> None:
        ending.set()
        flusher.join(FLUSH_SECONDS)

    atexit.register(end)
