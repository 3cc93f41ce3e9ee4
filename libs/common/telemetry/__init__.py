"""What a process tells of itself: logs as JSON lines, metrics for Prometheus, traces for OpenTelemetry.

What stands here is for everybody; the spans of messages are in `messages.py`, for it knows what a message is.
"""

from libs.common.telemetry.logs import about, bound, configure_logging
from libs.common.telemetry.metrics import METRICS_TYPE, REGISTRY, Counter, Gauge, Histogram, metrics
from libs.common.telemetry.traces import RequestSpan, Span, call_span, request_span

__all__ = [
    "METRICS_TYPE",
    "REGISTRY",
    "Counter",
    "Gauge",
    "Histogram",
    "RequestSpan",
    "Span",
    "about",
    "bound",
    "call_span",
    "configure_logging",
    "metrics",
    "request_span",
]
