"""Guarded routes: every one says which permission it needs, and none can be declared without.

The order of checks is the contract's: 401, then what cannot be read (400, 413, 415), 403, 404, 422, 412, 409.
"""

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

from libs.common.auth import Principal, Verifier, bearer
from libs.common.clock import new_id, now
from libs.common.errors import CartwrightError, MalformedError, NotFoundError, RejectedError
from libs.common.http.problem import problem_of
from libs.common.messaging.decision import Message
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Answer, Claim, Replayed, Shell
from libs.common.sensitive import is_sensitive
from libs.common.telemetry import Counter, Histogram, request_span

MAX_BODY_BYTES = 1_000_000
MAX_WAIT_SECONDS = 30
MAX_DIGITS = 18
"""Of a number in a header: Python refuses to read endless ones."""
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

REQUESTS = Counter("cartwright_http_requests_total", "Requests answered", ["route", "status"])
LATENCY = Histogram("cartwright_http_request_seconds", "From the first byte read to the answer", ["route"])

F = TypeVar("F", bound=Callable[..., Awaitable[Response]])


class UndeclaredPermissionError(Exception):
    """A route says neither which permission it needs nor that it is public: its service does not start."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a route demands of its caller before anything else happens."""

    permission: str | None
    instead: str | None = None
    """Another permission that will do: one that others hold than those who hold the first."""
    idempotent: bool = False
    exists: Callable[["Call"], Awaitable[object]] | None = None
    """Raises NotFoundError when the object of the path is not for the caller: 404 goes before 422."""


PUBLIC = Guard(permission=None)


def guard(
    permission: str,
    *,
    instead: str | None = None,
    idempotent: bool = False,
    exists: Callable[["Call"], Awaitable[object]] | None = None,
) -> Callable[[F], F]:
    """Declare the permission a route needs, and whether it needs an Idempotency-Key."""
    return _declare(Guard(permission, instead, idempotent, exists))


def public(endpoint: F) -> F:
    """Declare that a route is for anybody."""
    return _declare(PUBLIC)(endpoint)


def _declare(rule: Guard) -> Callable[[F], F]:
    def declare(endpoint: F) -> F:
        endpoint.guard = rule  # type: ignore[attr-defined]
        return endpoint

    return declare


