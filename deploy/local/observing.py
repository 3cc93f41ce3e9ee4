"""A stack that runs, as it is now: for those who only look at it, or use it."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from deploy.local import readiness
from deploy.local.description import CellAddress, ServiceAddress, StackDescription
from deploy.local.environment import PLATFORM_CLIENT_ID
from deploy.local.errors import StackError
from deploy.local.state import Home
from services import SERVICES

START_SECONDS: Final = 180
POLL_SECONDS: Final = 0.1


async def observe(home: Home) -> StackDescription:
    """Return the stack as it is now: what is recorded, less what has died or does not answer."""
    recorded = home.read()
    if "stack" not in recorded:
        return _never_started(home)
    prefixes = {name: recorded.get(name, "") for name in ("topic_prefix", "database_prefix")}
    stack = StackDescription.from_json(recorded["stack"], **prefixes)
    if home.holder() is None:
        return stack.stopped()
    services = {name: _living(service) for name, service in stack.services.items()}
    stack = replace(stack, services=services, cells={name: _of_living(cell) for name, cell in stack.cells.items()})
    whole = recorded["phase"] == "ready" and recorded["stack"]["state"] == "running"
    doors = [ops for service in stack.services.values() for ops in service.ops]
    doors += [ops for cell in stack.cells.values() for its in cell.ops.values() for ops in its]
    answers = await asyncio.gather(*(readiness.status(f"{ops}/readyz") for ops in doors))
    return replace(stack, state="running" if whole and set(answers) <= {readiness.OK} else "degraded")


async def settled(home: Home, say: Callable[[str], None]) -> StackDescription:
    """Wait for a stack that is just starting, then return it."""
    end = time.monotonic() + START_SECONDS
    while home.holder() and home.read().get("phase") == "starting" and time.monotonic() < end:  # noqa: ASYNC110 - a file
        await asyncio.sleep(POLL_SECONDS)
    stack = await observe(home)
    if stack.state == "stopped":
        raise StackError("the stack stopped while it was being waited for: see ./cartwright logs up")
    if stack.state == "degraded":
        say("the running stack is degraded: ./cartwright status shows how, ./cartwright up --detach repairs it")
    return stack


def _living(service: ServiceAddress) -> ServiceAddress:
    return replace(
        service,
        api=tuple(pid for pid in service.api if _alive(pid)),
        workers=tuple(pid for pid in service.workers if _alive(pid)),
    )


def _of_living(cell: CellAddress) -> CellAddress:
    return replace(cell, workers={service: tuple(filter(_alive, pids)) for service, pids in cell.workers.items()})


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _never_started(home: Home) -> StackDescription:
    nowhere = {name: ServiceAddress() for name in SERVICES}
    secret = home.secret_file("platform-client")
    return StackDescription("stopped", home.path, nowhere, None, None, None, None, None, PLATFORM_CLIENT_ID, secret)
