"""Metrics for Prometheus. Importing a metric from here rather than its library keeps one registry."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

__all__ = ["METRICS_TYPE", "REGISTRY", "Counter", "Gauge", "Histogram", "metrics"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics() -> bytes:
    """Every metric of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
