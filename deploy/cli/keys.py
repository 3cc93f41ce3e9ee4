"""`keys rotate`: what is sealed with an old key is sealed with the new one, through the services' operator routes."""

import asyncio
from typing import Any

from deploy.cli.api import connected
from deploy.cli.errors import ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator
from deploy.local.sessions import running_stack


def rotate_master(*, json: bool) -> int:
    """Wrap every provider secret with the master key in force; 1 when some could not be opened."""

    async def run() -> dict[str, Any]:
        async with running_stack(say=progress()) as stack, connected(stack) as api:
            token = await operator(api).token()
            answer = await api.call("payments", "POST", "/ops/provider-accounts/rewrap", token=token)
            counts: dict[str, Any] = answer.body
            return counts

    counts = asyncio.run(run())
    if json:
        print_json(counts)
    else:
        print(f"{counts['rewrapped']} provider accounts wrapped anew, {counts['failed']} could not be")
        if counts["failed"]:
            print("their master key is neither the present nor the previous one: the payments API's log names the tenants")
    return ExitCode.NOT_SO if counts["failed"] else ExitCode.DONE
