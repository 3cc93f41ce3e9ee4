"""Logs as JSON lines, metrics for Prometheus. Importing a metric here rather than its library keeps one registry."""

import logging
import sys

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

__all__ = ["REGISTRY", "Counter", "Gauge", "Histogram", "configure_logging", "metrics"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def configure_logging(level: str, form: str, **always: str) -> None:
    """Write every log line to stderr, as JSON or for a person, with these members on each."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**always)
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=sys.stderr, format="%(name)s %(levelname)s %(message)s")
    # aiokafka writes a line per refused connection while a broker is away; our own lines say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def metrics() -> bytes:
    """Every metric of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
