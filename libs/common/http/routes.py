"""Guarded routes: every one says which permission it needs, and none can be declared without.

The order of checks is the contract's: 401, then what cannot be read (400, 413, 415), 403, 404, 422, 412, 409.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from libs.common.auth import InvalidTokenError, Principal, bearer
from libs.common.database import Connection
from libs.common.decision import Message, Viewer
from libs.common.errors import MalformedError
from libs.common.http.arguments import Arguments
from libs.common.http.asking import origin_of
from libs.common.http.guards import Facing, Guard, for_strangers, guard, public
from libs.common.http.origins import named_tenant, show
from libs.common.http.problem import make_private, problem_of
from libs.common.http.rates import Quota, address_of
from libs.common.http.reading import (
    NOTHING,
    Headers,
    header,
    headers_of,
    idempotency_key,
    instance_of,
    preferences,
    read_json,
    request_id_of,
    unkeepable_query,
)
from libs.common.http.refusals import note, refusal_of
from libs.common.http.server import OPERATORS
from libs.common.http.service import Service
from libs.common.messaging.hints import Hints
from libs.common.messaging.idempotency import Answer, Claim, Replayed
from libs.common.messaging.shell import Shell
from libs.common.telemetry import Counter, Histogram, RequestSpan, request_span

MAX_WAIT_SECONDS = 30
MAX_DIGITS = 18
"""Of a number in a header: Python refuses to read endless ones."""

READING = frozenset({"GET", "HEAD"})
"""What begins nothing."""

REQUESTS = Counter("cartwright_http_requests_total", "Requests answered", ["method", "route", "status"])
LATENCY = Histogram("cartwright_http_request_seconds", "From the first byte read to the answer", ["method", "route"])

__all__ = ["Facing", "Guard", "Service", "for_strangers", "guard", "public"]


class UndeclaredPermissionError(Exception):
    """A route says neither which permission it needs nor that it is public: its service does not start."""


class UndeclaredSightError(Exception):
    """A route has an object in its path and does not say who sees it: its service does not start."""


class Call:
    """One request: who makes it, under which key, and how it is turned into a message."""

    def __init__(self, request: Request, headers: Headers, rule: Guard, request_id: str, span: RequestSpan) -> None:
        self.request = request
        self.headers = headers
        self.service: Service = request.app.state.service
        self.rule = rule
        self.request_id = request_id
        self.traceparent = span.traceparent
        self.preferences = preferences(headers)
        self.idempotency_key: str | None = None
        self.body: Any = None
        self.quota: Quota | None = None
        """What is left to the caller, of what counts them most strictly."""
        self.concerns: UUID | None = None
        """Whose it is what a stranger asks for, once that is known: whether a page of theirs may read the answer."""
        self._span = span
        self._principal: Principal | None = None

    async def authenticate(self) -> None:
        """Find out who is calling. Raises UnauthenticatedError."""
        try:
            self._principal = await self.service.verifier.verify(bearer(header(self.headers, b"authorization")))
        except InvalidTokenError as error:
            if error.of is not None:  # genuine, and over: where it could begin nothing, a new one could not either
                self.concerns = error.of.tenant_id
                self.demand_open(error.of)
            raise
        self._span.of_tenant(self._principal.tenant_id)

    def demand_open(self, principal: Principal) -> None:
        """Raise DeniedError when this would begin something that the caller's tenant may begin no more, or that is gone."""
        standings = self.service.standings
        (standings.demand_there if self.rule.goes_on else standings.demand_open)(principal.tenant_id)

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return address_of(self.request.scope)

    @property
    def known(self) -> Principal | None:
        """The caller, if a token has said who it is."""
        return self._principal

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

    @property
    def shell(self) -> Shell:
        """The one of the caller's tenant; the main cell's for the platform, and for who has said no name."""
        return self.service.shell if self._principal is None else self.service.shell_of(self._principal.tenant_id)

    @property
    def hints(self) -> Hints:
        """What tells that something of the caller's tenant has changed."""
        return self.service.hints_of(self.tenant_id)

    @property
    def viewer(self) -> Viewer:
        """The caller, as far as decisions and lists need to know."""
        return Viewer(subject_id=self.principal.subject, sees_all=not self.principal.is_shopper)

    def transaction(self, tenant_id: UUID | None = None) -> AbstractAsyncContextManager[Connection]:
        """To read in, as the caller's tenant unless another is said."""
        whose = self.tenant_id if tenant_id is None else tenant_id
        return self.service.shell_of(whose).database.transaction([whose])

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """To write in what no command writes. Raises ErasedError where nothing of the caller's tenant is decided any more."""
        shell = self.shell
        async with shell.database.transaction([self.tenant_id]) as connection:
            if gone := await shell.gone(connection, [self.tenant_id]):  # to the end nobody can take it from here unseen
                raise gone[self.tenant_id]
            yield connection

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
        """The version that the caller decided on, from `If-Match`. What stands behind it in a tag is of no matter here."""
        tag = header(self.headers, b"if-match")
        if tag is None or tag == "*":
            return None
        version = re.fullmatch(r'"(\d{1,18})(-[0-9a-f]{16})?"', tag)
        if version is None:
            raise MalformedError("bad-if-match", 'If-Match takes the ETag you were given, such as "7"')
        return int(version[1])

    def message(self, command: Any, *, tenant_id: UUID | None = None, correlation_id: str = "") -> Message[Any]:
        """A command of this caller, in its tenant."""
        return self.service.shell.command(
            command,
            self.tenant_id if tenant_id is None else tenant_id,
            id=self.request_id,
            origin=origin_of(self._principal, self.request.scope, self.request_id),
            correlation_id=correlation_id or self.request_id,
            traceparent=self.traceparent,
        )

    async def execute(self, command: Any, *, tenant_id: UUID | None = None) -> Any:
        """Carry out a command that needs no idempotency key."""
        message = self.message(command, tenant_id=tenant_id)
        return await self.service.shell_of(message.tenant_id).execute(message)

    async def execute_once(
        self,
        command: Any,
        remember: Callable[[Any], Answer],
        *,
        tenant_id: UUID | None = None,
    ) -> "Any | Replayed":
        """Carry out a command under the caller's idempotency key; `remember` makes the answer that is replayed."""
        message = self.message(command, tenant_id=tenant_id)
        return await self.service.shell_of(message.tenant_id).execute(message, self.claim(remember))

    def claim(self, remember: Callable[[Any], Answer]) -> Claim[Any]:
        """The caller's idempotency key, to be claimed in the transaction that does what is asked."""
        return Claim(
            tenant_id=self.tenant_id,
            subject=str(self.principal.subject),
            operation=f"{self.request.method} {self.request.scope['route'].path}",
            key=self.idempotency_key or "",
            fingerprint=self.fingerprint(self.body),
            remember=remember,
        )

    def fingerprint(self, body: Any) -> bytes:
        """SHA-256 of the path's parameters and the canonical body: what "the same request" means."""
        canonical = orjson.dumps([self.request.path_params, body], option=orjson.OPT_SORT_KEYS, default=str)
        return hashlib.sha256(canonical).digest()


