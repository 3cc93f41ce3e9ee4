"""Grafana's dashboards, made of `dashboards.yaml`."""

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
FOLDER: Final = HERE / "dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
"""Whichever Prometheus is chosen at the top of the page."""
_COLUMNS: Final = 24
_WIDTH: Final = 12
_HEIGHT: Final = 8
_KINDS: Final = {"lines": "timeseries", "bars": "bargauge", "table": "table"}

Panel = dict[str, Any]


@cache
def declared() -> dict[str, dict[str, Any]]:
    """What is declared of each."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "dashboards.yaml").read_text(encoding="utf-8"))
    return found


def files() -> dict[Path, Callable[[], str]]:
    """Each dashboard's file, with what renders it."""
    return {FOLDER / f"{name}.json": partial(dashboard, name) for name in declared()}


def dashboard(name: str) -> str:
    """One of them, as Grafana reads it."""
    known = declared()[name]
    made = {
        "uid": f"cartwright-{name}",
        "title": known["title"],
        "tags": ["cartwright"],
        "schemaVersion": 39,
        "editable": False,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
        "annotations": {"list": []},
        "panels": [*_panels(known["rows"])],
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _panels(rows: dict[str, list[dict[str, Any]]]) -> Iterator[Panel]:
    number, y = 1, 0
    for title, panels in rows.items():
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, y = number + 1, y + 1
        for at, panel in enumerate(panels):
            down, right = divmod(at, _COLUMNS // _WIDTH)
            place = {"h": _HEIGHT, "w": _WIDTH, "x": right * _WIDTH, "y": y + down * _HEIGHT}
            yield _panel(panel, number, place)
            number += 1
        y += -(-len(panels) // (_COLUMNS // _WIDTH)) * _HEIGHT


def _panel(panel: dict[str, Any], number: int, place: dict[str, int]) -> Panel:
    kind = panel.get("kind", "lines")
    is_now = kind != "lines"
    return {
        "id": number,
        "type": _KINDS[kind],
        "title": panel["title"],
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.get("unit", "short")}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "expr": expression.replace("$window", "$__rate_interval"),
                "legendFormat": called,
                "instant": is_now,
                "range": not is_now,
                "format": "table" if kind == "table" else "time_series",
            }
            for at, (called, expression) in enumerate(panel["of"].items())
        ],
    }
