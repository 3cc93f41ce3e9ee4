"""A tap on the line between a service and PostgreSQL: sees every frame, and lets a test do something at any of them."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

CANCEL_REQUEST = 80877102


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the protocol."""

    side: str
    """Who sent it: `client` or `server`."""
    kind: str
    body: bytes

    @property
    def commits(self) -> bool:
        """Whether a transaction ends with this one, if the server gets it."""
        return self.side == "client" and self.kind == "Q" and self.body.startswith(b"COMMIT")


@dataclass
class Tap:
    """Between one client and one server. `passes` is asked of each frame: False cuts the line in its place."""

    url: str
    passes: Callable[[Frame], bool] = lambda _: True
    seen: list[Frame] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def forget(self) -> None:
        self.seen, self.passes = [], lambda _: True

    @property
    def round_trips(self) -> int:
        return sum(frame.side == "server" and frame.kind == "Z" for frame in self.seen)

    @property
    def commit_passed(self) -> bool:
        """Whether the server was told to commit: as a text, or by running what was prepared for it."""
        sent = [frame for frame in self.seen if frame.side == "client"]
        rode = any(last.kind == "B" and b"cartwright_commit" in last.body and this.kind == "E" for last, this in pairwise(sent))
        return rode or any(frame.commits for frame in sent)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = urlsplit(self.url)
        server_reader, server_writer = await asyncio.open_connection(where.hostname, where.port)
        begin = await reader.readexactly(8)
        length, code = struct.unpack("!ii", begin)
        server_writer.write(begin + await reader.readexactly(length - 8))
        if code == CANCEL_REQUEST:
            await server_reader.read()
            writer.close()
            server_writer.close()
            return
        back = asyncio.create_task(self._carry("server", server_reader, writer))
        self._tasks.add(back)
        try:
            await self._carry("client", reader, server_writer)
            # What the server has got it may finish; nobody hears of it.
            with suppress(OSError):
                server_writer.write_eof()
            await back
        finally:
            for each in (writer, server_writer):
                each.transport.abort()

    async def _carry(self, side: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                frame = Frame(side, chr(head[0]), body)
                if not self.passes(frame):
                    break
                self.seen.append(frame)
                writer.write(head + body)
        if side == "server":
            writer.transport.abort()
            while await reader.read(65_536):
                pass


@asynccontextmanager
async def tapped(url: str) -> AsyncIterator[tuple[Tap, str]]:
    """A tap on the way to this database, and the address to reach it by."""
    tap = Tap(url)
    server = await asyncio.start_server(tap.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            tap,
            urlsplit(url)._replace(netloc=f"{urlsplit(url).netloc.rpartition(':')[0]}:{port}").geturl() + "?sslmode=disable",
        )
    finally:
        server.close()
