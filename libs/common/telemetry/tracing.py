"""Whether spans are recorded, and where they go: as OpenTelemetry's own variables say."""

import os
from collections.abc import Mapping

import structlog

from libs.common.telemetry.traces import record_with

EXPORTERS = frozenset({"otlp", "console"})
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

log = structlog.get_logger(__name__)


def start_tracing(service: str, process: str) -> None:
    """Record spans if the environment asks for it; they are flushed when the process ends."""
    names = exporters(os.environ)
    if names:
        from libs.common.telemetry.recording import OpenTelemetry

        record_with(OpenTelemetry.exporting(names, service, process))


def exporters(environment: Mapping[str, str]) -> frozenset[str]:
    """Where spans go, as OpenTelemetry's own variables say; nowhere unless one of them asks."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    implied = "otlp" if any(environment.get(name) for name in ENDPOINTS) else "none"
    names = (environment.get("OTEL_TRACES_EXPORTER") or implied).split(",")
    wanted = frozenset(name.strip().lower() for name in names) - {"", "none"}
    protocol = next((value for name in PROTOCOLS if (value := environment.get(name))), PROTOCOL)
    if wanted - EXPORTERS or ("otlp" in wanted and protocol != PROTOCOL):
        unusable = {"exporters": sorted(wanted - EXPORTERS), "protocol": protocol}
        log.warning("tracing.unusable", **unusable, action=f"exporters are otlp (over {PROTOCOL}) and console")
    return (wanted & EXPORTERS) if protocol == PROTOCOL else wanted & {"console"}
