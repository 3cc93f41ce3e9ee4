"""`tenants move`: a tenant's rows from one cell's databases to another's, while it trades."""

import asyncio
import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from deploy.cells.errors import MoveError
from deploy.cells.moving import Moved, Owners, Way, emptied, given_up, moved
from deploy.cli.api import Api, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator, tenants
from deploy.local.cells import CELLED
from deploy.local.description import StackDescription

GRACE_SECONDS: Final = 5.0
"""By then every API has heard where the tenant is. One that has not finds nothing of it, instead of what it was."""


def run(*, slug: str, to: str, origin: str, owners: Path | None, cancel: bool, json: bool) -> int:
    """Move it, and delete what it left behind in its old cell, which is `origin` where identity knows it as moved already."""
    say = progress()

    async def go() -> dict[str, Any]:
        async with deployment(say) as stack, connected(stack) as api:
            urls = _owners(owners, stack)
            tenant = await _tenant(api, slug)
            is_there = tenant["cell"] == to
            way = Way(tenant_id=UUID(tenant["tenant_id"]), source=origin if is_there else tenant["cell"], target=to)
            if way.source == way.target:
                raise CommandError(f"{slug} is in {to}, and came from no other cell", ExitCode.USAGE)

            async def switch() -> None:
                path = f"/v1/tenants/{way.tenant_id}/cell"
                await api.call("identity", "PUT", path, token=await operator(api).token(), body={"cell": to})

            try:
                if cancel:
                    await given_up(way, CELLED, urls)
                    return _as_json(slug, way, Moved()) | {"to": way.source}
                result = Moved()
                if not is_there:
                    result = await moved(way, CELLED, urls, version=tenant["version"], switch=switch, say=say)
                    await asyncio.sleep(GRACE_SECONDS)
                result.deleted = await emptied(way, CELLED, urls)
            except MoveError as error:
                raise CommandError(str(error), ExitCode.NOT_SO) from error
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                message = f"a database does not let it ({error}): nothing is lost, and the same said again goes on"
                raise CommandError(message, ExitCode.NOT_SO) from error
            return _as_json(slug, way, result)

    told = asyncio.run(go())
    if json:
        print_json(told)
    elif cancel:
        print(f"{slug} stays in {told['to']}")
    else:
        print(
            f"{slug} is in {to}: {told['rows']} rows copied, closed for {told['closed_seconds']} s, "
            f"{told['deleted']} rows deleted in {told['from']}"
        )
    return ExitCode.DONE


def _as_json(slug: str, way: Way, result: Moved) -> dict[str, Any]:
    return {
        "slug": slug,
        "tenant_id": str(way.tenant_id),
        "from": way.source,
        "to": way.target,
        "rows": result.rows,
        "closed_seconds": round(result.closed_seconds, 2),
        "digest": result.digest,
        "deleted": result.deleted,
    }


async def _tenant(api: Api, slug: str) -> dict[str, Any]:
    async for tenant in tenants(api, await operator(api).token(), slug):
        return tenant
    raise CommandError(f"no tenant is called {slug}: ./cartwright tenants list", ExitCode.USAGE)


def _owners(file: Path | None, stack: StackDescription) -> Owners:
    """Where the owners of the databases connect: by a file, or on the stack's own server."""
    if file is not None:
        known = _read(file)
        return lambda service, cell: _known(known, service, cell)
    from deploy.local.database_server import database_of  # an image has nothing that starts a server
    from deploy.local.errors import StackError

    def of(service: str, cell: str) -> str:
        try:
            return database_of(stack, service, cell, "owner")
        except StackError as error:
            raise CommandError(str(error), ExitCode.USAGE) from error

    return of


def _read(file: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        known: Mapping[str, Mapping[str, str]] = jsonlib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"{file} holds no owners' addresses: {error}", ExitCode.USAGE) from error
    return known


def _known(known: Mapping[str, Mapping[str, str]], service: str, cell: str) -> str:
    try:
        return known[cell][service]
    except (KeyError, TypeError) as error:
        message = f"the file of owners' addresses has none of {service} in {cell}"
        raise CommandError(message, ExitCode.USAGE) from error