class GuardedRoute(APIRoute):
    """A route that lets nobody in unseen, and answers every refusal with a problem document."""

    facing: Facing
    """Whom it is there for, as its `Routes` say."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **arguments: Any) -> None:
        rule = getattr(endpoint, "guard", None)
        if rule is None:
            message = f"{path} ({endpoint.__qualname__}) declares no permission: add @guard(...) or @public"
            raise UndeclaredPermissionError(message)
        if "{" in path and rule.permission is not None and rule.sees is None and not rule.platform_only:
            message = f"{path} ({endpoint.__qualname__}) does not say who sees its object: add sees= to its @guard"
            raise UndeclaredSightError(message)
        if path.startswith(OPERATORS) and not rule.platform_only:
            message = f"{path} ({endpoint.__qualname__}) is not for the platform's operators alone: add platform_only=True"
            raise UndeclaredPermissionError(message)
        self.rule: Guard = rule
        self.platform_only = rule.platform_only
        if rule.permission is not None:
            arguments["openapi_extra"] = {
                "security": [{"bearer": [each]} for each in (rule.permission, rule.instead) if each],
                "x-permission": rule.permission,
                "x-idempotency-key": "required" if rule.idempotent else "none",
                **(arguments.get("openapi_extra") or {}),
            }
        super().__init__(path, endpoint, **arguments)
        if (self.methods or set()) <= READING:
            self.rule = replace(rule, goes_on=True)
        self._arguments = Arguments(self.dependant, _call)
        self._named = "/".join(sorted(self.methods or ())), path
        self._answered: dict[int, Counter] = {}
        """The counter of each status, so that none is looked up again."""
        self.app = self.serve

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of this route: an ASGI application in the place of FastAPI's."""
        started = time.perf_counter()
        headers = headers_of(scope)
        request_id, traceparent = request_id_of(headers), header(headers, b"traceparent")
        request = Request(scope, receive, send)
        with request_span(self.path, scope, request_id=request_id, traceparent=traceparent) as span:
            call = Call(request, headers, self.rule, request_id, span)
            try:
                response = await self._answer(call)
                response.raw_headers.append((b"x-request-id", request_id.encode()))
                if call.known is not None:
                    make_private(response)
                quota = call.quota
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the edge turns whatever it is into a problem
                response = problem_of(error, request_id=request_id, instance=instance_of(scope), scope=self.rule.permission or "")
                note(error, scope, self.path, call.known)
                quota = getattr(error, "quota", None) or call.quota
            if quota is not None:
                response.raw_headers += quota.headers
            show(response, call.service.choices, headers, call.known.tenant_id if call.known else call.concerns)
            span.answered(response.status_code)
        self._count(response.status_code, time.perf_counter() - started)
        await response(scope, receive, send)

    async def _answer(self, call: "Call") -> Response:
        rule = self.rule
        if rule.permission is not None:
            await call.authenticate()
            call.quota = call.service.rates.request(call.principal)
        if rule.costly:
            call.quota = await call.service.rates.admit(self.path, call.known, call.address, buys=rule.buys)
        call.idempotency_key = idempotency_key(call.headers, demanded=rule.idempotent)
        body, unkeepable = NOTHING, [*unkeepable_query(call.request.scope["query_string"])]
        if self.body_field is not None:
            body, found = await read_json(call.headers, call.request.receive)
            unkeepable += found
            call.body = None if body is NOTHING else body
            call.concerns = call.concerns or named_tenant(call.body)
        if rule.permission is not None and (rule.platform_only or rule.instead not in call.principal.permissions):
            call.principal.demand(rule.permission, of_platform=rule.platform_only)
        if rule.permission is not None:
            rule.demand_a_tenants(call.principal)
            call.demand_open(call.principal)
        try:
            arguments = await self._arguments.of(call.request, call, body)
        except RequestValidationError as error:
            raise await refusal_of(error.errors(), call, unkeepable) from error
        if unkeepable:
            raise await refusal_of([], call, unkeepable)
        response: Response = await self.endpoint(**arguments)
        return response

    def _count(self, status: int, seconds: float) -> None:
        if status not in self._answered:
            self._answered[status] = REQUESTS.labels(*self._named, status)
        self._answered[status].inc()
        self._latency.observe(seconds)

    @cached_property
    def _latency(self) -> Histogram:
        return LATENCY.labels(*self._named)


