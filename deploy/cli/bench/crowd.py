"""What one more tenant costs when there are few, and when there are many: onboarding, a grant, a token, a start, and idling.

The whole stack takes the tenants through its public APIs. Of a machine that others use too, CPU tells more than time, so what
is compared is the CPU of all processes of the stack; of a start, which nobody can do twice at once, the best of some.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import uvloop

from deploy.cli.api import Api, TokenSource, connected
from deploy.cli.bench.figures import machine
from deploy.cli.bench.report import print_figures
from deploy.cli.errors import ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.replay.cpu import OWN, cpu_seconds
from deploy.cli.tenants import operator
from deploy.local.stack import Stack
from deploy.local.state import default_home

FEW: Final = 10
WARM_UP: Final = 20
SAMPLE: Final = 200
"""So many tenants a figure is taken of."""
AT_ONCE: Final = 16
EACH: Final = 10
"""Grants a tenant of those: time is counted in hundredths of a second."""
STARTS: Final = 3
STARTED: Final = ("cart.api", "identity.api", "identity.worker")
SETTLES_SECONDS: Final = 90
"""By then what new tenants bring with them has been done: each is reconciled once, say. It is part of their onboarding."""
IDLE_SECONDS: Final = 60
_UNLIMITED: Final = "1000000/1000000"
_MILLI: Final = 1_000.0


@dataclass(frozen=True, slots=True)
class Member:
    """A tenant's client, as it asks for a token."""

    client_id: str
    secret: str


class Crowd:
    """The tenants of one stack, one after the other."""

    def __init__(self, stack: Stack, api: Api) -> None:
        self._stack = stack
        self._api = api
        self._operator: TokenSource = operator(api)
        self.members: list[Member] = []

    async def grow(self, count: int) -> None:
        """So many more tenants, each active everywhere and with a client."""
        first = len(self.members)
        await self._all([self._onboard(number) for number in range(first, first + count)])

    async def cpu_ms(self, work: Awaitable[Any], count: int, *processes: str) -> float:
        """What it costs these processes each, or the whole stack."""
        before = self._cpu(processes)
        await work
        return (self._cpu(processes) - before) / count * _MILLI

    def _cpu(self, processes: Sequence[str]) -> float:
        used = cpu_seconds(self._stack.home.path)
        return sum(spent for name, spent in used.items() if name in processes or (not processes and name != OWN))

    async def grants(self, members: Sequence[Member]) -> list[str]:
        """A token of each."""
        return [granted["access_token"] for granted in await self._all([self._grant(member) for member in members])]

    async def believed(self, tokens: Sequence[str]) -> None:
        """Ask another service for something with each of them."""
        await self._all([self._api.call("cart", "GET", "/v1/products?limit=1", token=token) for token in tokens])

    async def starts(self) -> dict[str, float]:
        """Seconds until each of some processes is ready again, at best."""
        best: dict[str, float] = {}
        for name in STARTED:
            for _ in range(STARTS):
                await self._stack.stop_process(name)
                begun = time.perf_counter()
                await self._stack.start_process(name)
                best[name] = min(best.get(name, float("inf")), time.perf_counter() - begun)
        return best

    async def _onboard(self, number: int) -> None:
        slug, token = f"crowd-{number}", await self._operator.token()
        body = {"slug": slug, "name": slug, "currency": "GBP", "country": "GB", "admin_email": "a@crowd.test"}
        made = await self._api.call("identity", "POST", "/v1/tenants", token=token, body=body, key=slug, prefer="wait=30")
        wanted = {"name": slug, "scopes": ["products:read"], "tenant_id": made.body["tenant_id"]}
        client = (await self._api.call("identity", "POST", "/v1/clients", token=token, body=wanted, key=slug)).body
        self.members.append(Member(client["client_id"], client["client_secret"]))

    async def _grant(self, member: Member) -> dict[str, Any]:
        return await self._api.grant(member.client_id, member.secret)

    async def _all(self, work: Sequence[Awaitable[Any]]) -> list[Any]:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(each: Awaitable[Any]) -> Any:
            async with free:
                return await each

        return await asyncio.gather(*map(one, work))


@asynccontextmanager
async def open_crowd(say: Callable[[str], None]) -> AsyncIterator[Crowd]:
    """A fresh stack, gone afterwards; nobody is limited."""
    home = default_home() / "bench"
    shutil.rmtree(home, ignore_errors=True)
    os.environ.setdefault("CARTWRIGHT_RATE_PER_ADDRESS", _UNLIMITED)
    async with (
        Stack.from_environment(home, say=say) as stack,
        connected(stack.description(), connections=AT_ONCE) as api,
    ):
        yield Crowd(stack, api)


async def measured(crowd: Crowd, say: Callable[[str], None]) -> dict[str, float]:
    """What each costs with as many tenants as there are now."""
    there, begun = len(crowd.members), time.monotonic()

    async def onboard() -> None:
        await crowd.grow(SAMPLE)
        await asyncio.sleep(SETTLES_SECONDS)

    settled = await crowd.cpu_ms(onboard(), SAMPLE)
    settling_seconds = time.monotonic() - begun
    spread = crowd.members[:: max(1, len(crowd.members) // SAMPLE)][:SAMPLE] * EACH
    tokens: list[str] = []

    async def grants() -> None:
        tokens.extend(await crowd.grants(spread))

    grant = await crowd.cpu_ms(grants(), len(spread), "identity.api", "postgres")
    belief = await crowd.cpu_ms(crowd.believed(tokens), len(tokens), "cart.api")
    starts = await crowd.starts()
    await asyncio.sleep(SETTLES_SECONDS)
    idle = await crowd.cpu_ms(asyncio.sleep(IDLE_SECONDS), IDLE_SECONDS)
    onboarding = settled - idle * settling_seconds / SAMPLE
    say(f"{there} tenants: onboarding {onboarding:.1f} ms of CPU, a grant {grant:.2f}, a token believed {belief:.2f}")
    say(f"{there} tenants: {idle:.1f} ms of CPU a second while nobody asks for anything")
    costs = {"onboarding_cpu_ms": onboarding, "grant_cpu_ms": grant, "verification_cpu_ms": belief, "idle_cpu_ms": idle}
    return costs | {f"start_{name.replace('.', '_')}_seconds": seconds for name, seconds in starts.items()}


async def bench_tenants(count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """With few tenants, and with so many."""
    async with open_crowd(say) as crowd:
        await crowd.grow(FEW)
        for _ in range(WARM_UP):  # the first of everything is slow
            await crowd.believed(await crowd.grants(crowd.members))
        few = await measured(crowd, say)
        while (left := count - len(crowd.members)) > 0:
            await crowd.grow(min(left, 1_000))
            say(f"{len(crowd.members)} tenants")
        await asyncio.sleep(SETTLES_SECONDS)
        many = await measured(crowd, say)
    ratios = {f"ratio_{name}": round(many[name] / few[name], 3) for name in few}
    rounded = ({name: round(value, 3) for name, value in figures.items()} for figures in (few, many))
    first, last = rounded
    return {"count": count, **ratios, "few": first, "many": last, "machine": machine()}


def run_tenants(count: int, *, json: bool) -> int:
    """Measure, and print the figures."""
    figures = uvloop.run(bench_tenants(count, progress()))
    if json:
        print_json(figures)
    else:
        print_figures(figures)
    return ExitCode.DONE
