"""One address before the services and the pages, with nothing of a gateway's own, for pages to be tried against."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from deploy.local.state import ROOT
from tests.shared.market import Market

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
PAGES: Final = {"/console/": "console", "/docs/": "reference", "/": "shop"}
_OF_ONE_HOP: Final = frozenset({"host", "connection", "transfer-encoding", "content-length", "content-encoding"})
_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Front:
    """Where the pages are."""

    url: str


@asynccontextmanager
async def front_of(market: Market) -> AsyncIterator[Front]:
    """Serve the pages, and pass on what is not one to the service that has the path."""
    owners = await _owners(market)
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def serve(request: web.Request) -> web.StreamResponse:
            service = owners.get("/".join(request.path.split("/")[:3])) or owners.get("/".join(request.path.split("/")[:2]))
            if service is None:
                return _page(request.path)
            return await _passed_on(session, market.stack.description().url(service), request)

        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield Front(f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()


async def _owners(market: Market) -> dict[str, str]:
    """Which service has which beginning of a path."""
    owners = {"/oauth": "identity", "/.well-known": "identity"}
    for service in market.stack.description().services:
        paths = (await market.api.call(service, "GET", "/openapi.json")).body["paths"]
        owners |= {"/".join(path.split("/")[:3]): service for path in paths if path.startswith("/v1/")}
    return owners


def _page(path: str) -> web.Response:
    beginning = next(each for each in PAGES if path.startswith(each))
    folder: Path = ROOT / "deploy" / PAGES[beginning] / "pages"
    file = folder / (path.removeprefix(beginning) or "index.html")
    if not file.resolve().is_relative_to(folder) or not file.is_file():
        return web.Response(status=404, text="There is no such page.")
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return web.Response(
        body=file.read_bytes(), content_type=_TYPES.get(file.suffix, "image/png"), charset="utf-8", headers=headers
    )


async def _passed_on(session: aiohttp.ClientSession, base: str, request: web.Request) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_HOP}
    async with session.request(
        request.method,
        base + request.raw_path,
        headers=headers,
        data=await request.read(),
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _OF_ONE_HOP]
        passed = web.StreamResponse(status=answer.status, headers=kept)
        await passed.prepare(request)
        async for chunk in answer.content.iter_any():
            await passed.write(chunk)
        await passed.write_eof()
        return passed
