"""The files of the chart that are written from the code: what it declares, its values, and what explains them."""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from deploy.chart import examples
from deploy.chart.declared import declared
from deploy.chart.declaring import Group, file_of, rows_of, schema_of
from deploy.chart.values import definitions, values
from deploy.local.state import ROOT

HELM: Final = ROOT / "deploy" / "helm"
CHART: Final = HELM / "cartwright"
_FMT: Final = "Written by `./cartwright fmt`"
_SQL: Final = f"-- {_FMT}. For psql, as the superuser, once databases and roles are there."


def values_file() -> str:
    """The defaults."""
    head = f"# {_FMT} from deploy/chart/values.py, as its schema and its README are. Set what differs in a file of your own."
    return "\n".join([head, *file_of(_values())]) + "\n"


def schema_file() -> str:
    """What the values may be. Helm refuses everything else."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Cartwright"}
    schema = schema_of(_values())
    schema["properties"]["global"] = {"type": "object", "description": "Helm's own."}
    schema = draft | schema | {"$defs": definitions()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def readme() -> str:
    """Every value in a table."""
    rows = [(f"`{name}`", f"`{default}`", says) for name, default, says in rows_of(_values())]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (("value", "default", "what it is for"), *rows)]
    lines.insert(1, "| --- | --- | --- |")
    return "\n".join([_HEAD, *lines]) + "\n"


def declared_file() -> str:
    """What the templates know of the code."""
    return written(f"{_FMT} from the services' declarations and deploy/topics.yaml.", [declared()])


@cache
def _values() -> Group:
    return values()


def written(head: str, parts: list[dict[str, Any]]) -> str:
    """YAML with what it is above it."""
    import yaml

    texts = [yaml.safe_dump(part, sort_keys=False, width=120, allow_unicode=True) for part in parts]
    return f"# {head}\n" + "---\n".join(texts)


def example(head: str, parts: Callable[[], list[dict[str, Any]]]) -> str:
    """YAML that is made of what is declared."""
    return written(f"{_FMT} from deploy/topics.yaml and the services. {head}", parts())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_HEAD: Final = f"""# Cartwright's chart

{_FMT}. How to install it, step by step: [operations](../../../docs/operations.md).
What else is asked of a cluster, ready to be changed: [examples](../examples/).

What may stand in `settings`, with the default that a service has by itself, is in the
[README](../../../README.md#pointing-it-at-real-parts): all but what the chart decides and what is secret.
"""

FILES: Final[Mapping[Path, Callable[[], str]]] = {
    CHART / "values.yaml": values_file,
    CHART / "values.schema.json": schema_file,
    CHART / "README.md": readme,
    CHART / "files" / "declared.yaml": declared_file,
    HELM / "examples" / "strimzi.yaml": partial(
        example,
        "Kafka by Strimzi: three brokers, every topic, and a user with its rights for whoever may come.",
        examples.strimzi,
    ),
    HELM / "examples" / "cloudnative-pg.yaml": partial(
        example,
        "PostgreSQL by CloudNativePG: one cluster with a synchronous standby, a database and three roles a service.",
        examples.cloudnative_pg,
    ),
    HELM / "examples" / "databases.sql": lambda: f"{_SQL}\n{examples.databases()}\n",
}
"""Each with what renders it."""
