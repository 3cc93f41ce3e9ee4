"""The stack as a command wants it: running, for a while or for good, whole again, or stopped."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from deploy.local.copies import Copies
from deploy.local.description import StackDescription
from deploy.local.errors import StackError
from deploy.local.observing import POLL_SECONDS, START_SECONDS, observe, settled
from deploy.local.orphans import birth, end_orphans
from deploy.local.replicated import STANDBY, ReplicatedPostgres
from deploy.local.services import put_faults
from deploy.local.stack import Stack
from deploy.local.state import Home, default_home
from deploy.local.supervisor import BEHIND, start_in_background

_STOP_SECONDS: Final = 90


@asynccontextmanager
async def running_stack(
    home: Path | None = None, *, keep: bool = False, say: Callable[[str], None] = lambda _: None
) -> AsyncIterator[StackDescription]:
    """Yield the running stack, or start one and stop it afterwards, leaving its state; `keep` leaves it running."""
    place = Home(home or default_home())
    if keep and not place.holder() and start_in_background(place, BEHIND, say):
        raise StackError(f"the stack in {place.path} could not be started")
    if place.holder():
        yield await settled(place, say)
        return
    async with Stack.from_environment(place.path, say=say) as stack:
        yield stack.description()


async def mend(home: Home, copies: Copies = MappingProxyType({})) -> StackDescription:
    """Have the running `up` start what has died, and have so many processes of each kind; return when all is so."""
    stack, holder = await observe(home), home.holder()
    if holder is None or (stack.state == "running" and _has(stack, copies)):
        return stack
    home.want_copies({**home.wanted_copies(), **copies})
    before = home.read().get("failure")
    os.kill(holder, signal.SIGUSR1)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and home.holder() == holder:
        await asyncio.sleep(POLL_SECONDS)
        stack = await observe(home)
        if stack.state == "running" and _has(stack, copies):
            return stack
        failure = home.read().get("failure")
        if failure and failure != before:
            raise StackError(failure["message"])
    raise StackError(f"the stack in {home.path} does not recover: see ./cartwright logs, then down and up")


def _has(stack: StackDescription, copies: Copies) -> bool:
    counts = {f"{name}.api": len(each.api) for name, each in stack.services.items()}
    counts |= {f"{name}.worker": len(each.workers) for name, each in stack.services.items()}
    return all(counts[kind] == count for kind, count in copies.items())


async def join(home: Home, faults: object, copies: Copies, *, repair: bool, say: Callable[[str], None]) -> StackDescription:
    """Return the running stack, repaired if that is wanted, with these faults and so many processes, if that is said."""
    await settled(home, lambda _: None)
    stack = await (mend(home, copies) if repair or copies else observe(home))
    if faults is not None and stack.stripe_api_base:
        await put_faults(stack.stripe_api_base, faults)
    if stack.state == "degraded":
        say("something does not run or is not ready: ./cartwright up --detach repairs it")
    return stack


async def fail_over(home: Home, say: Callable[[str], None]) -> StackDescription:
    """Have the running cluster's standby take over from a primary that is dead, or dies for it; return when that one follows."""
    recorded = home.read()
    if home.holder() is None or not (home.path / STANDBY).exists():
        raise StackError("no stack with a standby is running: ./cartwright up --cluster --detach starts one")
    pid, born = recorded["processes"].get("postgres", (0, None))
    while pid and birth(pid) == born is not None:
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(POLL_SECONDS)
    await ReplicatedPostgres(home, recorded["ports"], say=say).take_over()
    return await mend(home)


def shut_down(home: Home) -> bool:
    """Stop the stack, whoever runs it, and return whether there was anything to stop."""
    holder = home.holder()
    if holder:
        os.kill(holder, signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        while home.holder() == holder:
            if time.monotonic() > end:
                os.kill(holder, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
    return bool(end_orphans(home)) or holder is not None
