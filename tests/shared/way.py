"""The way to the provider as companies have it: through a proxy that asks who comes, and past an authority of their own."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.shared.carrying import joined, listening
from tests.shared.certificates import Authority
from tests.shared.fakes import started

NAME = "api.stripe.test"
"""That nobody but the proxy can find: whoever goes past it gets nowhere."""


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
        await joined(reader, writer, self.stripe_port)


@asynccontextmanager
async def way_to(fake: str, folder: Path) -> AsyncIterator[Way]:
    """The way to the fake at this address."""
    authority = Authority(folder, "company")
    own = authority.certify("stripe", NAME, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    plain = urlsplit(fake).port or 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await joined(reader, writer, plain)

    async with listening(serve, context) as port:
        way = Way(authority, port)
        async with listening(way.tunnel) as proxy:
            way.proxy = f"http://till:hush@127.0.0.1:{proxy}"
            yield way


@asynccontextmanager
async def started_behind(folder: Path) -> AsyncIterator[Way]:
    """A fake that is known by that name too, and the way to it."""
    process = started(folder / "journal", "--allow-host", NAME)
    try:
        async with way_to(process.url, folder) as way:
            yield way
    finally:
        process.kill()
