"""One connection, as far as a stranger may use it: every size, number and time that it could draw out has an end.

uvicorn's own protocol reads what comes; llhttp under it refuses what two readers could take differently (obs-fold, a bare LF,
two lengths, a length beside a transfer coding). What neither bounds is bounded here.
"""

import asyncio
import re
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from libs.common.clock import new_id
from libs.common.http.problem import problem
from libs.common.telemetry import Counter

TARGET_BYTES = 8_192
HEAD_BYTES = 32_768
HEADERS = 100
BODY_BYTES = 2_000_000
"""Of a body as it is sent, framing and all, whoever reads it or does not; routes take less."""
PIECE_BYTES = 16_384
"""So much is read at a time: a head may be longer by this before it is known to be."""
PIPELINED = 16
"""So many requests may wait behind the one being answered; those after them are not read."""
SILENT_SECONDS = 10
"""For a head, from the connection's beginning or its own; and for a body beyond the time that its bytes are worth."""
SLOWEST_BYTES_PER_SECOND = 16_384
UNREAD_SECONDS = 30
"""For what was answered and is not read."""
PARTING_SECONDS = 1
"""What a refused caller still sends is thrown away for so long: a reset would take the answer from them."""
MAPPED = "::ffff:"
"""Stands before an IPv4 address where IPv6 is spoken too."""
HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")

REFUSED = Counter("cartwright_http_refused_total", "Connections and requests refused before any route was asked", ["code"])

Network = IPv4Network | IPv6Network


