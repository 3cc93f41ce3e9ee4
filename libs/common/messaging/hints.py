"""Wake-up calls between processes: `NOTIFY` on a connection of its own, never inside a business transaction.

A hint says "look again", nothing more. It may be lost or late; whoever waits also looks at a deadline and after every
reconnect. (NOTIFY inside the transaction cost 62 to 86 % of throughput; this costs about a tenth.)
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from libs.common.database import WHATEVER_IT_SAYS, Connection, keep_time, opened, poll
from libs.common.messaging.peers import Peers

CHANNEL = "cartwright"
COALESCE_SECONDS = 0.002
RECONNECT_SECONDS = 0.5
KEEP_SECONDS = 5.0
"""So often the connection is used, to go by the server's clock, and lest nobody notice that it broke."""
ANSWER_SECONDS = 10.0
"""So long the server may take: who hangs hears nothing, tells nobody, and does not know it."""
OUTBOX = "*"
"""The hint that the outbox has rows; every other hint is the id of something that changed."""
EVERYTHING = "**"
"""The hint that anything may have changed."""
PAYLOAD_BYTES = 7_900


class Hints:
    """Sends and receives hints for one process, over one connection that reconnects for ever."""

    def __init__(self, url: str, *, listen: bool = True, peers: Peers | None = None) -> None:
        self.outbox = asyncio.Event()
        """Set when the outbox may have rows."""
        self.leaves = False
        """Whether this process has been told to leave, so that nobody may wait in it any more."""
        self.hears = False
        """Whether hints of other processes arrive."""
        self.relays = False
        """Whether this process publishes the outbox: then nobody else need be called for its rows."""
        self._url = url
        self._listen = listen
        self._peers = peers
        """Who is known to live by this connection, and looks for others like it."""
        self._time_kept_at = -KEEP_SECONDS
        self._pending: dict[str, None] = {}
        self._due = asyncio.Event()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to send and listen in the background."""
        self._task = asyncio.create_task(
            poll(self._serve, every=RECONNECT_SECONDS, waiting="hints.disconnected", outlives=WHATEVER_IT_SAYS), name="hints"
        )

    async def close(self) -> None:
        """Stop; hints not yet sent are dropped, which loses nothing but time."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def give(self, *, outbox: bool, changed: Iterable[str]) -> None:
        """Say that the outbox has rows, or that these things changed. Returns at once."""
        if outbox:
            self.outbox.set()
            if not self.relays:
                self._pending[OUTBOX] = None
        for name in changed:
            self._pending[name] = None
            self._wake(name)
        if self._pending:
            self._due.set()

    def call_everyone(self) -> None:
        """Have all who wait look again. For a process that begins: the one before may have died between a commit and its hint."""
        self.give(outbox=True, changed=[EVERYTHING])

    @contextmanager
    def expect(self, name: str) -> Iterator[asyncio.Future[None]]:
        """A future that a hint about this thing completes. Enter before looking, or the hint may pass unseen."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(future)
        try:
            yield future
        finally:
            futures = self._waiting[name]
            futures.discard(future)
            if not futures:
                del self._waiting[name]

    async def comes(self, news: "asyncio.Future[None]", deadline: float) -> bool:
        """Whether there is news before the deadline, which is now once this process leaves."""
        if self.leaves:
            return False
        try:
            async with asyncio.timeout_at(deadline):
                await news
        except TimeoutError:
            return False
        return not self.leaves

    def leave(self) -> None:
        """Let everybody go who waits, and let nobody wait again: this process is about to end."""
        self.leaves = True
        self._wake_everyone()

    def _wake(self, name: str) -> None:
        for future in self._waiting.get(name, ()):
            if not future.done():
                future.set_result(None)

    def _received(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for name in str(payload).split(","):
            if name == OUTBOX:
                self.outbox.set()
            elif name == EVERYTHING:
                self._wake_everyone()
            else:
                self._wake(name)

    def _wake_everyone(self) -> None:
        self.outbox.set()
        for name in list(self._waiting):
            self._wake(name)

    async def _serve(self) -> None:
        """One connection's life. Whoever waits polls until there is the next."""
        settings = {"synchronous_commit": "off", "application_name": "hints"}
        connection = await opened(self._url, timeout=ANSWER_SECONDS, command_timeout=ANSWER_SECONDS, settings=settings)
        try:
            if self._listen:
                await connection.add_listener(CHANNEL, self._received)
            if self._peers is not None:
                await self._peers.enter(connection)
            self.hears = self._listen
            self._wake_everyone()
            await self._send_for_ever(connection)
        finally:
            self.hears = False
            connection.terminate()

    async def _send_for_ever(self, connection: Connection) -> None:
        loop, look_at = asyncio.get_running_loop(), 0.0
        while True:
            with suppress(TimeoutError):
                # Python 3.11's wait_for would swallow a cancellation that comes together with the event.
                async with asyncio.timeout_at(look_at):
                    await self._due.wait()
            if loop.time() >= look_at:  # also while there is always something to send
                look_at = loop.time() + await self._looked(connection)
            if self._due.is_set():
                await asyncio.sleep(COALESCE_SECONDS)
                self._due.clear()
                for payload in self._payloads():
                    await connection.execute(f"SELECT pg_notify('{CHANNEL}', $1)", payload)

    async def _looked(self, connection: Connection) -> float:
        """Use the connection for what there is to look at; answers when to do so again."""
        loop = asyncio.get_running_loop()
        if self._peers is None or loop.time() >= self._time_kept_at + KEEP_SECONDS:
            await keep_time(connection)
            self._time_kept_at = loop.time()
        if self._peers is None:
            return KEEP_SECONDS
        await self._peers.look(connection)
        return self._peers.pause or KEEP_SECONDS

    def _payloads(self) -> Iterator[str]:
        """What is pending, in as few payloads as their limit allows."""
        names, self._pending = list(self._pending), {}
        payload = ""
        for name in names:
            if payload and len(payload) + len(name) + 1 > PAYLOAD_BYTES:
                yield payload
                payload = name
            else:
                payload = f"{payload},{name}" if payload else name
        if payload:
            yield payload
