"""What the gateway adds to a request: the same one, with its token, through the gateway and straight to its service.

Both are asked at a fixed rate of arrivals, which no slow answer holds back, in short turns one after the other: whatever
else the machine does meets both alike. The CPU is Envoy's own, of the turns it was asked in.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from deploy.cli.api import connected
from deploy.cli.bench.figures import machine, percentile
from deploy.cli.bench.report import print_figures
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.replay.cpu import cpu_seconds
from deploy.cli.tenants import Wish, onboarded
from deploy.local.stack import Stack
from deploy.local.state import default_home

REQUESTS_PER_SECOND: Final = 200
TURN_SECONDS: Final = 2
CONNECTIONS: Final = 32
_ENVOY: Final = "gateway"
_MICRO: Final = 1e6


class Line:
    """One connection, with next to nothing around it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def ask(self, request: bytes) -> None:
        """Send it and read the answer. Raises CommandError for anything but 200."""
        self.writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise CommandError(f"a request was refused: {body.decode()[:200]}")


class Lines:
    """Some connections to one address; whoever asks takes the one that rested longest, lest it be closed for that."""

    def __init__(self, url: str, path: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        self._free: asyncio.Queue[Line] = asyncio.Queue()
        self.took_ms: list[float] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold them for as long as the context lasts."""
        lines = [Line(*await asyncio.open_connection(self._host, self._port)) for _ in range(CONNECTIONS)]
        for line in lines:
            self._free.put_nowait(line)
        try:
            yield
        finally:
            for line in lines:
                line.writer.close()

    async def turn(self) -> None:
        """Ask at the rate, for a turn."""
        begun, count = time.perf_counter(), REQUESTS_PER_SECOND * TURN_SECONDS
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(begun + number / REQUESTS_PER_SECOND - time.perf_counter())
                group.create_task(self._ask())

    async def _ask(self) -> None:
        begun = time.perf_counter()
        line = await self._free.get()
        await line.ask(self._request)
        self.took_ms.append((time.perf_counter() - begun) * 1000)
        self._free.put_nowait(line)


async def bench_gateway(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Turns of both, on a fresh stack that is gone afterwards."""
    home = default_home() / "bench"
    shutil.rmtree(home, ignore_errors=True)
    async with Stack(home, say=say) as stack, connected(stack.description()) as api:
        gateway_url = stack.description().gateway_url
        if gateway_url is None:
            raise CommandError("there is no Envoy for this platform: nothing to measure", ExitCode.ENVIRONMENT)
        shop = (await onboarded(api, Wish.of("bench"))).shop(api)
        shopper = shop.shopper("guest:bench", guest=True)
        asked = f"/v1/carts/{await shopper.new_cart()}", await shopper.token()
        direct, through = Lines(stack.description().url("cart"), *asked), Lines(gateway_url, *asked)
        async with direct.open(), through.open():
            for lines in (direct, through):
                await lines.turn()
                lines.took_ms.clear()
            cpu = 0.0
            for _ in range(max(1, round(seconds / 2 / TURN_SECONDS))):
                await direct.turn()
                before = cpu_seconds(home)[_ENVOY]
                await through.turn()
                cpu += cpu_seconds(home)[_ENVOY] - before
    return _figures(direct.took_ms, through.took_ms, cpu)


def _figures(direct: list[float], through: list[float], cpu: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        alone, added = percentile(direct, share), percentile(through, share)
        found |= {f"direct_{name}_ms": round(alone, 3), f"through_{name}_ms": round(added, 3)}
        found[f"added_{name}_ms"] = round(added - alone, 3)
    found |= {"cpu_us_per_request": round(cpu / len(through) * _MICRO), "requests": len(through)}
    return found | {"requests_per_second": REQUESTS_PER_SECOND, "machine": machine()}


def run_gateway(seconds: float, *, json: bool) -> int:
    """Measure, and print the figures."""
    figures = uvloop.run(bench_gateway(seconds, progress()))
    if json:
        print_json(figures)
    else:
        print_figures(figures)
    return ExitCode.DONE