class RefusedError(Exception):
    """This request is not read any further."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class Crowd:
    """Who is connected to a process."""

    def __init__(self, most: int, most_of_one: int, proxies: Sequence[Network] = ()) -> None:
        """`proxies` speak for others: what they say of the address is believed, and they may have all connections."""
        self.most = most
        self._most_of_one = most_of_one
        self._proxies = proxies
        self._of: Tally[str] = Tally()

    def enter(self, address: str) -> bool:
        """Count one in. False if it is one too many of its address."""
        self._of[address] += 1
        return self._of[address] <= self._most_of_one or self.speaks_for_others(address)

    def leave(self, address: str) -> None:
        """Count one out."""
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]

    def speaks_for_others(self, address: str) -> bool:
        """Whether it is one of our proxies."""
        if not self._proxies:
            return False
        try:
            return any(ip_address(address) in network for network in self._proxies)
        except ValueError:
            return False

    def spoken_for(self, forwarded: Iterable[bytes], proxy: str) -> str:
        """The address that the last of our proxies heard from; what stands before it anybody can have written."""
        address = proxy
        for each in reversed(b",".join(forwarded).split(b",")):
            address = plain(each.strip().decode("latin-1")) or address
            if not self.speaks_for_others(address):
                return address
        return address


def plain(address: str) -> str:
    """The same caller has the same address, whether it came to a socket of both protocols or of one."""
    return address.removeprefix(MAPPED) if "." in address else address


class Connection(HttpToolsProtocol):
    """What uvicorn does, within limits. Times are looked at once a second for all (`overdue`), so no request pays for a timer."""

    def __init__(self, crowd: Crowd, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._crowd = crowd
        self._address = ""
        self._since: float | None = None
        """When what the client owes us began; None while it owes us nothing."""
        self._unread_since: float | None = None
        self._fed = 0
        """Bytes of the head or body being read."""
        self._head_bytes = 0
        self._is_begun = self._is_body = self._is_deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Let it in, if there is room."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if self.client is not None:
            self.client = plain(self.client[0]), self.client[1]
        self._address = self.client[0] if self.client else ""
        if not self._crowd.enter(self._address) or len(self.connections) > self._crowd.most:
            self._refuse(RefusedError(503, "too-many-connections", "there are too many connections; use fewer, or come later"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room."""
        self._crowd.leave(self._address)
        super().connection_lost(exc)

    def overdue(self, now: float) -> None:
        """Part with a client that lets us wait, be it for its request or for its reading of an answer."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > UNREAD_SECONDS:
            REFUSED.labels("unread").inc()
            self.transport.abort()
            return
        if self._since is None:
            return
        if self.flow.read_paused:
            self._since = now  # it is we who let it wait
        elif now - self._since > SILENT_SECONDS + (self._fed / SLOWEST_BYTES_PER_SECOND if self._is_body else 0):
            if self._is_begun:
                self._refuse(RefusedError(408, "request-timeout", "the request did not arrive in time"))
            else:
                self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Read on, a piece at a time, until something is too much."""
        if self._is_deaf:
            self._fed += len(data)
            if self._fed > BODY_BYTES:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        if self._since is None and self._unanswered is None:
            self._since = self.loop.time()
        try:
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                self.parser.feed_data(piece)
                self._count(len(piece))
        except RefusedError as error:
            self._refuse(error)
        except httptools.HttpParserUpgrade:
            # We speak nothing else: the request is answered as it is, and nothing can follow it.
            self.cycle.keep_alive = False
            self._is_deaf = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            unreadable = RefusedError(400, "bad-request", f"this is no HTTP: {error}")
            self._refuse(cause if isinstance(cause, RefusedError) else unreadable)

    def _count(self, size: int) -> None:
        if not self._is_begun:
            return
        self._fed += size
        if self._is_body and self._fed > BODY_BYTES:
            raise RefusedError(413, "body-too-large", f"a body may have {BODY_BYTES} bytes as it is sent")
        if not self._is_body and self._fed > HEAD_BYTES + PIECE_BYTES:
            raise _head_too_large()

    def on_message_begin(self) -> None:
        """Begin to read a head."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._is_begun, self._is_body = True, False
        self._fed = self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        super().on_url(url)
        if len(self.url) > TARGET_BYTES:
            raise RefusedError(414, "target-too-long", f"a request's target may have {TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What trails a body is none of ours: nobody here reads it, and it must not pass for one."""
        if self._is_body:
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES or len(self.headers) >= HEADERS:
            raise _head_too_large()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer, if all readers of this head take it for the same."""
        self._demand_readable()
        if len(self.pipeline) >= PIPELINED:
            raise RefusedError(429, "too-many-requests-ahead", "send fewer requests ahead of their answers")
        if self._crowd.speaks_for_others(self._address):
            forwarded = [value for name, value in self.headers if name == b"x-forwarded-for"]
            self.scope["client"] = (self._crowd.spoken_for(forwarded, self._address), 0)
        self._is_body, self._fed = True, 0
        self._since = self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Owe the client an answer, and be owed nothing."""
        self._since, self._is_begun = None, False
        super().on_message_complete()

    def last_answer(self) -> None:
        """Answer what is under way, and close with that."""
        if (cycle := self._unanswered) is not None:
            cycle.keep_alive = False

    @property
    def _unanswered(self) -> RequestResponseCycle | None:
        """The request that came last, until it is answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def _demand_readable(self) -> None:
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise RefusedError(505, "http-version", "speak HTTP/1.1")
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1") or not all(HOST.fullmatch(host) for host in hosts):
            raise RefusedError(400, "bad-host", "send one Host, such as api.example.com:8080")
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and version == "1.0":
            raise RefusedError(400, "bad-request", "HTTP/1.0 knows no transfer coding")
        if codings and codings[0].lower() != b"chunked":
            raise RefusedError(501, "transfer-coding", "the one transfer coding here is chunked")

    def _refuse(self, error: RefusedError) -> None:
        """Say no, unless that would be taken for the answer to another request; read nothing more, and part."""
        REFUSED.labels(error.code).inc()
        self._is_deaf, self._since, self._fed = True, None, 0
        cycle, is_of_body = self._unanswered, self._is_begun and self._is_body
        if cycle is not None:
            if not is_of_body:
                cycle.keep_alive = False  # those ahead are answered yet
                return
            cycle.disconnected = True  # its body will never be whole
            cycle.message_event.set()
            if self.pipeline or cycle.response_started:
                self.transport.abort()
                return
        elif is_of_body:
            self.transport.abort()  # it was answered long ago and goes on sending
            return
        self.transport.write(_bytes_of(error))
        self.transport.write_eof()
        self.loop.call_later(PARTING_SECONDS, self.transport.close)


def _head_too_large() -> RefusedError:
    return RefusedError(431, "headers-too-large", f"a request may have {HEADERS} headers and {HEAD_BYTES} bytes of them")


def _bytes_of(error: RefusedError) -> bytes:
    answer = problem(error.status, error.code, error.detail, request_id=str(new_id()), instance="")
    headers = b"".join(b"%b: %b\r\n" % each for each in answer.raw_headers)
    return STATUS_LINE[error.status] + headers + b"connection: close\r\n\r\n" + bytes(answer.body)
