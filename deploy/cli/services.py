"""`serve` and `migrate`: the two verbs an image runs, and that `up` runs for every service."""

import importlib
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.cli.errors import CommandError, ExitCode, verb

Service = Literal["identity", "cart", "checkout", "payments"]
Kind = Literal["api", "worker"]


@verb
def serve(service: Service, kind: Kind) -> None:
    """Run one process of a service.

    It is configured by its environment, and drains on SIGTERM.
    """
    from libs.common.errors import UnavailableError
    from libs.common.settings import SettingsError

    app = importlib.import_module(f"services.{service}.app")
    try:
        getattr(app, kind)()
    except (SettingsError, UnavailableError) as error:
        raise CommandError(f"{service} {kind}: {error}", ExitCode.ENVIRONMENT) from error


@verb
def migrate(
    service: Annotated[Service | None, typer.Argument(help="One service; all four without it.")] = None,
) -> None:
    """Bring databases up to date.

    The one CARTWRIGHT_OWNER_DATABASE_URL names, else those of the local stack.
    """
    owner_url = _owner_url()
    if service is None and owner_url:
        raise CommandError("CARTWRIGHT_OWNER_DATABASE_URL names one database: say whose", ExitCode.USAGE)
    if service is None or owner_url is None:
        _migrate_local_stack(service)
    else:
        _migrate(service, owner_url)


def _migrate(service: Service, owner_url: str) -> None:
    from libs.common import database

    database.migrate(service, owner_url)
    # Some services need a first row; only identity does today, whose first operator nobody else could make.
    app = importlib.import_module(f"services.{service}.app") if service == "identity" else None
    bootstrap = getattr(app, "bootstrap", None)
    if bootstrap is not None:
        bootstrap()


def _migrate_local_stack(service: Service | None) -> None:
    import asyncio

    from deploy.cli.output import progress
    from deploy.local.migrations import migrate_local_databases
    from deploy.local.ports import SERVICES

    asyncio.run(migrate_local_databases((service,) if service else SERVICES, say=progress()))


def _owner_url() -> str | None:
    if file := os.environ.get("CARTWRIGHT_OWNER_DATABASE_URL_FILE"):
        return Path(file).read_text().strip()
    return os.environ.get("CARTWRIGHT_OWNER_DATABASE_URL")
