"""`tenants erase`: nothing is left of a tenant that is closing, anywhere, but that it was there."""

import asyncio
from typing import Any, Final
from uuid import UUID

import typer

from deploy.cli.api import Api, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.standing import tenant_id_of
from deploy.cli.tenants import operator
from deploy.cli.waiting import asked_again

_PATIENCE_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.5


def erase(*, tenant: str, yes: bool, json: bool) -> int:
    """Have it erased and wait, or find that it is; 1 when something of it is still under way."""
    if not yes and (json or not typer.confirm(f"Delete all of {tenant}, in every service? There is no way back", default=False)):
        raise CommandError("nothing was deleted: say --yes", ExitCode.USAGE)

    async def run() -> dict[str, Any]:
        async with deployment(progress()) as stack, connected(stack) as api:
            return await erased(api, await _id_of(api, tenant))

    found = asyncio.run(run())
    waiting = [service for service, has_nothing in found["erased"].items() if not has_nothing]
    if json:
        print_json(found)
    elif "erased_at" in found:
        print(f"{found['tenant_id']} was erased at {found['erased_at']}: {found['export_sha256']}")
    else:
        print(f"{found['tenant_id']} is {found['status']}; something of it is still in {', '.join(waiting)}: say it again to see")
    return ExitCode.DONE if "erased_at" in found else ExitCode.NOT_SO


async def erased(api: Api, tenant_id: str) -> dict[str, Any]:
    """Ask for it, and wait until every service has nothing of it; answers what is left then."""
    token, path = operator(api), f"/v1/tenants/{tenant_id}"
    await api.call("identity", "POST", f"{path}/erase", token=await token.token())

    async def read() -> dict[str, Any]:
        found: dict[str, Any] = (await api.call("identity", "GET", path, token=await token.token())).body
        return found

    def left(found: dict[str, Any]) -> int:
        return 0 if "erased_at" in found else 1 + sum(not has_nothing for has_nothing in found["erased"].values())

    return await asked_again(read, left, patience_seconds=_PATIENCE_SECONDS, pause_seconds=_POLL_SECONDS)


async def _id_of(api: Api, tenant: str) -> str:
    """By its slug, while it has one, or by its id."""
    try:
        return str(UUID(tenant))
    except ValueError:
        return await tenant_id_of(api, tenant)
