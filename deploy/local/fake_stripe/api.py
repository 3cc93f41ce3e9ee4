"""HTTP in: who asks, under which key, struck by which fault; the endpoints say what to answer.

The order is Stripe's: authentication and rate limits stand before the idempotency layer, parameters are checked
inside it but before the endpoint begins, and what the endpoint answered is stored before it is sent.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.local.fake_stripe import control, endpoints, errors
from deploy.local.fake_stripe.books import Account, Answer, Books
from deploy.local.fake_stripe.connection import ConnectionCutError, abort, hang_up_awaited
from deploy.local.fake_stripe.endpoints import Call, Endpoint
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.faults import Fault, Plan, Rule
from deploy.local.fake_stripe.form import Form, Pairs, fingerprint, pairs_of
from deploy.local.fake_stripe.idempotency import Ask
from deploy.local.fake_stripe.intents import WrongStateError
from deploy.local.fake_stripe.objects import DEFAULT_VERSION, intent_object

_KEY_PREFIXES = ("sk_test_", "rk_test_")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way out."""

    status: int
    body: bytes
    replay_of: str | None = None
    should_retry: bool | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request past the door."""

    request: Request
    request_id: str
    account: Account
    pairs: Pairs
    form: Form
    rule: Rule | None


class Api:
    """The ASGI application's parts: the books and the fault plan in force."""

    def __init__(self, books: Books, clock: Callable[[], float] = time.time) -> None:
        self.books = books
        self.plan = Plan()
        self._clock = clock

    async def answer(self, request: Request, endpoint: Endpoint) -> Response:
        """Serve one Stripe request, turning every refusal into Stripe's error body."""
        request_id = f"req_{token_hex(7)}"
        try:
            asked = await self._admit(request, request_id)
            reply = await (self._write if request.method == "POST" else self._read)(asked, endpoint)
        except StripeError as error:
            reply = _refusal(error)
        except ConnectionCutError:
            return Response()  # goes nowhere: the server drops what it cannot send
        return _respond(request, request_id, reply)

    async def _admit(self, request: Request, request_id: str) -> Asked:
        headers = request.headers
        account = self.books.account(_api_key(headers), headers.get("stripe-account", ""))
        if request.method == "POST":
            _require_form_encoding(headers)
            pairs = pairs_of(await request.body())
        else:
            pairs = pairs_of(request.scope["query_string"])
        form = Form.parse(pairs)
        rule = self._strike(request, account, form) if self.plan else None
        if rule is not None and rule.fault is Fault.TOO_MANY:
            raise errors.too_many_requests()
        return Asked(request, request_id, account, pairs, form, rule)

    def _strike(self, request: Request, account: Account, form: Form) -> Rule | None:
        def metadata() -> Mapping[str, str]:
            intent = account.intents.get(request.path_params.get("id", ""))
            return (intent.metadata if intent else {}) | form.metadata()

        return self.plan.strike(request.method, request.url.path, metadata)

    async def _read(self, asked: Asked, endpoint: Endpoint) -> Reply:
        await _before(asked)
        if asked.rule is not None and asked.rule.fault in {Fault.ERROR, Fault.ERROR_AFTER}:
            raise errors.internal()
        reply = Reply(200, orjson.dumps(endpoint(self._call(asked)).body))
        await _after(asked)
        return reply

    async def _write(self, asked: Asked, endpoint: Endpoint) -> Reply:
        key = asked.request.headers.get("idempotency-key")
        if asked.rule is not None and asked.rule.fault is Fault.CONFLICT:
            raise errors.key_in_use(key or "")
        if not key:
            await _before(asked)
            reply = self._execute(asked, endpoint, None)
            await _after(asked)
            return reply
        path = asked.request.url.path
        ask = Ask(key, path, fingerprint(path, asked.pairs))
        stored = asked.account.keys.begin(ask, self._now())
        if stored is not None:
            await _before(asked)
            await _after(asked)
            body = self.books.body_of(stored)
            return Reply(stored.status, body, stored.request_id, should_retry=_retry_advice(stored.status))
        try:
            await _before(asked)
            reply = self._execute(asked, endpoint, ask)
        finally:
            asked.account.keys.end(ask)
        await _after(asked)
        return reply

    def _execute(self, asked: Asked, endpoint: Endpoint, ask: Ask | None) -> Reply:
        """Run the endpoint; its effect and the answer stored for it become durable together, before it is sent."""
        call = self._call(asked)
        fault = asked.rule.fault if asked.rule else None
        change = None
        try:
            if fault is Fault.ERROR:
                raise errors.internal()
            done = endpoint(call)
            change = done.change
            if fault is Fault.ERROR_AFTER:
                raise errors.internal()
            reply = Reply(done.status, orjson.dumps(done.body), should_retry=_retry_advice(done.status))
        except StripeError as error:
            if not error.executed:
                raise
            reply = _refusal(error)
        answer = Answer(ask, reply.status, asked.request_id, call.now, reply.body) if ask else None
        self.books.record(asked.account, change, answer)
        return reply

    def _call(self, asked: Asked) -> Call:
        version = asked.request.headers.get("stripe-version", DEFAULT_VERSION)
        return Call(asked.account, asked.request.path_params.get("id", ""), asked.form, self._now(), version)

    def _now(self) -> int:
        return self.books.moment(self._clock())


