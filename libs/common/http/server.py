"""The servers of both process kinds, and the operator surface they share. No FastAPI here: workers use it too."""

import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from libs.common.settings import Settings, SettingsError
from libs.common.telemetry import METRICS_TYPE, metrics

OPERATORS = "/ops"
"""Under it lies what is for the platform's operators and nobody else."""

Check = Callable[[], Awaitable[str | None]]
"""Answers what is not ready yet, or None."""


def operator_routes(ready: Sequence[Check], decisions: Sequence[Check] = ()) -> list[Route]:
    """Liveness, start, readiness and metrics. The gateway routes none of these to customers.

    What only an operator can decide keeps a process from being ready, not from having started: it is there to be asked.
    """

    async def livez(_: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

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
    return Starlette(routes=closed([*operator_routes(ready, decisions), *more]))


async def serve(app: ASGIApp, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        http="httptools",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_keep_alive=75,
    )
    try:
        listening = socket.create_server((settings.http_host, settings.http_port), backlog=2048)
    except OSError as error:
        where = f"{settings.http_host}:{settings.http_port}"
        raise SettingsError(f"cannot listen on {where} ({error.strerror}): choose another CARTWRIGHT_HTTP_PORT") from error
    # When it has drained, uvicorn raises the signal again, which must not end the process: there is more to put away.
    signal.signal(signal.SIGTERM, lambda *_: None)
    await uvicorn.Server(config).serve(sockets=[listening])


def calm_collector(young: int = 200_000) -> None:
    """Look for garbage after so many new objects (a worker's few batches leave by themselves), never in what was loaded to start.

    Walking the frameworks' hundred thousand objects takes 60 ms, during which nobody is answered.
    """
    gc.freeze()
    gc.set_threshold(young, 20, 50)
