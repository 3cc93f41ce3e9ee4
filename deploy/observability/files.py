"""The files that are written from what is declared to be watched."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from deploy.chart.files import CHART, written
from deploy.observability import dashboards
from deploy.observability.declared import declared
from deploy.observability.rules import AS_DECLARED, Pace, groups

RULES: Final = CHART / "files" / "alerts" / "cartwright.yaml"


def rules_file(pace: Pace = AS_DECLARED) -> str:
    """Every rule, as Prometheus reads them."""
    head = "Written by `./cartwright fmt` from deploy/observability/slo.yaml. Each alert names the page that says what to do."
    return written(head, [{"groups": groups(declared(), pace)}])


FILES: Final[Mapping[Path, Callable[[], str]]] = {RULES: rules_file, **dashboards.files()}
"""Each with what renders it."""
