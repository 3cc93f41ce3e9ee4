"""The verbs of how a tenant stands, and of what is taken away of it; what each does is loaded when it is asked for."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.delegated import Json
from deploy.cli.errors import verb


@verb
def suspend(slug: str, *, json: Json = False) -> int | None:
    """Have nothing new begin at a tenant; what was begun ends, and staff read and give money back."""
    from deploy.cli import standing

    return standing.have_stand(slug=slug, verb="suspend", json=json)


@verb
def resume(slug: str, *, json: Json = False) -> int | None:
    """Open a suspended tenant again."""
    from deploy.cli import standing

    return standing.have_stand(slug=slug, verb="resume", json=json)


@verb
def close(slug: str, *, json: Json = False) -> int | None:
    """Have nothing new begin at a tenant ever again; there is no way back."""
    from deploy.cli import standing

    return standing.have_stand(slug=slug, verb="close", json=json)


@verb
def export(
    slug: str,
    folder: Annotated[Path, typer.Argument(help="Made if it is not there; what is in it already is not touched.")],
    *,
    json: Json = False,
) -> int | None:
    """Take away all that is kept of a tenant: a file a service, and a manifest with counts and SHA-256."""
    from deploy.cli import exports

    return exports.export(slug=slug, folder=folder, json=json)


@verb
def erase(
    tenant: Annotated[str, typer.Argument(help="Its slug, or its id.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    json: Json = False,
) -> int | None:
    """Delete all of a tenant that is closing, once its money has come to its end: what is left is its id, the date, a digest."""
    from deploy.cli import erasing

    return erasing.erase(tenant=tenant, yes=yes, json=json)
