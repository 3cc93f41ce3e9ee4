"""A gateway before a service that says what it was asked: Envoy as it is shipped, and nothing of ours behind it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from deploy.gateway import files
from deploy.gateway.declared import Declared, committed
from deploy.gateway.plan import Plan, Upstream
from deploy.local.environment import child_environment
from deploy.local.gateway import SOURCE, program
from deploy.local.ports import HOST, spare_port
from deploy.local.processes import Child, dying_with_parent
from services import SERVICES


@dataclass
class Echo:
    """A service that answers what it heard; it can be told to let go of connections, and to say that it is not ready."""

    name: str
    port: int = field(default_factory=spare_port)
    heard: list[dict[str, Any]] = field(default_factory=list)
    lets_go: int = 0
    heard_of: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """How many events its reader has heard of: it tells the next then."""
    is_ready: bool = True
    keys: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/readyz":
            return web.Response(status=200 if self.is_ready else 503)
        if request.path == "/.well-known/jwks.json":
            return web.json_response({"keys": self.keys})
        body = await request.read()
        told = {
            "name": self.name,
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): request.headers.getall(name) for name in request.headers},
            "from": request.remote,
            "body": body.decode(errors="replace"),
        }
        self.heard.append(told)
        if self.lets_go:
            self.lets_go -= 1
            assert request.transport
            request.transport.abort()
        if request.path.endswith("/events"):
            return await self._drops(request)
        return web.json_response(told)

    async def _drops(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(f"id: {number}\n\n".encode())
            await self.heard_of.acquire()
        return response


@asynccontextmanager
async def echoing(name: str = "echo") -> AsyncIterator[Echo]:
    echo = Echo(name)
    runner = web.ServerRunner(web.Server(echo.answer))  # type: ignore[arg-type] # its Request is aiohttp's BaseRequest
    await runner.setup()
    await web.TCPSite(runner, HOST, echo.port).start()
    try:
        yield echo
    finally:
        await runner.cleanup()


@dataclass
class FrontDoor:
    """One Envoy, and what it was made of."""

    plan: Plan
    routes: Sequence[Declared]
    pages: dict[str, Path]
    child: Child

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.plan.port}"

    def configure(self, **changes: Any) -> None:
        """Have it be different, while it runs."""
        self.plan = replace(self.plan, **changes)
        files.write(files.configuration(self.plan, self.routes, self.pages), self.plan.folder)


def plan_for(folder: Path, *echoes: Echo, **changes: Any) -> Plan:
    source = SOURCE if SOURCE != HOST else ""
    return replace(Plan(places(*echoes), folder, HOST, spare_port(), spare_port(), source=source), **changes)


def places(*echoes: Echo) -> dict[str, list[Upstream]]:
    upstreams = [Upstream(HOST, echo.port, echo.port) for echo in echoes]
    return {service: upstreams for service in SERVICES}  # noqa: C420 - nobody changes the one list


@asynccontextmanager
async def standing(plan: Plan, pages: dict[str, Path] | None = None) -> AsyncIterator[FrontDoor]:
    envoy = program()
    assert envoy
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    command = [*dying_with_parent("KILL"), str(envoy), "-c", str(plan.folder / files.BOOTSTRAP), *options]
    child = Child("gateway", command, environment=child_environment(), log=plan.folder / "envoy.log")
    door = FrontDoor(plan, committed(), pages or {}, child)
    door.configure()
    await child.start()
    try:
        await child.until_ready(f"http://{HOST}:{plan.ops_port}/ready")
        async with asyncio.timeout(60):
            while not await _listens(plan.port):
                await asyncio.sleep(0.05)
        yield door
    finally:
        await child.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def said(port: int, *pieces: bytes, pause_seconds: float = 0.0) -> tuple[int, bytes]:
    """What is answered to these very bytes: the status (0 when nothing was said) and all of it."""
    reader, writer = await asyncio.open_connection(HOST, port)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_seconds)
        async with asyncio.timeout(20):
            while b"\r\n\r\n" not in answer and (more := await reader.read(65_536)):
                answer += more
            while not _is_whole(answer) and (more := await reader.read(65_536)):
                answer += more
    except ConnectionError:
        pass
    finally:
        writer.close()
    return (int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0), answer


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2] or b"null")
