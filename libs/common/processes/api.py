"""The life of an API process: database, hints, keys, revocations, routes; no Kafka consumer with an effect, no FastStream."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from libs.common.auth import Verifier
from libs.common.cells import MAIN
from libs.common.choices import Choices
from libs.common.database import Database
from libs.common.http.elsewhere import Cell, Elsewhere
from libs.common.http.openapi import document
from libs.common.http.operator import repair_routes
from libs.common.http.origins import preflight
from libs.common.http.rates import Rates
from libs.common.http.reading import SLASH, headers_of, path_of
from libs.common.http.routes import GuardedRoute, Routes, Service
from libs.common.http.server import OPERATORS, Door, calm_collector, closed, listen, no_route, operator_routes, serve_both
from libs.common.keys import Keys
from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Reader
from libs.common.messaging.hints import Hints
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from libs.common.placements import Placements
from libs.common.processes.following import Tenants, follow
from libs.common.processes.parts import Process, ServiceParts
from libs.common.processes.running import (
    DatabaseReady,
    begin,
    ended,
    leave_in_time,
    revocations_known,
)
from libs.common.revocations import Revocations
from libs.common.settings import Settings, SettingsError
from libs.common.shared import Shared
from libs.common.standings import Standings

POOL_SIZE = 12
YOUNG = 20_000
"""New objects before garbage is looked for. A request leaves next to none, so it is seldom."""


def run_api(parts: ServiceParts) -> None:
    """Serve a service's API until it is told to stop."""
    settings = parts.settings.read()
    if settings.ops_port is None:
        message = "set CARTWRIGHT_OPS_PORT: an API process answers operators there, and on its public port nobody but customers"
        raise SettingsError(message)
    begin(parts.name, "api", settings)
    uvloop.run(_run(parts, settings, settings.ops_port))


async def _run(parts: ServiceParts, settings: Settings, ops_port: int) -> None:
    """Open one thing after the other; whatever happens, what was opened is closed again, the last first."""
    async with AsyncExitStack() as stack:
        public = stack.enter_context(listen(settings.http_host, settings.http_port, "CARTWRIGHT_HTTP_PORT"))
        operators = stack.enter_context(listen(settings.ops_host, ops_port, "CARTWRIGHT_OPS_PORT"))
        url = settings.database_url.get_secret_value()
        shell = await _opened(parts, settings, url, settings.listening_url, stack)
        keys, revocations = Keys(settings.jwks_url, settings.roots), Revocations()
        verifier = Verifier(keys, revocations, issuer=settings.issuer, audience=parts.name)
        reader = Reader(parts.handlers.events(), topic_prefix=settings.topic_prefix)
        parked = ParkedMessages(shell, reader, settings.topic_prefix + parts.name)
        tenants = Tenants(Standings(follows=True), choices := Choices(), Placements(follows=True))
        service = Service(parts.name, shell, shell.hints, verifier, parked=parked, standings=tenants.standings, choices=choices)
        service.rates = Rates(settings, choices=choices)
        if parts.is_in_cells:
            service.elsewhere = await _elsewhere(parts, settings, reader, tenants.placements, stack)
        process = Process("api", shell, settings, keys, revocations, service.shell_of)
        service.shared = Shared(await stack.enter_async_context(parts.context(process)))
        app = api_app(parts.name, parts.routes)
        app.state.keys, app.state.service = keys, service
        app.state.database_ready = ready = DatabaseReady(url, f"{parts.name}-api")
        stack.callback(ready.close)
        app.operators.router.routes.extend(closed(repair_routes(parked, verifier)))
        following = asyncio.create_task(follow(keys, revocations, Broker(settings), tenants), name="following")
        stack.push_async_callback(ended, [following])
        calm_collector(YOUNG)

        def leaving() -> None:
            for each in (shell, *(cell.shell for cell in service.elsewhere.cells.values())):
                each.hints.leave()
            leave_in_time(settings)

        await serve_both(Door(app, public), Door(app.operators, operators), settings, leaving)


