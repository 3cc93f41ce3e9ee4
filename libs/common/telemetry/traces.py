"""Traces: W3C Trace Context always, OpenTelemetry spans when the standard OTEL_ variables ask for them.

A context travels as the text of a `traceparent`: in a request's header, a message, the outbox and Kafka. Every span says
its parent, so nothing depends on which task runs where. While tracing is off, a span passes its parent's context on,
records nothing, and no part of OpenTelemetry is loaded.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Literal, Protocol, Self
from uuid import UUID

from libs.common.sensitive import without_sensitive

Kind = Literal["server", "client", "internal", "producer", "consumer"]
Attributes = Mapping[str, str | int]

MAX_LINKS = 64
"""Of a batch's or chunk's messages, so many are linked; the count says how many there were."""
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span:
    """Something that takes time and belongs to a trace. This one is recorded nowhere."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent
        """What the messages sent and the calls made inside carry on."""

    def note(self, name: str, value: str | int) -> None:
        """Add an attribute."""

    def fail(self, reason: str) -> None:
        """What was tried did not succeed. The reason is a code or a type, never a text, which might hold a secret."""

    def end(self) -> None:
        """It is over now; a `with` statement says so by itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        if error is not None:
            self.fail(reason_of(error))
        self.end()


class Recorder(Protocol):
    """Makes spans that are recorded."""

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
        """A span that has begun now, or then."""


_recorder: Recorder | None = None


def recorder() -> Recorder | None:
    """Where spans are recorded; None while tracing is off."""
    return _recorder


def record_with(new: Recorder | None) -> Recorder | None:
    """Record spans there from now on; answers where they were recorded before."""
    global _recorder
    before, _recorder = _recorder, new
    return before


def fresh_traceparent() -> str:
    """The context of a trace that begins here."""
    text = secrets.token_hex(24)
    return f"00-{text[:32]}-{text[32:]}-01"


def trace_id_of(traceparent: str | None) -> dict[str, str]:
    """The trace's id as a log line's member, if there is one."""
    return {"trace_id": traceparent[3:35]} if traceparent else {}


def reason_of(error: BaseException) -> str:
    """A refusal's code, or else the error's type."""
    return str(getattr(error, "code", None) or type(error).__qualname__)


class RequestSpan:
    """A request, as a SERVER span and on every log line written while it is answered."""

    __slots__ = ("_before", "_request_id", "_span", "_tenant_id", "traceparent")

    def __init__(self, span: Span, request_id: str) -> None:
        self._span = span
        self._request_id = request_id
        self._tenant_id: UUID | None = None
        self.traceparent = span.traceparent

    def of_tenant(self, tenant_id: UUID) -> None:
        """The caller is known from here on."""
        self._tenant_id = tenant_id
        if _recorder is not None:
            self._span.note("cartwright.tenant.id", str(tenant_id))

    def answered(self, status: int) -> None:
        """What the caller was told. Only a 5xx is a failure of ours."""
        self._span.note("http.response.status_code", status)
        if status >= 500:
            self._span.fail(str(status))

    def members(self) -> dict[str, str]:
        """What a log line says of it; put together when there is one."""
        tenant = {} if self._tenant_id is None else {"tenant_id": str(self._tenant_id)}
        return {"request_id": self._request_id, **trace_id_of(self.traceparent), **tenant}

    def __enter__(self) -> Self:
        self._before: Token[RequestSpan | None] = REQUEST.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._span.__exit__(kind, error, traceback)
        REQUEST.reset(self._before)


REQUEST: ContextVar[RequestSpan | None] = ContextVar("request", default=None)
"""The request that is being answered, if one is."""


def request_span(route: str, scope: Mapping[str, Any], *, request_id: str, traceparent: str | None) -> RequestSpan:
    """A request (its ASGI scope) to this route, in its caller's trace, or in a new one."""
    parent = traceparent if traceparent and TRACEPARENT.fullmatch(traceparent) else None
    if _recorder is None:
        return RequestSpan(Span(parent or fresh_traceparent()), request_id)
    method = scope["method"]
    attributes = {
        "http.request.method": method,
        "http.route": route,
        "url.path": without_sensitive(scope["path"]),
        "url.scheme": scope.get("scheme", "http"),
        "cartwright.request.id": request_id,
    }
    return RequestSpan(_recorder.start(f"{method} {route}", "server", parent, attributes), request_id)


def call_span(what: str, *, of: str, parent: str | None, attributes: Attributes) -> Span:
    """A call to an outside system, as a CLIENT span."""
    if _recorder is None:
        return Span(parent)
    return _recorder.start(what, "client", parent, {"service.peer.name": of, **attributes})
