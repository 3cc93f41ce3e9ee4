"""Where logs are written, whatever becomes of it; and what others write there, as lines like our own."""

import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog

from libs.common.telemetry.metrics import Counter

LOST = Counter("cartwright_log_lines_lost_total", "Log lines that could not be written")


class Stderr:
    """Where lines go, and where nobody fails: a full disk or a reader that is gone must not end an order.

    Nothing is kept for later, as Python's own file would: what could not be written would stand before every line after it.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """Write all of it, or count it as lost."""
        left = text.encode(errors="backslashreplace")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            LOST.inc()

    def flush(self) -> None:
        """There is nothing that was kept."""


class Said(logging.Handler):
    """Makes a line of ours of what a library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on at its level."""
        log = structlog.get_logger(record.name)
        log.log(record.levelno, "library.said", logger=record.name, message=record.getMessage(), exc_info=record.exc_info)


def speak_for_everybody(level: int) -> None:
    """From now on what Python and its libraries write to stderr are lines of ours."""
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[Said()], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _failed
    sys.unraisablehook = lambda it: _failed(it.exc_type, it.exc_value, it.exc_traceback, where=repr(it.object))
    threading.excepthook = lambda it: _failed(
        it.exc_type, it.exc_value, it.exc_traceback, where=it.thread.name if it.thread else "a thread"
    )


def _failed(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, **where: Any) -> None:
    """Tell of an error that nobody took."""
    stack = "".join(traceback.format_exception(kind, error, trace))
    structlog.get_logger(__name__).critical("process.failed", error=repr(error), exception=stack, **where)
