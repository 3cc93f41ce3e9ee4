"""The way to the provider as companies have it: through a proxy that asks who comes, and past an authority of their own."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.shared.certificates import Authority

NAME = "api.stripe.test"
"""That nobody but the proxy can find: whoever goes past it gets nowhere."""


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    there, back = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_carry(reader, back), _carry(there, writer))


@dataclass
class Way:
    """A fake Stripe behind TLS, and a proxy on the way to it."""

    authority: Authority
    stripe_port: int
    asked: list[str] = field(default_factory=list)
    proxy: str = ""
    is_open: bool = True

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.splitlines()[0])
        if not self.is_open or "Proxy-Authorization: Basic dGlsbDpodXNo" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, self.stripe_port)


@asynccontextmanager
async def _listening(answer: object, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def way_to(fake: str, folder: Path) -> AsyncIterator[Way]:
    """The way to the fake at this address."""
    authority = Authority(folder, "company")
    own = authority.certify("stripe", NAME, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    plain = urlsplit(fake).port or 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, plain)

    async with _listening(serve, context) as port:
        way = Way(authority, port)
        async with _listening(way.tunnel) as proxy:
            way.proxy = f"http://till:hush@127.0.0.1:{proxy}"
            yield way
