"""Faults of the connection itself, which ASGI has no word for: cut it, or leave the caller waiting."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import NoReturn, cast

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "fake_stripe.transport"


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, handing each request its transport so that a fault can cut it."""

    def on_message_begin(self) -> None:
        """Start a request."""
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: cast("dict[object, object]", self.transport)}


class ConnectionCutError(Exception):
    """The caller is gone; there is nobody left to answer."""


async def abort(request: Request) -> NoReturn:
    """Cut the connection with a reset, and end the request."""
    transport: asyncio.Transport = request.scope["extensions"][_EXTENSION]
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # Linger on with zero seconds: the peer sees a reset instead of an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await hang_up_awaited(request, None)
    raise ConnectionCutError


async def hang_up_awaited(request: Request, limit_seconds: float | None) -> None:
    """Wait until the caller hangs up, or for `limit_seconds`."""
    try:
        async with asyncio.timeout(limit_seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return
