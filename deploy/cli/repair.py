"""`parked` and `rebuild`: what operators repair, through the operator surface that every process has."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from deploy.cli.api import Api, RefusedError, connected, paged
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator
from deploy.local.description import StackDescription

ASK_SECONDS = 30
REBUILD_SECONDS = 600
UNDECIDED = ("parked", "rejected")
"""What queues behind a parked message goes on with it."""
TOLD_EVERY = 50
GONE = "parked-message-not-found"


def search(*, service: str | None, json: bool, **filters: str | None) -> int:
    """Print what is parked, of one service or all, and passes these filters."""
    said = _said(**filters)

    async def run(api: Api, token: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name in services(api.stack, service):
            found.extend([{"service": name, **each} async for each in _set_aside(api, name, token, said)])
        return found

    items = with_operator(run)
    if json:
        print_json({"items": items})
        return ExitCode.DONE
    for each in items:
        print(f"{each['service']:<9} {each['id']:<28} {each['state']:<9} {each['reason']:<20} {each['type']} {each['key']}")
    print(f"{len(items)} parked" if items else "nothing is parked")
    return ExitCode.DONE


def show(*, parked_id: str, service: str | None, json: bool) -> int:
    """Print one message whole."""
    found = with_operator(lambda api, token: _on_its_service(api, token, service, parked_id, "GET", ""))
    if json:
        print_json(found)
        return ExitCode.DONE
    for name, value in found.items():
        if name != "headers":
            print(f"{name:<11} {value}")
    for name, value in found["headers"]:
        print(f"  {name}: {value}")
    return ExitCode.DONE


def decide(*, parked_id: str, service: str | None, action: str, reason: str, json: bool) -> int:
    """Replay or discard one message; 1 when it still fails."""

    async def run(api: Api, token: str) -> dict[str, Any]:
        return await _on_its_service(api, token, service, parked_id, "POST", f"/{action}", _body(action, reason))

    try:
        outcome = with_operator(run)
    except RefusedError as error:
        raise CommandError(str(error), ExitCode.NOT_SO) from error
    if json:
        print_json(outcome)
    else:
        print(f"{action}: {', '.join(outcome['done'])}")
        if "stopped_by" in outcome:
            print(f"stopped by {outcome['stopped_by']}")
    return ExitCode.DONE


def decide_all(
    *, service: str | None, tenant: str | None, type_: str | None, because: str | None, action: str, reason: str, json: bool
) -> int:
    """Replay or discard all that these filters find, the oldest first; 1 when some still fail."""
    filters, body, say = _said(tenant_id=tenant, type=type_, reason=because), _body(action, reason), progress()

    async def run(api: Api, token: str) -> dict[str, Any]:
        done, failed = 0, list[dict[str, Any]]()
        for name in services(api.stack, service):
            found = [each for state in UNDECIDED async for each in _set_aside(api, name, token, {**filters, "state": state})]
            for number, each in enumerate(sorted(found, key=lambda each: (each["parked_at"], each["id"])), 1):
                try:
                    await _asked(api, token, name, each["id"], "POST", f"/{action}", body)
                    done += 1
                except RefusedError as error:
                    if error.code != GONE:  # else it went with one before it, or somebody was faster
                        failed.append({"service": name, "id": each["id"], "refusal": str(error)})
                if number % TOLD_EVERY == 0 or number == len(found):
                    say(f"{name}: {number} of {len(found)}")
        return {action: done, "failed": failed}

    outcome = with_operator(run)
    if json:
        print_json(outcome)
    else:
        for each in outcome["failed"]:
            print(f"{each['service']:<9} {each['id']:<28} {each['refusal']}")
        print(f"{action}: {outcome[action]}, and {len(outcome['failed'])} that still fail")
    return ExitCode.NOT_SO if outcome["failed"] else ExitCode.DONE


def rebuild(*, service: str, projection: str, json: bool) -> int:
    """Rebuild a projection in a worker of its service."""

    async def run(api: Api, token: str) -> dict[str, Any]:
        url = f"{worker(api.stack, service)}/ops/projections/{projection}/rebuild"
        outcome: dict[str, Any] = (await api.ask(url, "POST", token=token, seconds=REBUILD_SECONDS)).body
        return outcome

    outcome = with_operator(run)
    if json:
        print_json(outcome)
    else:
        same = "differs from" if outcome["changed"] else "equals"
        print(f"{projection}: {outcome['rows']} rows from {outcome['records_read']} records; the new one {same} the old one")
    return ExitCode.DONE


def _said(**asked: str | None) -> dict[str, str]:
    """The filters that were given."""
    return {name: value for name, value in asked.items() if value}


def _body(action: str, reason: str) -> dict[str, str] | None:
    return {"reason": reason} if action == "discard" else None


def with_operator(run: Callable[[Api, str], Awaitable[Any]]) -> Any:
    """Do something with the platform operator's token on the running stack."""

    async def main() -> Any:
        async with deployment(progress()) as stack, connected(stack) as api:
            return await run(api, await operator(api).token())

    return asyncio.run(main())


def worker(stack: StackDescription, service: str) -> str:
    """A worker sees more than an API: the events that the broker refused, and projections to rebuild."""
    [name] = services(stack, service)
    of, _, cell = name.partition("@")
    return stack.cells[cell].ops[of][-1] if cell else stack.services[of].ops[-1]


async def of_workers(
    api: Api, token: str, service: str | None, method: str, path: str, *, member: str, body: object = None
) -> list[dict[str, Any]]:
    """What the worker of the one service that is meant, or of each, answers under this member, with the service's name."""
    found: list[dict[str, Any]] = []
    for name in services(api.stack, service):
        answer = (await api.ask(worker(api.stack, name) + path, method, token=token, body=body, seconds=ASK_SECONDS)).body
        found += [{"service": name, **each} for each in answer[member]]
    return found


def services(stack: StackDescription, service: str | None) -> Sequence[str]:
    """Name the one service that is meant, or all; in another cell than the main one it is called `cart@east`."""
    known = [*stack.services, *(f"{each}@{name}" for name, cell in stack.cells.items() for each in cell.ops)]
    if service is not None and service not in known:
        raise CommandError(f"{service!r} is none of {', '.join(known)}", ExitCode.USAGE)
    return [service] if service else known


def _set_aside(api: Api, service: str, token: str, filters: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    async def read(query: str) -> Any:
        url = f"{worker(api.stack, service)}/ops/parked-messages?{query}"
        return (await api.ask(url, "GET", token=token, seconds=ASK_SECONDS)).body

    return paged(read, filters)


async def _on_its_service(
    api: Api, token: str, service: str | None, parked_id: str, method: str, action: str, body: object = None
) -> dict[str, Any]:
    """Ask the service that has the message; an id alone does not say which that is."""
    missing: RefusedError | None = None
    for name in services(api.stack, service):
        try:
            return {"service": name, **await _asked(api, token, name, parked_id, method, action, body)}
        except RefusedError as error:
            if error.code != GONE:
                raise
            missing = error
    raise CommandError(f"nothing is parked under {parked_id}: see ./cartwright parked list", ExitCode.NOT_SO) from missing


async def _asked(api: Api, token: str, service: str, parked_id: str, method: str, action: str, body: object) -> dict[str, Any]:
    url = f"{worker(api.stack, service)}/ops/parked-messages/{parked_id}{action}"
    answer: dict[str, Any] = (await api.ask(url, method, token=token, body=body, seconds=ASK_SECONDS)).body
    return answer
