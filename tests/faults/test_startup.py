"""A worker that begins while its database is away: refused at first, then recovering, then there; or never to be had."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from deploy.local.environment import child_environment, python
from deploy.local.ports import HOST
from deploy.local.state import ROOT
from libs.common.messaging.hints import CHANNEL, EVERYTHING
from tests.shared.places import Place
from tests.shared.roots import PUBLIC_ROOT

SSL_REQUEST = 80877103
FIELDS = (b"SFATAL", b"VFATAL", b"C57P03", b"Mthe database system is starting up")
STARTING_UP = b"".join(each + b"\0" for each in FIELDS) + b"\0"
"""What PostgreSQL says to whoever comes while it recovers."""
PATIENCE_SECONDS = 60


@dataclass
class Gate:
    """Stands before a PostgreSQL server, and says that it is starting up until it is opened."""

    url: str
    is_open: bool = False
    turned_away: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_open:
            await self._forward(reader, writer)
            return
        length, code = struct.unpack("!II", await reader.readexactly(8))
        if code == SSL_REQUEST:
            writer.write(b"N")
            length, _ = struct.unpack("!II", await reader.readexactly(8))
        await reader.readexactly(length - 8)
        writer.write(b"E" + struct.pack("!I", len(STARTING_UP) + 4) + STARTING_UP)
        await writer.drain()
        writer.close()
        self.turned_away += 1

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(self.url)
        inner, outer = await asyncio.open_connection(address.hostname, address.port)
        self.tasks |= {asyncio.create_task(_pour(reader, outer)), asyncio.create_task(_pour(inner, writer))}


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await source.read(65_536):
            sink.write(block)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def standing(place: Place, port: int) -> AsyncIterator[Gate]:
    gate = Gate(place.url("app"))
    server = await asyncio.start_server(gate.admit, HOST, port)
    yield gate
    server.close()
    for task in gate.tasks:
        task.cancel()
    await asyncio.gather(*gate.tasks, return_exceptions=True)


def free_port() -> int:
    """One on which nobody listens yet."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def _through(url: str, port: int) -> str:
    """The same database, its server found elsewhere."""
    address = urlsplit(url)
    return url.replace(f"@{address.hostname}:{address.port}/", f"@{HOST}:{port}/")


@asynccontextmanager
async def worker(
    app_url: str, relay_url: str, servers: str, prefix: str, **more: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The payments service's worker as it is served, and where it answers operators."""
    port = free_port()
    settings = {
        "DATABASE_URL": app_url,
        "RELAY_DATABASE_URL": relay_url,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "TOPIC_PREFIX": prefix,
        "ISSUER": "http://issuer.test",
        "JWKS_URL": "http://127.0.0.1:9/jwks.json",
        "ISSUER_ROOT_PUBLIC_KEY": PUBLIC_ROOT,
        "HTTP_HOST": HOST,
        "HTTP_PORT": str(port),
        "STRIPE_API_BASE": "http://127.0.0.1:9",
        "STRIPE_API_KEY": "sk_test_nobody",
        "STRIPE_WEBHOOK_SECRET": "whsec_" + "t" * 32,
        "MASTER_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        *python("deploy.cli", "serve", "payments", "worker"),
        cwd=ROOT,
        env=child_environment(settings),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process, f"http://{HOST}:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.1)


async def _asked(session: aiohttp.ClientSession, url: str) -> tuple[int, list[str]]:
    try:
        async with session.get(url) as response:
            body = await response.json(content_type=None) if url.endswith("readyz") else {}
            return response.status, body.get("missing", [])
    except aiohttp.ClientError:
        return 0, []


async def test_a_worker_waits_for_a_database_that_recovers_and_then_has_everybody_look_again(
    place: Place, bootstrap_servers: str, fresh_prefix: Callable[[str], str]
) -> None:
    said: list[str] = []
    listener = await asyncpg.connect(place.url("app"))
    await listener.add_listener(CHANNEL, lambda *heard: said.append(str(heard[-1])))
    port = free_port()
    urls = [_through(place.url(role), port) for role in ("app", "relay")]
    async with (
        worker(urls[0], urls[1], bootstrap_servers, fresh_prefix("startup")) as (process, address),
        aiohttp.ClientSession() as session,
    ):

        async def lives() -> bool:
            return (await _asked(session, f"{address}/livez"))[0] == 200

        async def misses_its_database() -> bool:
            status, missing = await _asked(session, f"{address}/readyz")
            return status == 503 and any(each.startswith("database") for each in missing)

        await _until(lives)  # nobody listens at the database's port yet
        await _until(misses_its_database)
        async with standing(place, port) as gate:

            async def is_turned_away_again_and_again() -> bool:
                return gate.turned_away > 3

            await _until(is_turned_away_again_and_again)
            assert await misses_its_database()
            assert process.returncode is None
            assert not any(EVERYTHING in each.split(",") for each in said)
            gate.is_open = True

            async def has_it() -> bool:
                return not await misses_its_database() and any(EVERYTHING in each.split(",") for each in said)

            await _until(has_it)
            process.terminate()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await process.wait() == 0
    await listener.close()


async def test_a_worker_told_to_leave_while_it_waits_leaves_and_one_with_a_wrong_password_does_not_wait(
    place: Place, bootstrap_servers: str
) -> None:
    nowhere = _through(place.url("app"), free_port())
    async with worker(nowhere, nowhere, bootstrap_servers, "") as (process, address), aiohttp.ClientSession() as session:

        async def lives() -> bool:
            return (await _asked(session, f"{address}/livez"))[0] == 200

        await _until(lives)
        process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
    password = urlsplit(place.url("app")).password or ""
    wrong = place.url("app").replace(f":{password}@", ":wrong@")
    async with worker(wrong, wrong, bootstrap_servers, "") as (process, _):
        _, told = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
        assert (process.returncode, b"cannot connect with the given database URL" in told) == (3, True)


async def test_a_worker_whom_the_broker_does_not_let_in_says_so_when_it_is_asked_whether_it_is_ready(
    place: Place, bootstrap_servers: str, fresh_prefix: Callable[[str], str]
) -> None:
    # The broker of the tests asks nobody who he is, so whoever says it is turned away.
    who = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_USERNAME": "payments", "KAFKA_SASL_PASSWORD": "guessed"}
    servers = (place.url("app"), place.url("relay"), bootstrap_servers, fresh_prefix("refused"))
    async with worker(*servers, **who) as (_, url), aiohttp.ClientSession() as session:

        async def told() -> bool:
            _, missing = await _asked(session, f"{url}/readyz")
            return any(each.startswith("the broker refuses: payments is not let in: ") for each in missing)

        await _until(told)


async def test_a_worker_whose_address_names_a_file_that_is_not_there_ends_with_one_line(
    place: Place, bootstrap_servers: str, fresh_prefix: Callable[[str], str]
) -> None:
    url = f"{place.url('app')}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"
    async with worker(url, place.url("relay"), bootstrap_servers, fresh_prefix("refused")) as (process, _):
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = (await process.stderr.read()).decode()
            assert await process.wait() == 3
    [line] = said.splitlines()
    assert line.startswith("cartwright: payments worker: set these environment variables: CARTWRIGHT_DATABASE_URL (")
    assert line.endswith("its sslrootcert names /nowhere/ca.pem, which cannot be read: No such file or directory)")