async def _opened(
    parts: ServiceParts,
    settings: Settings,
    url: str,
    listening_url: str,
    stack: AsyncExitStack,
    *,
    cell: str = MAIN,
    least: int = 1,
) -> Shell:
    """The service's shell on one database, which is closed with the rest. With none at `least` that may be away by now."""
    database = await Database.connect(
        url,
        application=f"{parts.name}-api",
        size=settings.database_connections or POOL_SIZE,
        least=least,
        most_waiting=settings.database_waiting,
    )
    stack.push_async_callback(database.close)
    hints = Hints(listening_url)
    await hints.start()
    stack.push_async_callback(hints.close)
    return parts.shell(database, hints, "api", cell=cell)


async def _elsewhere(
    parts: ServiceParts, settings: Settings, reader: Reader, placements: Placements, stack: AsyncExitStack
) -> Elsewhere:
    """What it has of other cells. One whose database is away is its tenants' trouble, and nobody else's."""
    cells = {}
    for name, url in settings.other_cells.items():
        shell = await _opened(parts, settings, url, url, stack, cell=name, least=0)
        cells[name] = Cell(shell, ParkedMessages(shell, reader, settings.topic_prefix + parts.name))
    return Elsewhere(placements, cells)


class Api(FastAPI):
    """A service's routes, found at once; whatever is none of them goes FastAPI's way, and is refused there.

    Our routes answer for every error themselves, so no middleware stands around them, FastAPI's five or another: with its
    matching they cost two thirds of what a route of ours does.
    """

    def __init__(self, name: str, routes: Sequence[BaseRoute]) -> None:
        super().__init__(title=f"Cartwright {name}", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
        self.add_exception_handler(HTTPException, no_route)
        self.router.routes.extend(routes)  # including a router would match every path twice
        self._direct: dict[tuple[str, int], list[GuardedRoute]] = {}
        """By method and number of segments: nearly always one is left, and its expression alone decides."""
        self._open: dict[str, list[GuardedRoute]] = {}
        """Those whose last part may have any number of segments, by method."""
        for route in routes:
            if isinstance(route, GuardedRoute):
                for method in route.methods or ():
                    if ":" in route.path:
                        self._open.setdefault(method, []).append(route)
                    else:
                        self._direct.setdefault((method, route.path.count("/")), []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A slash that is percent-encoded is part of its segment, here and wherever else it may lead."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path = path_of(scope)
        method = scope["method"]
        if method == "OPTIONS" and (asked := preflight(self.state.service.choices, headers_of(scope))) is not None:
            await asked(scope, receive, send)
            return
        for route in (*self._direct.get((method, path.count("/")), ()), *self._open.get(method, ())):
            found = route.path_regex.match(path)
            if found is not None:
                values = {name: value.replace(SLASH, "/") for name, value in found.groupdict().items()}
                scope.update(app=self, route=route, path_params=values)
                await route.serve(scope, receive, send)
                return
        await super().__call__({**scope, "path": path}, receive, send)


class PublicApi(Api):
    """What customers reach, and apart from it what operators do, at a door of their own; both know the same."""

    def __init__(self, name: str, routes: Routes) -> None:
        apart = [route for route in routes.routes if getattr(route, "path", "").startswith(OPERATORS)]
        super().__init__(name, [route for route in routes.routes if route not in apart])
        self.operators = Api(name, apart)
        self.operators.state = self.state
        self.operators.openapi = self.openapi  # type: ignore[method-assign]
        self._service, self._routes = name, routes.routes

    def openapi(self) -> dict[str, Any]:
        """The document of both."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self._service, self.version, self._routes)
        return self.openapi_schema


def api_app(name: str, routes: Routes) -> PublicApi:
    """The ASGI applications of a service; without any state, good for reading their OpenAPI."""
    app = PublicApi(name, routes)

    async def service_ready() -> str | None:
        missing: str | None = await app.state.database_ready()
        return missing

    async def stays() -> str | None:
        return "the process leaves" if app.state.service.hints.leaves else None

    async def keys_ready() -> str | None:
        if not app.state.keys:
            await app.state.keys.fetch()
        return None if app.state.keys or name == "identity" else "no signing key is known yet"

    async def revocations_ready() -> str | None:
        return revocations_known(app.state.service.verifier.revocations)

    app.operators.router.routes.extend(operator_routes([stays, service_ready, keys_ready, revocations_ready]))
    return app
