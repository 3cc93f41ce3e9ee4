"""The servers of both process kinds, and the operator surface they share. No FastAPI here: workers use it too."""

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from ipaddress import ip_network
from types import FrameType
from typing import NamedTuple, cast

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from libs.common.http.connection import Connection, Crowd
from libs.common.http.problem import problem
from libs.common.http.reading import headers_of, instance_of, request_id_of
from libs.common.pulse import PULSE
from libs.common.settings import Settings, SettingsError
from libs.common.telemetry import METRICS_TYPE, metrics

LINGER_SECONDS = 0.5
"""How long a process that leaves still takes connections: who comes meanwhile is answered, not reset."""
TICK_SECONDS = 1.0
"""So often a server looks up when nobody calls it. uvicorn itself does ten times as often."""
CODES = {404: "not-found", 405: "method-not-allowed"}
OPERATORS = "/ops"
"""Under it lies what is for the platform's operators and nobody else."""

Check = Callable[[], Awaitable[str | None]]
"""Answers what is not ready yet, or None."""


def operator_routes(ready: Sequence[Check], decisions: Sequence[Check] = ()) -> list[Route]:
    """Liveness, start, readiness and metrics. No public port answers on these.

    What only an operator can decide keeps a process from being ready, not from having started: it is there to be asked.
    """

    async def livez(_: Request) -> Response:
        hangs = PULSE.hangs()
        return Response(f"hangs: {hangs}\n" if hangs else "ok\n", status_code=503 if hangs else 200, media_type="text/plain")

    async def answer(checks: Sequence[Check]) -> Response:
        missing = [what for check in checks if (what := await check()) is not None]
        body = orjson.dumps({"ready": not missing, "missing": missing})
        return Response(body, status_code=503 if missing else 200, media_type="application/json")

    async def startupz(_: Request) -> Response:
        return await answer(ready)

    async def readyz(_: Request) -> Response:
        return await answer([*ready, *decisions])

    async def prometheus(_: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    paths = {"/livez": livez, "/startupz": startupz, "/readyz": readyz, "/metrics": prometheus}
    return [Route(path, endpoint) for path, endpoint in paths.items()]


class OpenToTenantsError(Exception):
    """A route for operators does not turn everybody else away: its service does not start."""


def closed(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """These routes, each under `/ops` for the platform's operators alone. Raises OpenToTenantsError otherwise."""
    found = [*routes]
    for route in found:
        path = getattr(route, "path", "")
        if path.startswith(OPERATORS) and not getattr(route, "platform_only", False):
            message = f"{path} is not for the platform's operators alone: make it an OperatorRoute"
            raise OpenToTenantsError(message)
    return found


def operator_app(ready: Sequence[Check], *more: Route, decisions: Sequence[Check] = ()) -> Starlette:
    """A worker's only HTTP face."""
    app = Starlette(routes=closed([*operator_routes(ready, decisions), *more]), exception_handlers={HTTPException: no_route})
    app.router.redirect_slashes = False  # it would redirect to whatever Host says
    return app


async def no_route(request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such path, no such method."""
    status = getattr(error, "status_code", 500)
    detail = "there is nothing here for you" if status == HTTPStatus.NOT_FOUND else str(getattr(error, "detail", error))
    request_id = request_id_of(headers_of(request.scope))
    response = problem(status, CODES.get(status, "http"), detail, request_id=request_id, instance=instance_of(request.scope))
    for header, value in (getattr(error, "headers", None) or {}).items():
        response.headers[header] = value
    return response


def _crowd_of(settings: Settings) -> Crowd:
    try:
        proxies = [ip_network(each.strip()) for each in settings.trusted_proxies.split(",") if each.strip()]
    except ValueError as error:
        message = f"CARTWRIGHT_TRUSTED_PROXIES are networks, such as 10.0.0.0/8, with commas between: {error}"
        raise SettingsError(message) from error
    return Crowd(settings.http_connections, settings.http_connections_per_address, proxies)


def _nobody_waits() -> None:
    """Let go of nobody."""


def listen(host: str, port: int, variable: str) -> socket.socket:
    """A socket that listens there; `variable` is what to change if it cannot. On `::` it listens to both protocols."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port} ({error.strerror}): choose another {variable}") from error


async def serve(app: ASGIApp, settings: Settings, leaving: Callable[[], None] = _nobody_waits) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `leaving` is told when that begins."""
    listening = listen(settings.http_host, settings.http_port, "CARTWRIGHT_HTTP_PORT")
    _outlive_signals()
    await Server(_config(app, settings), leaving).serve(sockets=[listening])


class Door(NamedTuple):
    """Who answers, and where."""

    app: ASGIApp
    listening: socket.socket


async def serve_both(public: Door, operators: Door, settings: Settings, leaving: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `leaving` lets go of whoever waits in a request.

    Operators are answered to the end: `/readyz` says that the process leaves while it does. A crowd at one door is none at
    the other.
    """
    before, behind = Server(_config(public.app, settings), leaving), Behind(_config(operators.app, settings))
    _outlive_signals()
    beside = asyncio.create_task(behind.serve(sockets=[operators.listening]), name="operators")
    beside.add_done_callback(lambda _: before.leave())  # neither goes on without the other
    try:
        await before.serve(sockets=[public.listening])
    finally:
        behind.leave_after(before)
        await beside


def _config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, _crowd_of(settings))),
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, settings.drain_seconds - 1),
        timeout_keep_alive=75,
    )


def _outlive_signals() -> None:
    """When it has drained, uvicorn raises the signal again, which must not end the process: there is more to put away."""
    signal.signal(signal.SIGTERM, lambda *_: None)


class Server(uvicorn.Server):
    """A server that leaves politely: who waits is answered, who comes is told not to come again, nobody is cut off."""

    def __init__(self, config: uvicorn.Config, leaving: Callable[[], None] = _nobody_waits) -> None:
        super().__init__(config)
        self._leaving = leaving
        self._leaves = asyncio.Event()
        self.left_at: float | None = None

    def leave(self) -> None:
        """Leave as after a signal."""
        self.should_exit = True
        self._leaves.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at once. A signal's handler by itself does not wake a loop that waits."""
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._leaves.set)

    async def main_loop(self) -> None:
        """Look up now and then, until it is time to leave."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._leaves.wait()

    async def on_tick(self, counter: int) -> bool:
        """Look at everybody."""
        now = asyncio.get_running_loop().time()
        for connection in [*self.server_state.connections]:
            if isinstance(connection, Connection):
                connection.overdue(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer for a moment more, each time as the last on its connection; then stop listening, and drain."""
        self.left_at = asyncio.get_running_loop().time()
        self._leaving()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in self.server_state.connections:
            if isinstance(connection, Connection):
                connection.last_answer()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)


class Behind(Server):
    """The server behind another one, which alone hears signals, and after which this one leaves."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the other."""
        yield

    def leave_after(self, other: Server) -> None:
        """Leave now, in what is left of the time to drain."""
        if other.left_at is not None:
            spent = asyncio.get_running_loop().time() - other.left_at
            self.config.timeout_graceful_shutdown = max(1, int((self.config.timeout_graceful_shutdown or 0) - spent))
        self.leave()


def calm_collector(young: int = 200_000) -> None:
    """Look for garbage after so many new objects (a worker's few batches leave by themselves), never in what was loaded to start.

    Walking the frameworks' hundred thousand objects takes 60 ms, during which nobody is answered.
    """
    gc.freeze()
    gc.set_threshold(young, 20, 50)
