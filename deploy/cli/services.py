"""`serve` and `migrate`: the two verbs an image runs, and that `up` runs for every service."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.cli.errors import CommandError, ExitCode, verb
from deploy.composition import is_secret, parts_of, settings_of
from services import SERVICES


def _known(service: str) -> str:
    if service not in SERVICES:
        raise typer.BadParameter(f"{service!r} is none of {', '.join(SERVICES)}")
    return service


Kind = Literal["api", "worker"]


@verb
def serve(
    service: Annotated[str, typer.Argument(parser=_known, metavar="SERVICE")],
    kind: Kind,
    *,
    print_environment: Annotated[
        bool, typer.Option("--print-environment", help="Print what it would read, line by line, and run nothing.")
    ] = False,
) -> None:
    """Run one process of a service.

    It is configured by its environment, and drains on SIGTERM.
    """
    if print_environment:
        print("\n".join(_environment(service)))
        return
    from deploy.local.environment import refuse_unknown_variables
    from deploy.local.errors import StackError
    from libs.common.errors import UnavailableError
    from libs.common.settings import SettingsError

    try:
        refuse_unknown_variables(service)
        if kind == "api":
            from libs.common.processes.api import run_api  # a worker never loads FastAPI

            run_api(parts_of(service))
        else:
            from libs.common.processes.worker import run_worker  # an API process never loads FastStream

            run_worker(parts_of(service))
    except (SettingsError, StackError, UnavailableError) as error:
        raise CommandError(f"{service} {kind}: {error}", ExitCode.ENVIRONMENT) from error


def _environment(service: str) -> Iterator[str]:
    """Every variable that a service reads, as a shell would set it: what is set, and as a comment what holds without it.

    A secret's value is not told, only that there is one, and the file it is read from.
    """
    from libs.common.settings import PREFIX

    for name, field in settings_of(service).model_fields.items():
        variable = f"{PREFIX}{name.upper()}"
        if variable in os.environ:
            yield f"{variable}={'(secret)' if is_secret(field) else shlex.quote(os.environ[variable])}"
        elif f"{variable}_FILE" in os.environ:
            yield f"{variable}_FILE={shlex.quote(os.environ[f'{variable}_FILE'])}"
        else:
            yield f"# {variable} is required" if field.is_required() else f"# {variable}={_written(field.default)}"


def _written(default: object) -> str:
    return "" if default is None else str(default)


@verb
def migrate(
    service: Annotated[
        str | None, typer.Argument(parser=_known, metavar="SERVICE", help="One service; all of them without it.")
    ] = None,
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


def _migrate(service: str, owner_url: str) -> None:
    from deploy.local.environment import refuse_unknown_variables
    from libs.common import database
    from libs.common.addresses import AddressError, address
    from libs.common.errors import UnavailableError

    refuse_unknown_variables(service)
    try:
        if address(owner_url)[1] == "transaction":
            raise CommandError("a migration needs a session: go past a pool with pooling=transaction", ExitCode.USAGE)
        database.migrate(service, owner_url)
        bootstrap = parts_of(service).bootstrap
        if bootstrap is not None:
            bootstrap()
    except (UnavailableError, AddressError) as error:
        raise CommandError(f"{service} is not migrated: {error}", ExitCode.ENVIRONMENT) from error


def _migrate_local_stack(service: str | None) -> None:
    import asyncio

    from deploy.cli.output import progress
    from deploy.local.migrations import migrate_local_databases

    asyncio.run(migrate_local_databases((service,) if service else SERVICES, say=progress()))


def _owner_url() -> str | None:
    if file := os.environ.get("CARTWRIGHT_OWNER_DATABASE_URL_FILE"):
        return Path(file).read_text().strip()
    return os.environ.get("CARTWRIGHT_OWNER_DATABASE_URL")
