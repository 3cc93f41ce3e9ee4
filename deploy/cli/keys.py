"""`keys`: signing keys rotated and revoked, and all that is sealed put under another master key, by the operators' routes."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from deploy.cli.api import Api, RefusedError, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator
from deploy.cli.waiting import asked_again
from deploy.local.description import StackDescription
from deploy.local.master_keys import SEALED_WITH, MasterKeyFiles
from deploy.local.sessions import mend, running_stack, shut_down
from deploy.local.state import Home, default_home
from libs.common.clock import now

_REWRAP: Final = {"identity": "/ops/signing-keys/rewrap", "payments": "/ops/provider-accounts/rewrap"}
_TOO_NEW: Final = "signing-key-too-new"
_LEAVES_SECONDS: Final = 40


def rotate_signing(*, json: bool) -> int:
    """Sign with the next key from now on, once everybody can know it."""
    told = asyncio.run(_with_api(_rotate_signing))
    if json:
        print_json(told)
    else:
        print(f"{told['kid']} signs; what {told['previous_kid']} has signed is believed until it ends")
    return ExitCode.DONE


def revoke(kid: str, *, json: bool) -> int:
    """Have nobody believe a key any more."""

    async def run(api: Api, _say: Callable[[str], None]) -> None:
        token = await operator(api).token()
        await api.call("identity", "POST", f"/ops/signing-keys/{kid}/revoke", token=token)

    asyncio.run(_with_api(run))
    if json:
        print_json({"kid": kid, "revoked": True})
    else:
        print(f"{kid} is revoked: whoever has a token by it asks for another")
    return ExitCode.DONE


def rotate_master(*, json: bool) -> int:
    """Put everything under a new master key; 1 when something could not be opened.

    A master key that the user sets is his to change: then what is sealed with the one before is put under that.
    """
    counts = asyncio.run(_rotate_master(progress()))
    if json:
        print_json(counts)
    else:
        for service in SEALED_WITH:
            print(f"{service}: {counts[service]['rewrapped']} sealed anew, {counts[service]['failed']} could not be")
        if counts["failed"]:
            print("their master key is neither the present nor the previous one: the API's log names them")
    return ExitCode.NOT_SO if counts["failed"] else ExitCode.DONE


async def _with_api(work: Callable[[Api, Callable[[str], None]], Any]) -> Any:
    say = progress()
    async with deployment(say) as stack, connected(stack) as api:
        return await work(api, say)


async def _rotate_signing(api: Api, say: Callable[[str], None]) -> dict[str, Any]:
    token = operator(api)
    while True:
        try:
            answer = await api.call("identity", "POST", "/ops/signing-keys/rotate", token=await token.token())
        except RefusedError as error:
            if error.code != _TOO_NEW:
                raise
            seconds = await _seconds_to_wait(api, await token.token())
            say(f"the next key was published a moment ago, and signs in {seconds:.0f} s at the earliest: waiting")
            await asyncio.sleep(seconds)
        else:
            told: dict[str, Any] = answer.body
            return told


async def _seconds_to_wait(api: Api, token: str) -> float:
    keys = (await api.call("identity", "GET", "/ops/signing-keys", token=token)).body["items"]
    at = [datetime.fromisoformat(key["not_before"]) for key in keys if key["state"] == "next"]
    return max([(each - now()).total_seconds() for each in at] + [0]) + 0.1


async def _rotate_master(say: Callable[[str], None]) -> dict[str, Any]:
    home = Home(default_home())
    was_running = home.holder() is not None
    async with running_stack(home.path, keep=True, say=say) as stack:
        try:
            return await (_renewed(home, stack, say) if home.read().get("own_master_key") else _resealed(stack))
        finally:
            if not was_running:
                shut_down(home)


async def _renewed(home: Home, stack: StackDescription, say: Callable[[str], None]) -> dict[str, Any]:
    """Make another key, have all know both, seal with the new one, and forget the old one when nothing needs it."""
    files = MasterKeyFiles(home)
    files.begin()
    say("there is a new master key, beside the one before")
    stack = await _restarted(home, stack, say)
    counts = await _resealed(stack)
    if not counts["failed"]:
        files.finish()
        say("nothing needs the one before any more")
        await _restarted(home, stack, say)
    return counts


async def _resealed(stack: StackDescription) -> dict[str, Any]:
    async with connected(stack) as api:
        token = await operator(api).token()
        counts = {service: (await api.call(service, "POST", path, token=token)).body for service, path in _REWRAP.items()}
    return {name: sum(each[name] for each in counts.values()) for name in ("rewrapped", "failed")} | counts


async def _restarted(home: Home, stack: StackDescription, say: Callable[[str], None]) -> StackDescription:
    """End the processes that keep something sealed, and have whoever runs the stack start them again."""
    pids = [pid for service in SEALED_WITH for pid in (*stack.services[service].api, *stack.services[service].workers)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    async def left() -> list[int]:
        return [pid for pid in pids if _runs(pid)]

    if await asked_again(left, len, patience_seconds=_LEAVES_SECONDS, pause_seconds=0.1):
        raise CommandError("a process does not leave: see ./cartwright logs; then say keys rotate master again")
    say(f"{' and '.join(SEALED_WITH)} are started again")
    return await mend(home)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
