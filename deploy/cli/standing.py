"""`tenants suspend`, `resume` and `close`: how a tenant stands, and which services know of it."""

import asyncio
from typing import Any, Literal

from deploy.cli.api import LONGEST_WAIT_SECONDS, Api, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator, tenants

Verb = Literal["suspend", "resume", "close"]


def have_stand(*, slug: str, verb: Verb, json: bool) -> int:
    """Have a tenant stand otherwise, or find that it does; 1 when not every service has said that it knows."""

    async def run() -> dict[str, Any]:
        async with deployment(progress()) as stack, connected(stack) as api:
            return await settled(api, await tenant_id_of(api, slug), verb)

    tenant = asyncio.run(run())
    waiting = [service for service, knows in tenant["acknowledged"].items() if not knows]
    if json:
        print_json(tenant)
    else:
        print(f"{slug} is {tenant['status']}: tenant {tenant['tenant_id']}")
        if waiting:
            print(f"not known yet to {', '.join(waiting)}: say it again to see")
    return ExitCode.NOT_SO if waiting else ExitCode.DONE


async def settled(api: Api, tenant_id: str, verb: Verb) -> dict[str, Any]:
    """Ask for it, and wait until every service knows; answers the tenant as it is then."""
    path, token = f"/v1/tenants/{tenant_id}/{verb}", await operator(api).token()
    tenant: dict[str, Any] = (await api.call("identity", "POST", path, token=token, prefer=f"wait={LONGEST_WAIT_SECONDS}")).body
    return tenant


async def tenant_id_of(api: Api, slug: str) -> str:
    """The tenant of this slug. Raises CommandError when there is none."""
    async for tenant in tenants(api, await operator(api).token(), slug):
        return str(tenant["tenant_id"])
    raise CommandError(f"there is no tenant {slug!r}: see ./cartwright tenants list", ExitCode.USAGE)