@dataclass(slots=True)
class Service:
    """What the routes of a service work with; made by its composition root."""

    name: str
    shell: Shell
    hints: Hints
    verifier: Verifier
    extras: dict[str, Any] = field(default_factory=dict)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What is done when the last request has been answered."""


class Call:
    """One request: who makes it, under which key, and how it is turned into a message."""

    def __init__(self, request: Request, principal: Principal | None, rule: Guard) -> None:
        headers = request.headers
        self.request = request
        self.service: Service = request.app.state.service
        self.shell = self.service.shell
        self._principal = principal
        self.rule = rule
        self.request_id = request.state.request_id
        self.preferences = _preferences(headers.get("prefer", ""))
        self.traceparent: str = request.state.span.traceparent
        self.idempotency_key = _idempotency_key(headers.get("idempotency-key"), demanded=rule.idempotent)
        self.body: Any = None

    @property
    def principal(self) -> Principal:
        """The caller. Only public routes have none."""
        if self._principal is None:
            message = "a public route has no principal"
            raise TypeError(message)
        return self._principal

    @property
    def tenant_id(self) -> UUID:
        """The tenant of the token; nothing else ever says it."""
        return self.principal.tenant_id

    @cached_property
    def wait_seconds(self) -> int:
        """How long the caller would wait for a final answer (`Prefer: wait=N`), at most the maximum."""
        wait = self.preferences.get("wait", "0")
        if not wait.isdecimal():
            return 0
        return MAX_WAIT_SECONDS if len(wait) > MAX_DIGITS else min(int(wait), MAX_WAIT_SECONDS)

    @property
    def applied(self) -> dict[str, str]:
        """The `Preference-Applied` header, if the caller asked to wait."""
        return {"Preference-Applied": f"wait={self.wait_seconds}"} if self.wait_seconds else {}

    def if_match(self) -> int | None:
        """The version that the caller decided on, from `If-Match`."""
        tag = self.request.headers.get("if-match")
        if tag is None or tag == "*":
            return None
        if not re.fullmatch(r'"\d{1,18}"', tag):
            raise MalformedError("bad-if-match", 'If-Match takes the ETag you were given, such as "7"')
        return int(tag.strip('"'))

    def message(self, command: Any, *, tenant_id: UUID | None = None, correlation_id: str = "") -> Message[Any]:
        """A command of this caller, in its tenant."""
        return Message(
            data=command,
            tenant_id=self.tenant_id if tenant_id is None else tenant_id,
            id=self.request_id,
            time=now(),
            source=self.shell.source,
            actor=str(self._principal.subject) if self._principal else "",
            correlation_id=correlation_id or self.request_id,
            traceparent=self.traceparent,
        )

    async def execute(self, command: Any, *, tenant_id: UUID | None = None) -> Any:
        """Carry out a command that needs no idempotency key."""
        return await self.shell.execute(self.message(command, tenant_id=tenant_id))

    async def execute_once(
        self,
        command: Any,
        remember: Callable[[Any], Answer],
        *,
        fingerprint_body: Any = None,
        tenant_id: UUID | None = None,
    ) -> "Any | Replayed":
        """Carry out a command under the caller's idempotency key; `remember` makes the answer that is replayed."""
        claim = Claim(
            tenant_id=self.tenant_id,
            subject=str(self.principal.subject),
            operation=f"{self.request.method} {self.request.scope['route'].path}",
            key=self.idempotency_key or "",
            fingerprint=self.fingerprint(self.body if fingerprint_body is None else fingerprint_body),
            remember=remember,
        )
        return await self.shell.execute(self.message(command, tenant_id=tenant_id), claim)

    def fingerprint(self, body: Any) -> bytes:
        """SHA-256 of the path's parameters and the canonical body: what "the same request" means."""
        canonical = orjson.dumps([self.request.path_params, body], option=orjson.OPT_SORT_KEYS, default=str)
        return hashlib.sha256(canonical).digest()


class GuardedRoute(APIRoute):
    """A route that lets nobody in unseen, and answers every refusal with a problem document."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **arguments: Any) -> None:
        rule = getattr(endpoint, "guard", None)
        if rule is None:
            message = f"{path} ({endpoint.__qualname__}) declares no permission: add @guard(...) or @public"
            raise UndeclaredPermissionError(message)
        self.rule: Guard = rule
        if rule.permission is not None:
            arguments["openapi_extra"] = {
                "security": [{"bearer": [each]} for each in (rule.permission, rule.instead) if each],
                "x-permission": rule.permission,
                "x-idempotency-key": "required" if rule.idempotent else "none",
                **(arguments.get("openapi_extra") or {}),
            }
        super().__init__(path, endpoint, **arguments)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, behind the guard."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            started = time.perf_counter()
            request_id = request.state.request_id = request_id_of(request)
            traceparent = request.headers.get("traceparent")
            with request_span(self.path, request.scope, request_id=request_id, traceparent=traceparent) as span:
                request.state.span = span
                try:
                    response = await self._answer(request, handler)
                except Exception as error:  # noqa: BLE001 - the edge turns whatever it is into a problem
                    response = problem_of(error, request_id=request_id, instance=request.url.path)
                span.answered(response.status_code)
            response.headers["X-Request-Id"] = request_id
            REQUESTS.labels(self.path, response.status_code).inc()
            LATENCY.labels(self.path).observe(time.perf_counter() - started)
            return response

        return guarded

    async def _answer(self, request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
        rule = self.rule
        service: Service = request.app.state.service
        principal = None
        if rule.permission is not None:
            principal = await service.verifier.verify(bearer(request.headers.get("authorization")))
            request.state.span.of_tenant(principal.tenant_id)
        call = Call(request, principal, rule)
        request.state.call = call
        if self.body_field is not None:
            call.body = await _json(request)
        if principal is not None and rule.permission is not None and rule.instead not in principal.permissions:
            principal.demand(rule.permission)
        try:
            return await handler(request)
        except RequestValidationError as error:
            raise await _refusal(error, call) from error


async def _refusal(error: RequestValidationError, call: Call) -> CartwrightError:
    """404 for a path that cannot be an object of ours or is not the caller's, 400 for headers, 422 for the rest."""
    problems = [(tuple(map(str, each["loc"])), each["msg"]) for each in error.errors()]
    if any(location[0] == "path" for location, _ in problems):
        return NotFoundError("not-found", "there is nothing here for you")
    if any(location[0] == "header" for location, _ in problems):
        return MalformedError("bad-header", "; ".join(f"{location[-1]}: {message}" for location, message in problems))
    if call.rule.exists is not None:
        await call.rule.exists(call)
    errors = [{"pointer": "/" + "/".join(location[1:]), "detail": message} for location, message in problems]
    return RejectedError("schema", "the request breaks its schema; see errors", errors=errors)


