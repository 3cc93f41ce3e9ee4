"""Strangers at a socket, with anything but a good request: a real process, asked byte by byte. No server else is needed."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from deploy.local.environment import child_environment
from deploy.local.ports import HOST, spare_port
from deploy.local.state import ROOT
from libs.common.http.connection import BODY_BYTES, HEAD_BYTES, HEADERS, PIPELINED, TARGET_BYTES
from tests.shared.roots import PUBLIC_ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_SECONDS = 60
"""Far more than anybody should need."""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
PROXY = "127.0.0.2"
FEW = 40


@dataclass(frozen=True)
class Line:
    """One connection, as whoever holds its other end sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split(" ")[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def is_over(self) -> bool:
        """Waits until it is; False when there is something to read instead."""
        with suppress(ConnectionError):
            return await self.reader.read(1) == b""
        return True

    async def is_cut_off_sending(self, begin: bytes = b"") -> None:
        """Sends on until it cannot."""
        self.writer.write(begin)
        with suppress(ConnectionError):
            while True:
                self.writer.write(b"x" * 100_000)
                await self.writer.drain()


@dataclass(frozen=True)
class Mirror:
    """A process that answers with what it understood."""

    port: int

    @asynccontextmanager
    async def line(self, address: str = HOST) -> AsyncIterator[Line]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, self.port, local_addr=(address, 0))
            try:
                yield Line(reader, writer)
            finally:
                writer.transport.abort()

    async def told(self, *pieces: bytes) -> tuple[int, str]:
        """The status and the code with which this is refused; it must be the last answer on its connection."""
        async with self.line() as line:
            with suppress(ConnectionError):
                for piece in pieces:
                    line.writer.write(piece)
                    await line.writer.drain()
            status, headers, body = await line.answer()
            assert headers["connection"] == "close"
            assert headers["content-type"] == "application/problem+json"
            assert await line.is_over()
            return status, json.loads(body)["code"]

    async def understood(self, request: bytes, address: str = HOST) -> dict[str, Any]:
        async with self.line(address) as line:
            line.writer.write(request)
            status, _, body = await line.answer()
            assert status == 200
            seen: dict[str, Any] = json.loads(body)
            return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mirror() -> AsyncIterator[Mirror]:
    port = spare_port()
    settings = {
        "DATABASE_URL": "-",
        "KAFKA_BOOTSTRAP_SERVERS": "-",
        "ISSUER": "-",
        "JWKS_URL": "-",
        "ISSUER_ROOT_PUBLIC_KEY": PUBLIC_ROOT,
        "HTTP_PORT": str(port),
        "HTTP_CONNECTIONS_PER_ADDRESS": str(FEW),
        "TRUSTED_PROXIES": f"{PROXY}/32",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "tests.shared.mirror", cwd=ROOT, env={**child_environment(settings), "PYTHONPATH": str(ROOT)}
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                break
            await asyncio.sleep(0.05)
    yield Mirror(port)
    process.kill()
    await process.wait()


async def test_good_requests_are_understood_however_they_are_cut(mirror: Mirror) -> None:
    assert (await mirror.understood(b"GET /old HTTP/1.0\r\n\r\n"))["path"] == "/old"
    assert (await mirror.understood(POST + b"Content-Length: 3\r\n\r\nabc"))["size"] == 3
    assert (
        await mirror.understood(POST + b"Host-Of: b\r\n" + CHUNKED + b"\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nHost: evil\r\n\r\n")
    )["size"] == 3
    assert (await mirror.understood(GET.replace(b"a\r", b"[::1]:8080\r") + b"\r\n"))["headers"] == 1
    assert (await mirror.understood(GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"))["path"] == "/"
    async with mirror.line() as line:
        for byte in GET + b"\r\n":
            line.writer.write(bytes([byte]))
            await line.writer.drain()
        assert (await line.answer())[0] == 200


@pytest.mark.parametrize(
    ("status", "code", "request_"),
    [
        (400, "bad-host", b"GET / HTTP/1.1\r\n\r\n"),
        (400, "bad-host", GET + b"Host: a\r\n\r\n"),
        (400, "bad-host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "bad-host", b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n"),
        (400, "bad-host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (400, "bad-host", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
        (400, "bad-request", POST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
        (400, "bad-request", POST + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n"),
        (400, "bad-request", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        (400, "bad-request", POST + b"Content-Length: +3\r\n\r\nabc"),
        (400, "bad-request", b"POST / HTTP/1.0\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
        (501, "transfer-coding", POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
        (501, "transfer-coding", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, "bad-request", GET + b"X: a\r\n b\r\n\r\n"),
        (400, "bad-request", GET + b"X : a\r\n\r\n"),
        (400, "bad-request", GET + b"X: a\x00b\r\n\r\n"),
        (400, "bad-request", b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, "bad-request", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, "bad-request", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (505, "http-version", b"GET /\r\n\r\n"),
        (505, "http-version", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (414, "target-too-long", b"GET /" + b"x" * TARGET_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        (431, "headers-too-large", GET + b"X: y\r\n" * HEADERS + b"\r\n"),
        (431, "headers-too-large", GET + b"X: " + b"y" * HEAD_BYTES + b"\r\n\r\n"),
        (413, "body-too-large", POST + CHUNKED + b"\r\n" + b"1\r\na\r\n" * (BODY_BYTES // 4)),
        (413, "body-too-large", POST + CHUNKED + b"\r\n1;" + b"x" * (BODY_BYTES + 100_000)),
        (413, "body-too-large", POST + CHUNKED + b"\r\n0\r\nX: " + b"x" * (BODY_BYTES + 100_000)),
    ],
)
async def test_what_two_readers_could_read_differently_or_has_no_end_is_refused(
    mirror: Mirror, status: int, code: str, request_: bytes
) -> None:
    assert await mirror.told(request_) == (status, code)


async def test_a_header_that_never_ends_is_not_read_for_ever(mirror: Mirror) -> None:
    assert await mirror.told(GET + b"X: ", b"y" * 1_500_000) == (431, "headers-too-large")
    async with mirror.line() as line:
        await line.is_cut_off_sending(GET + b"X: ")


async def test_who_is_silent_or_trickles_or_never_reads_is_parted_with_while_others_are_served(mirror: Mirror) -> None:
    async def trickles(begin: bytes, endless: bytes) -> bytes:
        async with mirror.line() as line:
            line.writer.write(begin)

            async def drips() -> None:
                with suppress(ConnectionError):
                    while endless:
                        line.writer.write(endless)
                        await asyncio.sleep(0.5)

            dripping = asyncio.create_task(drips())
            try:
                with suppress(ConnectionError):
                    return await line.reader.read()
                return b""
            finally:
                dripping.cancel()

    async def never_reads() -> None:
        async with mirror.line() as line:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # every TCP transport can
            line.writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            while not line.writer.transport.is_closing():
                await asyncio.sleep(0.5)
                line.writer.write(b"\r\n")

    slow = [
        trickles(b"", b""),
        trickles(b"", b"\r\n"),
        trickles(GET, b""),
        trickles(GET + b"X: ", b"y"),
        trickles(POST + b"Content-Length: 1000\r\n\r\n", b"y"),
        trickles(POST + CHUNKED + b"\r\n1;", b"y"),
    ]
    tasks = [asyncio.create_task(each) for each in slow]
    silent = asyncio.create_task(never_reads())
    served = 0
    while not all(task.done() for task in [*tasks, silent]):
        assert (await mirror.understood(GET + b"\r\n"))["path"] == "/"
        served += 1
        await asyncio.sleep(0.2)
    answers = [(await task).partition(b"\r\n")[0] for task in tasks]
    assert answers == [b"", b"", *[b"HTTP/1.1 408 Request Timeout"] * 4]
    await silent
    assert served > 1


async def test_so_many_requests_are_taken_ahead_and_those_are_answered_in_their_order(mirror: Mirror) -> None:
    async with mirror.line() as line:
        ahead = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(1_000))
        line.writer.write(ahead)
        for number in range(PIPELINED + 1):
            status, headers, body = await line.answer()
            assert (status, json.loads(body)["path"]) == (200, f"/{number}")
            assert ("connection" in headers) == (number == PIPELINED)
        assert await line.is_over()


async def test_what_cannot_be_read_behind_a_good_request_is_not_taken_for_its_answer(mirror: Mirror) -> None:
    async with mirror.line() as line:
        line.writer.write(POST + b"Content-Length: 0\r\n\r\n" + b"no HTTP at all\r\n\r\n")
        status, headers, _ = await line.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await line.is_over()


async def test_a_body_that_nobody_reads_is_thrown_away_up_to_an_end(mirror: Mirror) -> None:
    hasty = b"POST /hasty HTTP/1.1\r\nHost: a\r\n"
    async with mirror.line() as line:
        line.writer.write(hasty + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000 + GET + b"\r\n")
        assert [(await line.answer())[0] for _ in range(2)] == [200, 200]
    async with mirror.line() as line:
        line.writer.write(hasty + b"Content-Length: 1000000000\r\n\r\n")
        assert (await line.answer())[0] == 200
        await line.is_cut_off_sending()


async def test_one_address_may_have_so_many_connections_and_then_none_until_one_ends(mirror: Mirror) -> None:
    held: list[asyncio.StreamWriter] = []
    for _ in range(FEW):
        _, writer = await asyncio.open_connection(HOST, mirror.port, local_addr=("127.0.0.3", 0))
        held.append(writer)
    async with mirror.line("127.0.0.3") as line:
        assert (await line.answer())[0] == 503
        assert await line.is_over()
    assert (await mirror.understood(GET + b"\r\n"))["client"] == HOST, "nobody else is kept out"
    held.pop().transport.abort()

    async def is_let_in() -> bool:
        async with mirror.line("127.0.0.3") as line:
            line.writer.write(GET + b"\r\n")
            return (await line.answer())[0] == 200

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_let_in():
            await asyncio.sleep(0.1)
    for writer in held:
        writer.transport.abort()


async def test_only_a_proxy_that_is_trusted_says_who_is_behind_it(mirror: Mirror) -> None:
    claim = GET + b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.9, 127.0.0.2\r\n\r\n"
    assert (await mirror.understood(claim))["client"] == HOST
    assert (await mirror.understood(claim, PROXY))["client"] == "203.0.113.9"
    assert (await mirror.understood(GET + b"\r\n", PROXY))["client"] == PROXY
