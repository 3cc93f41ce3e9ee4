"""The files for Compose that are written from the code."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from deploy.chart.files import example
from deploy.compose import system
from deploy.local.state import ROOT

FOLDER: Final = ROOT / "deploy" / "compose"
FILES: Final[Mapping[Path, Callable[[], str]]] = {
    FOLDER / "compose.yaml": partial(example, "Not run here: see README.md.", lambda: [system.compose()]),
    FOLDER / "prometheus.yaml": partial(example, "Whom Prometheus asks.", lambda: [system.prometheus()]),
    FOLDER / "deployment.json": lambda: f"{json.dumps(system.description(), indent=2)}\n",
    FOLDER / "topics.sh": lambda: f"{system.topics()}\n",
}
"""Each with what renders it."""