def application(api: Api) -> Starlette:
    """Return the ASGI application: Stripe's paths under /v1, ours under /_control."""

    def route(path: str, method: str, endpoint: Endpoint) -> Route:
        async def serve(request: Request) -> Response:
            return await api.answer(request, endpoint)

        return Route(path, serve, methods=[method])

    async def unknown(request: Request) -> Response:
        reply = _refusal(errors.unknown_path(request.method, request.url.path))
        return _respond(request, f"req_{token_hex(7)}", reply)

    intents = "/v1/payment_intents"
    return Starlette(
        routes=[
            route(intents, "POST", endpoints.create_intent),
            route(intents + "/{id}/confirm", "POST", endpoints.confirm_intent),
            route(intents + "/{id}/capture", "POST", endpoints.capture_intent),
            route(intents + "/{id}/cancel", "POST", endpoints.cancel_intent),
            route(intents, "GET", endpoints.list_intents),
            route(intents + "/{id}", "GET", endpoints.retrieve_intent),
            route("/v1/charges", "GET", endpoints.list_charges),
            route("/v1/charges/{id}", "GET", endpoints.retrieve_charge),
            *control.routes(api),
            Route("/{path:path}", unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
    )


def _api_key(headers: Mapping[str, str]) -> str:
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            credential = b64decode(credential, validate=True).decode().partition(":")[0]
        except ValueError:
            credential = ""
    if not credential or scheme.lower() not in {"bearer", "basic"}:
        message = (
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
        raise errors.unauthorized(message)
    if not credential.startswith(_KEY_PREFIXES):
        message = f"Invalid API Key provided: {credential[:8]}****. A test key begins with sk_test_ or rk_test_."
        raise errors.unauthorized(message)
    return credential


def _require_form_encoding(headers: Mapping[str, str]) -> None:
    kind = headers.get("content-type", "application/x-www-form-urlencoded")
    if not kind.startswith("application/x-www-form-urlencoded"):
        message = "Invalid request (check that your POST content type is application/x-www-form-urlencoded)."
        raise errors.invalid(message)


async def _before(asked: Asked) -> None:
    """Let a fault strike while nothing has happened yet; a key stays in flight meanwhile."""
    rule = asked.rule
    if rule is None:
        return
    if rule.fault is Fault.RESET_BEFORE:
        await abort(asked.request)
    elif rule.fault is not Fault.HANG:
        await asyncio.sleep(rule.delay_ms / 1000)


async def _after(asked: Asked) -> None:
    """Let a fault strike once the effect is recorded and only the answer is missing."""
    rule = asked.rule
    if rule is None:
        return
    if rule.fault is Fault.RESET_AFTER:
        await abort(asked.request)
    elif rule.fault is Fault.HANG:
        await hang_up_awaited(asked.request, rule.delay_ms / 1000 or None)


def _refusal(error: StripeError) -> Reply:
    if isinstance(error, WrongStateError):
        error.members["payment_intent"] = intent_object(error.intent)
    # A conflict ends by itself, so a retry is worth while; the same key would only replay a stored answer.
    conflict = error.status == errors.CONFLICT
    should_retry = True if conflict else _retry_advice(error.status)
    return Reply(error.status, orjson.dumps(error.body()), should_retry=should_retry)


def _retry_advice(status: int) -> bool | None:
    return False if status == errors.CARD_ERROR or status >= errors.INTERNAL else None


def _respond(request: Request, request_id: str, reply: Reply) -> Response:
    asked = request.headers
    headers = {
        "request-id": request_id,
        "stripe-version": asked.get("stripe-version", DEFAULT_VERSION),
    }
    if key := asked.get("idempotency-key"):
        headers["idempotency-key"] = key
        headers["original-request"] = reply.replay_of or request_id
    if reply.replay_of is not None:
        headers["idempotent-replayed"] = "true"
    if reply.should_retry is not None:
        headers["stripe-should-retry"] = "true" if reply.should_retry else "false"
    return Response(reply.body, reply.status, headers, media_type="application/json")
