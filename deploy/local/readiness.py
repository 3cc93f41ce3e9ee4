"""The little HTTP the supervisor speaks on the loopback: readiness and control calls, without a client library."""

import asyncio
import json
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

OK: Final = HTTPStatus.OK
BAD_REQUEST: Final = HTTPStatus.BAD_REQUEST


async def status(url: str, *, method: str = "GET", body: object = None, seconds: float = 2) -> int | None:
    """Return the status a loopback URL answers with, or None when nobody answers in time."""
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(url, method, b"" if body is None else json.dumps(body).encode())
    except (OSError, ValueError, IndexError, TimeoutError):
        return None


async def _exchange(url: str, method: str, body: bytes) -> int:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(
            f"{method} {address.path or '/'} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
