"""`audit verify`: read the trails of all four databases, and name what is not as it was written."""

import asyncio
import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from deploy.cli.audit.chains import Chain, read
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import echo, print_json, progress
from deploy.local.cells import CELLED
from deploy.local.database_server import database_server
from deploy.local.databases import cell_prefix, database_url
from deploy.local.errors import StackError
from deploy.local.state import Home, default_home
from libs.common.clock import PLATFORM
from services import SERVICES

Kept = Mapping[str, Mapping[UUID, Mapping[int, str]]]
"""By service and tenant, the digests that somebody kept elsewhere."""

SLUG = "SELECT tenant_id FROM tenant WHERE slug = $1"


def run(*, tenant: str | None, kept: Path | None, json: bool) -> int:
    """Verify every chain, or one tenant's; 1 when one is broken."""

    async def verified() -> list[Chain]:
        async with database_server(progress()) as admin_url:
            cells = Home(default_home()).have_cells(())
            return await verify(admin_url, tenant=tenant, kept=_kept(kept) if kept else {}, cells=cells)

    return report(asyncio.run(verified()), json=json)


def report(chains: Sequence[Chain], *, json: bool) -> int:
    """Print what was found, and answer the exit code."""
    broken = [chain for chain in chains if chain.broken is not None]
    if json:
        print_json(as_json(chains))
    else:
        for chain in broken:
            print(_sentence(chain))
        count = sum(chain.number for chain in chains)
        echo(f"{len(broken)} of {len(chains)} chains are broken" if broken else f"{count} entries in {len(chains)} chains stand")
    return ExitCode.NOT_SO if broken else ExitCode.DONE


async def verify(
    admin_url: str,
    *,
    tenant: str | None = None,
    kept: Kept | None = None,
    prefix: str = "",
    services: Sequence[str] = SERVICES,
    cells: Sequence[str] = (),
) -> list[Chain]:
    """Every chain of these services, read as the owners of their databases, who can change none; of a cell as `cart@east`."""
    whose = await _whose(admin_url, tenant, prefix)
    places = [(service, service, prefix) for service in services]
    places += [
        (f"{service}@{cell}", service, cell_prefix(cell, prefix)) for cell in cells for service in services if service in CELLED
    ]
    chains: list[Chain] = []
    for name, service, where in places:
        connection = await _as_owner(admin_url, service, where)
        try:
            chains += await read(connection, name, whose, (kept or {}).get(name, {}))
        finally:
            await connection.close()
    return chains


def as_json(chains: Sequence[Chain]) -> dict[str, Any]:
    """What `--json` prints; kept elsewhere, it is what `--kept` holds the chains against."""
    return {
        "ok": all(chain.broken is None for chain in chains),
        "chains": [
            {
                "service": chain.service,
                "tenant_id": str(chain.tenant_id),
                "entries": chain.number,
                "digest": chain.digest.hex(),
                "broken": None if chain.broken is None else {"number": chain.broken[0], "why": chain.broken[1]},
            }
            for chain in chains
        ],
    }


async def _whose(admin_url: str, tenant: str | None, prefix: str) -> UUID | None:
    if tenant is None:
        return None
    if tenant == "platform":
        return PLATFORM
    try:
        return UUID(tenant)
    except ValueError:
        connection = await _as_owner(admin_url, "identity", prefix)
        try:
            found: UUID | None = await connection.fetchval(SLUG, tenant)
        finally:
            await connection.close()
        if found is None:
            raise CommandError(f"no tenant is called {tenant}: ./cartwright tenants list", ExitCode.USAGE) from None
        return found


async def _as_owner(admin_url: str, service: str, prefix: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(database_url(admin_url, service, "owner", prefix), timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise StackError(f"the database of {service} cannot be read ({error}): ./cartwright migrate makes it") from error


def _kept(file: Path) -> Kept:
    kept: dict[str, dict[UUID, dict[int, str]]] = {}
    try:
        for chain in jsonlib.loads(file.read_text())["chains"]:
            if chain["entries"]:
                kept.setdefault(chain["service"], {})[UUID(chain["tenant_id"])] = {chain["entries"]: chain["digest"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{file} is not what `audit verify --json` printed: {error}", ExitCode.USAGE) from error
    return kept


def _sentence(chain: Chain) -> str:
    number, why = chain.broken or (0, "")
    whose = "the platform" if chain.tenant_id == PLATFORM else f"tenant {chain.tenant_id}"
    return f"{chain.service}, {whose}: entry {number} {why}"
