"""Webhooks out: events are signed as Stripe signs them and sent until an endpoint says 2xx, never by the request's task.

What is owed stands in the books and survives a crash. There is no order between deliveries, as there is none with Stripe.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from deploy.local.fake_stripe.books import Books, Owed
from deploy.local.fake_stripe.endpoints.call import Call, View
from deploy.local.fake_stripe.faults import Fault, Plan
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.objects.telling import DEFAULT_VERSION, event_object
from deploy.local.fake_stripe.records import WebhookEndpoint

_AT_ONCE = 32
"""Deliveries on their way at one time."""

_LONGEST_PAUSE_SECONDS = 3600.0
_NAME = re.compile(r"\{(\w+)\}")
_AGENT = "Stripe/1.0 (+https://stripe.com/docs/webhooks)"


class KnobError(ValueError):
    """The knobs cannot be read; the message names them."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """How patient the sender is: the time an answer may take, the first pause (each next one is twice as long), the end."""

    timeout_ms: float = 10_000
    first_retry_ms: float = 1_000
    give_up_seconds: float = 3 * 24 * 3600


@dataclass(frozen=True, slots=True)
class _Try:
    """One delivery at one attempt; `extra` marks a duplicate, which nobody waits for."""

    owed: Owed
    attempt: int
    since: float
    extra: bool = False


class Sender:
    """Sends what the books owe."""

    def __init__(self, books: Books, plan: Callable[[], Plan]) -> None:
        self.knobs = Knobs()
        self.counts: Counter[str] = Counter()
        self._books, self._plan = books, plan
        self._queue: list[tuple[float, int, _Try]] = []
        self._numbers = count()
        self._woken = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        books.on_owed = self.take

    def take(self, owed: Owed) -> None:
        """Plan the delivery of an event, struck by whatever fault rules speak of it."""
        struck = self._plan().strike_webhook(owed.event.type, lambda: owed.account.metadata_of(owed.event.subject))
        faults = {fault for fault, _ in struck}
        if Fault.WEBHOOK_LOSS in faults:
            self.counts["lost"] += 1
            self._books.settle(owed)
            return
        pause = sum(delay for fault, delay in struck if fault is not Fault.WEBHOOK_DUPLICATE)
        self._push(_Try(owed, 0, time.monotonic()), pause)
        for fault, delay in struck:
            if fault is Fault.WEBHOOK_DUPLICATE:
                self._push(_Try(owed, 0, time.monotonic(), extra=True), pause + delay)

    def hurry(self) -> None:
        """Make every planned attempt due now."""
        now = time.monotonic()
        self._queue = [(now, number, planned) for _, number, planned in sorted(self._queue, key=lambda entry: entry[:2])]
        self._woken.set()

    def forget(self) -> None:
        """Drop all plans; the books have been cleared."""
        self._queue.clear()
        self.counts.clear()

    def view(self) -> dict[str, Any]:
        """Return how many events are owed and what became of the attempts so far."""
        names = ("delivered", "duplicated", "failed", "lost", "given_up", "unaddressed")
        return {"pending": len(self._books.owed), **{name: self.counts[name] for name in names}}

    async def run(self) -> None:
        """Send for ever, beginning with what a crash left."""
        for owed in list(self._books.owed.values()):
            self._push(_Try(owed, 0, time.monotonic()), 0)
        connector = aiohttp.TCPConnector(limit=_AT_ONCE)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            try:
                while True:
                    await self._send_due(session)
            finally:
                for task in self._sending:
                    task.cancel()

    def _push(self, planned: _Try, pause_seconds: float) -> None:
        heappush(self._queue, (time.monotonic() + pause_seconds, next(self._numbers), planned))
        self._woken.set()

    async def _send_due(self, session: aiohttp.ClientSession) -> None:
        self._woken.clear()
        while self._queue and self._queue[0][0] <= time.monotonic() and len(self._sending) < _AT_ONCE:
            _, _, planned = heappop(self._queue)
            task = asyncio.create_task(self._send(session, planned))
            self._sending.add(task)
            task.add_done_callback(self._sent)
        pause = self._queue[0][0] - time.monotonic() if self._queue and len(self._sending) < _AT_ONCE else None
        try:
            async with asyncio.timeout(pause):
                await self._woken.wait()
        except TimeoutError:
            return

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._woken.set()

    async def _send(self, session: aiohttp.ClientSession, planned: _Try) -> None:
        owed = planned.owed
        endpoint = self._books.endpoint_of(owed)
        if endpoint is None or not endpoint.enabled:
            self._books.settle(owed)
            return
        url = address(endpoint, owed.account.metadata_of(owed.event.subject))
        if url is None:
            self.counts["unaddressed"] += 1
            self._books.settle(owed)
        elif await self._post(session, url, endpoint, owed):
            self.counts["duplicated" if planned.extra else "delivered"] += 1
            self._books.settle(owed)
        elif not planned.extra:
            self._try_again(planned)

    async def _post(self, session: aiohttp.ClientSession, url: str, endpoint: WebhookEndpoint, owed: Owed) -> bool:
        """Deliver once; only 2xx counts, a redirect does not."""
        body = self._body(endpoint, owed)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(endpoint, body, int(time.time()), self._books.moment(time.time())),
            "User-Agent": _AGENT,
        }
        timeout = aiohttp.ClientTimeout(total=self.knobs.timeout_ms / 1000)
        try:
            async with session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as answer:
                await answer.read()
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False

    def _body(self, endpoint: WebhookEndpoint, owed: Owed) -> bytes:
        version = endpoint.api_version or DEFAULT_VERSION
        view = View(Call(owed.account, "", Form({}), self._books.moment(time.time()), version))
        pending = owed.account.owed_count[owed.event.id]
        return orjson.dumps(
            event_object(owed.event, view.render, version=version, pending_count=pending, account=owed.account.connected)
        )

    def _try_again(self, planned: _Try) -> None:
        self.counts["failed"] += 1
        if time.monotonic() - planned.since >= self.knobs.give_up_seconds:
            self.counts["given_up"] += 1
            self._books.settle(planned.owed)
            return
        pause = min(self.knobs.first_retry_ms / 1000 * 2**planned.attempt, _LONGEST_PAUSE_SECONDS)
        self._push(_Try(planned.owed, planned.attempt + 1, planned.since), pause)


def signature(endpoint: WebhookEndpoint, body: bytes, wall_clock: int, now: int) -> str:
    """Return the `Stripe-Signature` header: one `v1` for each secret that still lives.

    `t` is the wall clock, whatever the fake's own clock says, since receivers compare it with theirs.
    """
    living = endpoint.secrets if endpoint.old_until is None or now < endpoint.old_until else endpoint.secrets[:1]
    signed = b"%d.%b" % (wall_clock, body)
    marks = (hmac.new(secret.encode(), signed, sha256).hexdigest() for secret in living)
    return ",".join((f"t={wall_clock}", *(f"v1={mark}" for mark in marks)))


def address(endpoint: WebhookEndpoint, metadata: Mapping[str, str]) -> str | None:
    """Return where an event goes; None when a template asks for metadata that the object does not have."""
    if not endpoint.template:
        return endpoint.url
    if any(not metadata.get(name) for name in _NAME.findall(endpoint.url)):
        return None
    return _NAME.sub(lambda name: quote(metadata[name[1]], safe=""), endpoint.url)


def read_knobs(document: Mapping[str, Any], before: Knobs) -> Knobs:
    """Read the knobs among the members of a control request."""
    try:
        return Knobs(
            timeout_ms=float(document.get("timeout_ms", before.timeout_ms)),
            first_retry_ms=float(document.get("first_retry_ms", before.first_retry_ms)),
            give_up_seconds=float(document.get("give_up_seconds", before.give_up_seconds)),
        )
    except (TypeError, ValueError) as error:
        raise KnobError(f"timeout_ms, first_retry_ms and give_up_seconds are numbers: {error}") from error