async def _json(request: Request) -> Any:
    """The body, read once, strictly; FastAPI finds it parsed."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _TooLargeError("body-too-large", f"a body may have {MAX_BODY_BYTES} bytes")
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise _TooLargeError("body-too-large", f"a body may have {MAX_BODY_BYTES} bytes")
    if not body:
        return None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _MediaTypeError("unsupported-media-type", "send application/json")
    try:
        request._json = orjson.loads(body)  # noqa: SLF001 - Starlette's own cache of the parsed body
    except orjson.JSONDecodeError as error:
        raise MalformedError("not-json", f"the body is not JSON: {error}") from error
    return request._json  # noqa: SLF001


class _TooLargeError(RejectedError):
    status = 413


class _MediaTypeError(RejectedError):
    status = 415


def request_id_of(request: Request) -> str:
    """The caller's `X-Request-Id` if it is usable, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) and not is_sensitive(given) else str(new_id())


def _idempotency_key(header: str | None, *, demanded: bool) -> str | None:
    """The key without its quotes: `"a"` and `a` are the same key."""
    if header is None:
        if demanded:
            raise MalformedError("idempotency-key-missing", "this needs an Idempotency-Key header, new for each new intent")
        return None
    key = header.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise MalformedError("bad-idempotency-key", "an Idempotency-Key is 1 to 255 visible ASCII characters")
    if is_sensitive(key):
        raise MalformedError("bad-idempotency-key", "an Idempotency-Key is kept, so it holds no card number and no secret")
    return key


def _preferences(header: str) -> Mapping[str, str]:
    """`Prefer` (RFC 7240) as a table; what nobody here knows is ignored."""
    preferences: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.partition(";")[0].partition("=")
        preferences.setdefault(name.strip().lower(), value.strip().strip('"'))
    return preferences


async def _call(request: Request) -> Call:  # a plain function would cost a thread's round trip
    call: Call = request.state.call
    return call


Caller = Annotated[Call, Depends(_call)]
"""How an endpoint asks for its caller."""


class Routes(APIRouter):
    """A service's routes; each is guarded."""

    def __init__(self) -> None:
        super().__init__(route_class=GuardedRoute)


def reply(status: int, model: BaseModel | None, **headers: str) -> Response:
    """A model as JSON; members that are None are left out."""
    body = model.model_dump_json(exclude_none=True).encode() if model is not None else b""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, status_code=status, headers=names, media_type="application/json" if body else None)


def replay(replayed: Replayed) -> Response:
    """The answer that this key was given before."""
    answer = replayed.answer
    headers = {**answer.headers, "Idempotent-Replayed": "true"}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/json")
