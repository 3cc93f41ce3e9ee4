"""A process that serves as ours do, and answers with what it was asked. Alone, it is given its settings by the environment."""

import sys

import orjson
import uvloop
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from libs.common.http.server import serve
from libs.common.settings import Settings

LARGE_BYTES = 64_000_000


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """`/large` is answered with a lot, `/hasty` before its body is read, and everything else with what was understood."""
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    if scope["path"] == "/large":
        response = Response(b" " * LARGE_BYTES)
    else:
        size = 0 if scope["path"] == "/hasty" else len(await request.body())
        seen = {"path": scope["path"], "size": size, "client": scope["client"][0], "headers": len(scope["headers"])}
        response = Response(orjson.dumps(seen), media_type="application/json")
    await response(scope, receive, send)


if __name__ == "__main__":
    sys.exit(uvloop.run(serve(mirror, Settings.read())))
