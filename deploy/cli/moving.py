"""`tenants move`: a tenant's rows from one cell's databases to another's, while it trades."""

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from deploy.cells.errors import MoveError
from deploy.cells.moving import Moved, Owners, Way, emptied, moved
from deploy.cli.api import Api, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator, tenants
from deploy.composition import parts_of
from libs.common.cells import MAIN
from services import SERVICES

MOVING: Final = tuple(service for service in SERVICES if parts_of(service).is_in_cells)
GRACE_SECONDS: Final = 5.0
"""By then every API has heard where the tenant is. One that has not finds nothing of it, instead of what it was."""


def run(*, slug: str, to: str, owners: Path | None, json: bool) -> int:
    """Move it, and delete what it left behind."""
    say = progress()

    async def go() -> dict[str, Any]:
        async with deployment(say) as stack, connected(stack) as api, _owners(owners, stack.topic_prefix) as urls:
            tenant = await _tenant(api, slug)
            way = Way(tenant_id=UUID(tenant["tenant_id"]), source=tenant.get("cell", MAIN), target=to)
            if way.source == to:
                raise CommandError(f"{slug} is in {to} already", ExitCode.USAGE)

            async def switch() -> None:
                path = f"/v1/tenants/{way.tenant_id}/cell"
                await api.call("identity", "PUT", path, token=await operator(api).token(), body={"cell": to})

            try:
                result = await moved(way, MOVING, urls, version=tenant["version"], switch=switch, say=say)
                await asyncio.sleep(GRACE_SECONDS)
                result.deleted = await emptied(way, MOVING, urls, result.digest)
            except MoveError as error:
                raise CommandError(str(error), ExitCode.NOT_SO) from error
            return _as_json(slug, way, result)

    told = asyncio.run(go())
    if json:
        print_json(told)
    else:
        print(
            f"{slug} is in {to}: {told['rows']} rows copied, closed for {told['closed_seconds']} s, the same in both cells "
            f"({told['digest'][:16]}), {told['deleted']} rows deleted in {told['from']}"
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


@asynccontextmanager
async def _owners(file: Path | None, prefix: str) -> AsyncIterator[Owners]:
    """Where the owners of the databases connect: by a file, or on the stack's own server."""
    del prefix
    if file is not None:
        known = _read(file)
        yield lambda service, cell: _known(known, service, cell)
        return
    from deploy.local.database_server import database_server  # an image has nothing that starts a server
    from deploy.local.databases import cell_prefix, database_url

    async with database_server(progress()) as admin_url:
        yield lambda service, cell: database_url(admin_url, service, "owner", cell_prefix(cell))


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
