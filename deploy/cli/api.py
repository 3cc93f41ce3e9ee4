"""A stack's public APIs: one HTTP session, patient with whatever is busy or restarting."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import orjson

from deploy.cli.errors import CommandError, ExitCode
from deploy.local.description import StackDescription
from libs.common.clock import now
from services.payments.gateway.way import proxy_to

LONGEST_WAIT_SECONDS: Final = 30
"""The most that `Prefer: wait` is worth."""

_OPERATORS: Final = "/ops"
_PATIENCE_SECONDS: Final = 120
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_BUSY: Final = frozenset({429, 502, 503, 504})
_FIRST_REFUSAL: Final = 400
_CONFLICT: Final = 409
_PAGE: Final = 200
_PROVIDER_PAGE: Final = 100
_RENEW_AFTER: Final = 0.8
"""The part of a token's life after which a new one is asked for, so that none expires on its way."""


class RefusedError(CommandError):
    """A service answered a request with a problem; carries the status, the code and the whole answer."""

    def __init__(self, request: str, status: int, problem: dict[str, Any]) -> None:
        """Tell the problem in one line."""
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or problem.get("error") or "")
        detail = problem.get("detail") or problem.get("error_description") or problem.get("title") or ""
        places = "; ".join(f"{it['pointer']}: {it['detail']}" for it in problem.get("errors", []))
        super().__init__(f"{request} was answered {status} {self.code}: {detail}{places and f' ({places})'}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no refusal."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Observed:
    """One request as its sender saw it, retries and pauses included."""

    at: datetime
    service: str
    name: str
    status: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, the same on every attempt."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None


class Api:
    """Every service of one stack, behind one HTTP session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        stack: StackDescription,
        observe: Callable[[Observed], None] | None = None,
    ) -> None:
        """Borrow the session; `observe` is told about every answered request."""
        self.stack = stack
        self._session = session
        self._observe = observe
        self._bases = {name: stack.gateway_url or service.url or "" for name, service in stack.services.items()}
        self._operators = {name: next(iter(service.ops), "") for name, service in stack.services.items()}

    def observed_by(self, observe: Callable[[Observed], None]) -> "Api":
        """Return the same services, with an observer of what is asked through here."""
        return Api(self._session, self.stack, observe)

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        *,
        token: str = "",
        body: object = None,
        key: str = "",
        prefer: str = "",
    ) -> Reply:
        """Send a request until it is answered, to the operators' door what is theirs. Raises RefusedError on a 4xx or 500."""
        bases = self._operators if path.startswith(_OPERATORS) else self._bases
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if key:
            headers["Idempotency-Key"] = key
        if prefer:
            headers["Prefer"] = prefer
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(body)
        return await self._answer(service, path, Request(method, bases[service] + path, headers, content))

    async def ask(self, url: str, method: str, *, token: str, seconds: float, body: object = None) -> Reply:
        """Ask one process for something that may take long. Raises RefusedError on a 4xx or 500, CommandError if it is away."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=seconds)
        content = orjson.dumps(body) if body is not None else None
        try:
            async with self._session.request(method, url, headers=headers, timeout=timeout, data=content) as response:
                reply = Reply(response.status, response.headers, _parsed(await response.read()))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CommandError(f"{method} {url}: nobody answers ({str(error) or 'in time'})", ExitCode.ENVIRONMENT) from error
        if reply.status >= _FIRST_REFUSAL:
            raise RefusedError(f"{method} {url}", reply.status, reply.body if isinstance(reply.body, dict) else {})
        return reply

    async def grant(self, client_id: str, secret: str, **form: str) -> dict[str, Any]:
        """Ask for an access token as a client (RFC 6749 §4.4)."""
        # RFC 6749 §2.3.1: both parts are form-encoded before they go into the Basic scheme.
        basic = aiohttp.encode_basic_auth(quote(client_id, safe=""), quote(secret, safe=""))
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": basic}
        url = f"{self._bases['identity']}/oauth/token"
        request = Request("POST", url, headers, urlencode({"grant_type": "client_credentials", **form}).encode())
        granted: dict[str, Any] = (await self._answer("identity", "/oauth/token", request)).body
        return granted

    async def everything(
        self, service: str, path: str, token: str, filters: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield every item of a list."""

        async def read(query: str) -> Any:
            return (await self.call(service, "GET", f"{path}?{query}", token=token)).body

        async for item in paged(read, {"limit": _PAGE, **(filters or {})}):
            yield item

    async def provider_intents(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every PaymentIntent on the provider's own list, newest first."""
        async for intent in self.provider_list("/v1/payment_intents"):
            yield intent

    async def provider_refunds(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every refund on the provider's own list, newest first."""
        async for refund in self.provider_list("/v1/refunds"):
            yield refund

    async def provider_control(self, path: str) -> dict[str, Any]:
        """Ask the fake provider about itself (`/_control/…`)."""
        request = Request("GET", f"{self.stack.stripe_api_base}/_control/{path}", {}, None)
        told: dict[str, Any] = (await self._answer("provider", path, request)).body
        return told

    async def provider_list(
        self, path: str, *, account: str | None = None, expand: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield everything on one of the provider's lists, newest first; `account` is one that is connected to ours."""
        if self.stack.stripe_api_key is None:
            raise CommandError("the description of this deployment names no key of the provider (stripe.api_key_file)")
        headers = {"Authorization": f"Bearer {self.stack.stripe_api_key}"}
        if account:
            headers["Stripe-Account"] = account
        query: dict[str, str | int] = {"limit": _PROVIDER_PAGE, **({"expand[]": f"data.{expand}"} if expand else {})}
        while True:
            asked = f"{path}?{urlencode(query)}"
            request = Request("GET", f"{self.stack.stripe_api_base}{asked}", headers, None)
            page = (await self._answer("provider", asked, request)).body
            for item in page["data"]:
                yield item
            if not page["has_more"]:
                return
            query["starting_after"] = page["data"][-1]["id"]

    async def _answer(self, service: str, path: str, request: Request) -> Reply:
        begun_at, begun = now(), time.monotonic()
        pause, reason = _FIRST_PAUSE_SECONDS, ""
        while time.monotonic() - begun < _PATIENCE_SECONDS:
            try:
                reply = await self._send(request)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason, asked = str(error) or type(error).__name__, 0.0
            else:
                if not _is_busy(reply):
                    return self._told(reply, service, path, request, begun_at, begun)
                reason, asked = _reason(reply), _retry_after(reply)
            await asyncio.sleep(max(pause, min(asked, _LONGEST_PAUSE_SECONDS)))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        raise CommandError(
            f"{service} at {request.url} has been away for {_PATIENCE_SECONDS} s ({reason}): see ./cartwright status",
            ExitCode.ENVIRONMENT,
        )

    async def _send(self, request: Request) -> Reply:
        asked = self._session.request(
            request.method, request.url, headers=request.headers, data=request.content, proxy=proxy_to(request.url)
        )
        async with asked as response:
            content = await response.read()
            return Reply(response.status, response.headers, _parsed(content))

    def _told(self, reply: Reply, service: str, path: str, request: Request, begun_at: datetime, begun: float) -> Reply:
        if self._observe:
            duration_ms = round((time.monotonic() - begun) * 1000)
            self._observe(Observed(begun_at, service, f"{request.method} {path}", reply.status, duration_ms))
        if reply.status >= _FIRST_REFUSAL:
            problem = reply.body if isinstance(reply.body, dict) else {"detail": str(reply.body)[:200]}
            raise RefusedError(f"{request.method} {path}", reply.status, problem)
        return reply


class TokenSource:
    """An access token, asked for again shortly before it expires; whoever else needs it meanwhile waits for that one."""

    def __init__(self, issue: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Remember how the token is come by."""
        self._issue = issue
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    async def token(self) -> str:
        """Return a token with some life left in it."""
        if time.monotonic() >= self._renew_at:
            async with self._lock:
                if time.monotonic() >= self._renew_at:
                    asked_at, granted = time.monotonic(), await self._issue()
                    self._token = granted["access_token"]
                    self._renew_at = asked_at + granted["expires_in"] * _RENEW_AFTER
        return self._token


@asynccontextmanager
async def connected(stack: StackDescription, *, connections: int = 32) -> AsyncIterator[Api]:
    """Yield the stack's public APIs over one HTTP session."""
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=LONGEST_WAIT_SECONDS + 30, sock_connect=5)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        yield Api(session, stack)


async def paged(read: Callable[[str], Awaitable[Any]], query: Mapping[str, str | int]) -> AsyncIterator[dict[str, Any]]:
    """Yield every item of a list, page by page; `read` answers the page of a query."""
    cursor: dict[str, str] = {}
    while True:
        page = await read(urlencode({**query, **cursor}))
        for item in page["items"]:
            yield item
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def _parsed(content: bytes) -> Any:
    if not content:
        return None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")


def _is_busy(reply: Reply) -> bool:
    """Whether to ask again. That too many cards were refused is said to their payer, and waited for by nobody here."""
    code = reply.body.get("code") if isinstance(reply.body, dict) else None
    if reply.status in _BUSY:
        return bool(code != "too-many-declines")
    return bool(reply.status == _CONFLICT and code == "request-in-flight")


def _reason(reply: Reply) -> str:
    """Why nothing more came of it than its status, as far as it tells."""
    problem = reply.body if isinstance(reply.body, dict) else {}
    return " ".join([str(reply.status), *(str(problem[name]) for name in ("code", "detail") if name in problem)])


def _retry_after(reply: Reply) -> float:
    asked = reply.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0
