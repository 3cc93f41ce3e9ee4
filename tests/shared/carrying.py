"""Bytes carried from one connection to another."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from deploy.local.ports import HOST


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, host: str = HOST) -> None:
    """Carry all that is said here to there, and back, until one of both has ended."""
    there, back = await asyncio.open_connection(host, port)
    await asyncio.gather(_carry(reader, back), _carry(there, writer))


@asynccontextmanager
async def listening(answer: object, context: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[int]:
    """Answer whoever comes to this port, or to a free one; yields which it is."""
    server = await asyncio.start_server(answer, HOST, port, ssl=context)  # type: ignore[arg-type]
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def forwarded(host: str, *ports: int) -> AsyncIterator[None]:
    """Have these ports of this machine lead to the same of another."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await joined(reader, writer, writer.get_extra_info("sockname")[1], host)
        except OSError:
            writer.close()

    async with AsyncExitStack() as opened:
        for port in ports:
            await opened.enter_async_context(listening(forward, port=port))
        yield