def _call() -> Call:
    """Stands in a signature for the call itself, which the route has already."""
    raise NotImplementedError


Caller = Annotated[Call, Depends(_call)]
"""How an endpoint asks for its caller."""


class Routes(APIRouter):
    """A service's routes; each is guarded, and faces whom it is said to. What lies under `/ops` faces operators."""

    def __init__(self, facing: Facing) -> None:
        super().__init__(route_class=GuardedRoute)
        self._facing = facing

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **arguments: Any) -> None:
        """Add one."""
        super().add_api_route(path, endpoint, **arguments)
        added = self.routes[-1]
        assert isinstance(added, GuardedRoute)
        added.facing = Facing.OPERATORS if path.startswith(OPERATORS) else self._facing

    def include_router(self, router: APIRouter, **changes: Any) -> None:
        """Take another's routes as they are; FastAPI would match their paths twice, and answer in the route's place."""
        if changes:
            message = "a part's routes are taken as they are"
            raise TypeError(message)
        self.routes.extend(router.routes)


def reply(status: int, model: BaseModel | None, **headers: str) -> Response:
    """A model as JSON; members that are None are left out."""
    body = model.model_dump_json(exclude_none=True).encode() if model is not None else b""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, status_code=status, headers=names, media_type="application/json" if body else None)


def reply_unless_known(call: Call, model: Callable[[], BaseModel], version: int | str, **headers: str) -> Response:
    """Answer a reader: 200, or 304 to one who has this version already (`If-None-Match`, RFC 9110), for whom no model is made."""
    etag = f'"{version}"'
    known = [each.strip().removeprefix("W/") for each in (header(call.headers, b"if-none-match") or "").split(",")]
    if etag in known or "*" in known:
        return reply(304, None, ETag=etag, **headers)
    return reply(200, model(), ETag=etag, **headers)


def replay(replayed: Replayed) -> Response:
    """The answer that this key was given before."""
    answer = replayed.answer
    headers = {**answer.headers, "Idempotent-Replayed": "true"}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/json")
