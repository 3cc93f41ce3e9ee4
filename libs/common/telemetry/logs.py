"""Logs as JSON lines on stderr. A line says which request or message it belongs to without being told each time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, TextIO, cast
from uuid import UUID

import structlog

from libs.common.sensitive import leave_out_sensitive
from libs.common.telemetry.calm import Calm
from libs.common.telemetry.stderr import Stderr, speak_for_everybody
from libs.common.telemetry.traces import REQUEST, trace_id_of
from libs.common.telemetry.tracing import start_tracing


class Subject(Protocol):
    """What a line may be about: a command or an event."""

    # Read-only, so that a frozen message will do.
    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def tenant_id(self) -> UUID: ...  # noqa: D102
    @property
    def correlation_id(self) -> str: ...  # noqa: D102
    @property
    def traceparent(self) -> str | None: ...  # noqa: D102


_SUBJECT: ContextVar[Subject | None] = ContextVar("subject", default=None)


class about:  # noqa: N801 - it is used as a statement
    """Lines written inside are about this message. Its members are only read when there is a line."""

    __slots__ = ("_subject", "_token")

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        self._token: Token[Subject | None] = _SUBJECT.set(self._subject)

    def __exit__(self, *_: object) -> None:
        _SUBJECT.reset(self._token)


@contextmanager
def bound(traceparent: str | None, **members: str) -> Iterator[None]:
    """Lines written inside carry these members, and nothing of what the task around them was started for."""
    subject, request, before = _SUBJECT.set(None), REQUEST.set(None), structlog.contextvars.get_contextvars()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**trace_id_of(traceparent), **members)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**before)
        REQUEST.reset(request)
        _SUBJECT.reset(subject)


def add_subject(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Say which request and message a line is about, unless the line says so itself."""
    request, subject = REQUEST.get(), _SUBJECT.get()
    members = request.members() if request is not None else {}
    if subject is not None:
        members |= {
            **trace_id_of(subject.traceparent),
            "tenant_id": str(subject.tenant_id),
            "message_id": subject.id,
            "correlation_id": subject.correlation_id,
        }
    return {**members, **event}


PROCESSORS: Sequence[structlog.types.Processor] = (
    Calm(),
    add_subject,
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    leave_out_sensitive,
)
"""What becomes of every line before it is written."""


def configure_logging(level: str, form: str, *, service: str = "", process: str = "") -> None:
    """Write every log line to stderr, as JSON or for a person; with a service's name on it, and its traces if asked for."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    always = {name: value for name, value in (("service", service), ("process", process)) if value}

    def add_always(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        return {**always, **event}

    renderer: Any = structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[add_always, *PROCESSORS, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Stderr())),
        cache_logger_on_first_use=True,
    )
    speak_for_everybody(threshold)
    # aiokafka writes a line per refused connection while a broker is away; our own lines say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    if service:
        start_tracing(service, process)
