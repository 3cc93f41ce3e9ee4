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
VARIABLES = frozenset({"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"})
"""What says which way to go. A machine may need them itself, to install packages for example."""


@dataclass
class Way:
    """A fake Stripe behind TLS, and a proxy on the way to it."""

    fake: str
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
async def way_to_a_fake(folder: Path) -> AsyncIterator[Way]:
    """A fake that knows itself by that name too, and the way to it."""
    fake = started(folder / "journal", "--allow-host", NAME)
    authority = Authority(folder, "company")
    own = authority.certify("stripe", NAME, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    plain = urlsplit(fake.url).port or 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await joined(reader, writer, plain)

    try:
        async with listening(serve, context) as port:
            way = Way(fake.url, authority, port)
            async with listening(way.tunnel) as proxy:
                way.proxy = f"http://till:hush@127.0.0.1:{proxy}"
                yield way
    finally:
        fake.kill()
