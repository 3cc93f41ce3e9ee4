"""Whom Prometheus asks, and by which rules it judges, for Compose and for drills. On Kubernetes its operator knows."""

from collections.abc import Mapping
from typing import Any, Final

from services import SERVICES

INSTANCES: Final = [(service, kind) for service in SERVICES for kind in ("api", "worker")]


def prometheus(places: Mapping[str, str], *, rules: str, interval: str = "15s", timeout: str = "10s") -> dict[str, Any]:
    """Its configuration. `places`: where each process tells its metrics, by `SERVICE-KIND`; the gateway; and whatever else."""
    of_processes = {f"{service}-{kind}": (service, kind) for service, kind in INSTANCES}
    jobs = [_job(name, place, *of_processes.get(name, ())) for name, place in places.items()]
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": timeout, "evaluation_interval": interval},
        "rule_files": [rules],
        "scrape_configs": jobs,
    }


def _job(name: str, place: str, service: str = "", kind: str = "") -> dict[str, Any]:
    labels = {"labels": {"cartwright_service": service, "app_kubernetes_io_component": kind}} if service else {}
    path = {"metrics_path": "/stats/prometheus"} if name == "gateway" else {}
    return {"job_name": name, **path, "static_configs": [{"targets": [place], **labels}]}
