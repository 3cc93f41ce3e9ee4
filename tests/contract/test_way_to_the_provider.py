"""The way to the provider as companies have it: through a proxy that asks who comes, and past an authority of their own."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from services.payments.domain.provider.outcome import Succeeded
from services.payments.gateway.stripe import StripeGateway
from tests.shared.certificates import Authority
from tests.shared.fakes import VISA, Account, account_at, started

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


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    """A fake that knows itself by that name too."""
    process = started(tmp_path / "journal", "--allow-host", NAME)
    try:
        async with account_at(process.url) as opened:
            yield opened
    finally:
        process.kill()


@pytest.fixture
async def way(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Way]:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_DIR", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    authority = Authority(tmp_path, "company")
    own = authority.certify("stripe", NAME, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    plain = urlsplit(account.url).port or 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, plain)

    async with _listening(serve, context) as port:
        way = Way(authority, port)
        async with _listening(way.tunnel) as proxy:
            way.proxy = f"http://till:hush@127.0.0.1:{proxy}"
            yield way


async def _created(account: Account, base: str) -> object:
    gateway = StripeGateway(account.api_key, base, timeout_seconds=20)
    try:
        return await gateway.create_intent(
            f"create-{uuid4()}", amount_minor=1250, currency="GBP", method=VISA, capture="manual", metadata={}
        )
    finally:
        await gateway.close()


async def test_through_a_proxy_to_a_provider_that_a_companys_authority_certifies(
    way: Way, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"https://{NAME}"
    monkeypatch.setenv("HTTPS_PROXY", way.proxy)
    assert not isinstance(await _created(account, base), Succeeded), "nobody said that this authority is to be trusted"
    monkeypatch.setenv("SSL_CERT_FILE", str(way.authority.file))
    assert isinstance(await _created(account, base), Succeeded)
    assert way.asked
    assert {*way.asked} == {f"CONNECT {NAME}:443 HTTP/1.1"}
    way.is_open = False
    assert not isinstance(await _created(account, base), Succeeded)


async def test_what_needs_no_proxy_goes_past_it(way: Way, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", way.proxy)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(way.authority.file))
    assert isinstance(await _created(account, f"https://localhost:{way.stripe_port}"), Succeeded)
    assert isinstance(await _created(account, account.url), Succeeded), "nor does what is not encrypted"
    assert way.asked == []
