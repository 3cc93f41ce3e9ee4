"""HTTP in: who asks, under which key, struck by which fault; the endpoints say what to answer.

The order is Stripe's: authentication and rate limits stand before the idempotency layer, parameters are checked
inside it but before the endpoint begins, and what the endpoint answered is stored before it is sent.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.local.fake_stripe import connect, control, errors, page
from deploy.local.fake_stripe.accounts import Account
from deploy.local.fake_stripe.connection import ConnectionCutError, abort, hang_up_awaited
from deploy.local.fake_stripe.endpoints import account, disputes, payment_intents, refunds
from deploy.local.fake_stripe.endpoints.call import Call, Endpoint
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.fake import Fake
from deploy.local.fake_stripe.faults import Fault, Rule
from deploy.local.fake_stripe.form import Form, Pairs, fingerprint, pairs_of
from deploy.local.fake_stripe.idempotency import Ask, Stored
from deploy.local.fake_stripe.intents import WrongStateError
from deploy.local.fake_stripe.objects.payments import intent_object
from deploy.local.fake_stripe.objects.telling import DEFAULT_VERSION

_KEY_PREFIXES = ("sk_test_", "rk_test_")
_PUBLISHABLE = "pk_test_"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way out."""

    status: int
    body: bytes
    replay_of: str | None = None
    should_retry: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint and where it is served; those `open_to_clients` take a publishable key."""

    method: str
    path: str
    endpoint: Endpoint
    open_to_clients: bool = False

    @property
    def name(self) -> str:
        """What rate limits call it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request past the door."""

    request: Request
    request_id: str
    account: Account
    pairs: Pairs
    form: Form
    rule: Rule | None
    public: bool = False


class Api:
    """Stripe's endpoints, served from one fake."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    async def answer(self, request: Request, served: Served) -> Response:
        """Serve one Stripe request, turning every refusal into Stripe's error body."""
        request_id = f"req_{token_hex(7)}"
        try:
            asked = await self._admit(request, request_id, served)
            reply = await (self._write if request.method == "POST" else self._read)(asked, served.endpoint)
        except StripeError as error:
            reply = _refusal(error)
        except ConnectionCutError:
            return Response()  # goes nowhere: the server drops what it cannot send
        return _respond(request, request_id, reply)

    async def _admit(self, request: Request, request_id: str, served: Served) -> Asked:
        headers = request.headers
        if request.method == "POST":
            _require_form_encoding(headers)
            pairs = pairs_of(await request.body())
        else:
            pairs = pairs_of(request.scope["query_string"])
        form = Form.parse(pairs)
        key = _api_key(headers, form)
        public = key.startswith(_PUBLISHABLE)
        if public:
            if not served.open_to_clients:
                raise errors.secret_key_required()
            key = "sk_test_" + key.removeprefix(_PUBLISHABLE)
        account = self._fake.books.account(key, headers.get("stripe-account", ""))
        if self._fake.limiter:
            self._fake.limiter.admit(account.name, served.name)
        rule = self._strike(request, account, form) if self._fake.plan else None
        if rule is not None and rule.fault is Fault.TOO_MANY:
            raise errors.too_many_requests("global-rate")
        return Asked(request, request_id, account, pairs, form, rule, public)

    def _strike(self, request: Request, account: Account, form: Form) -> Rule | None:
        def metadata() -> Mapping[str, str]:
            named = request.path_params.get("id") or form.text("payment_intent") or form.text("charge")
            found = account.subject(named)
            return {**(account.metadata_of(found) if found else {}), **form.metadata()}

        return self._fake.plan.strike(request.method, request.url.path, metadata)

    async def _read(self, asked: Asked, endpoint: Endpoint) -> Reply:
        await _before(asked)
        if asked.rule is not None and asked.rule.fault in {Fault.ERROR, Fault.ERROR_AFTER}:
            raise errors.internal()
        call = self._call(asked)
        done = endpoint(call)
        self._fake.books.record(asked.account, done.change, None, at=call.now, request_id=asked.request_id)
        reply = Reply(200, orjson.dumps(done.body))
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
        path = asked.request.scope["path"]  # `url` is taken apart anew for every request
        ask = Ask(key, path, fingerprint(path, asked.pairs))
        stored = asked.account.keys.begin(ask, self._fake.now())
        if stored is not None:
            await _before(asked)
            await _after(asked)
            return Reply(stored.status, stored.body, stored.request_id, should_retry=_retry_advice(stored.status))
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
        answer = Stored(ask, reply.status, asked.request_id, call.now, reply.body) if ask else None
        self._fake.books.record(asked.account, change, answer, at=call.now, request_id=asked.request_id)
        return reply

    def _call(self, asked: Asked) -> Call:
        headers = asked.request.headers
        return Call(
            account=asked.account,
            object_id=asked.request.path_params.get("id", ""),
            form=asked.form,
            now=self._fake.now(),
            version=headers.get("stripe-version", DEFAULT_VERSION),
            base=f"{asked.request.scope['scheme']}://{headers.get('host', '')}",
            public=asked.public,
        )


_INTENTS, _DISPUTES, _ENDPOINTS = "/v1/payment_intents", "/v1/disputes", "/v1/webhook_endpoints"
SERVED = (
    Served("GET", _INTENTS + "/search", account.refuse_search),
    Served("GET", "/v1/charges/search", account.refuse_search),
    Served("POST", _INTENTS, payment_intents.create_intent),
    Served("POST", _INTENTS + "/{id}/confirm", payment_intents.confirm_intent, open_to_clients=True),
    Served("POST", _INTENTS + "/{id}/capture", payment_intents.capture_intent),
    Served("POST", _INTENTS + "/{id}/cancel", payment_intents.cancel_intent),
    Served("POST", _INTENTS + "/{id}", payment_intents.update_intent),
    Served("GET", _INTENTS, payment_intents.list_intents),
    Served("GET", _INTENTS + "/{id}", payment_intents.retrieve_intent, open_to_clients=True),
    Served("POST", "/v1/charges/{id}", payment_intents.update_charge),
    Served("GET", "/v1/charges", payment_intents.list_charges),
    Served("GET", "/v1/charges/{id}", payment_intents.retrieve_charge),
    Served("POST", "/v1/refunds", refunds.create_refund),
    Served("POST", "/v1/refunds/{id}/cancel", refunds.cancel_refund),
    Served("POST", "/v1/refunds/{id}", refunds.update_refund),
    Served("GET", "/v1/refunds", refunds.list_refunds),
    Served("GET", "/v1/refunds/{id}", refunds.retrieve_refund),
    Served("POST", _DISPUTES + "/{id}", disputes.update_dispute),
    Served("POST", _DISPUTES + "/{id}/close", disputes.close_dispute),
    Served("GET", _DISPUTES, disputes.list_disputes),
    Served("GET", _DISPUTES + "/{id}", disputes.retrieve_dispute),
    Served("GET", "/v1/balance", account.retrieve_balance),
    Served("GET", "/v1/balance_transactions", account.list_transactions),
    Served("GET", "/v1/balance_transactions/{id}", account.retrieve_transaction),
    Served("GET", "/v1/events", account.list_events),
    Served("GET", "/v1/events/{id}", account.retrieve_event),
    Served("GET", "/v1/account", account.retrieve_account),
    Served("POST", _ENDPOINTS, account.create_endpoint),
    Served("POST", _ENDPOINTS + "/{id}", account.update_endpoint),
    Served("DELETE", _ENDPOINTS + "/{id}", account.delete_endpoint),
    Served("GET", _ENDPOINTS, account.list_endpoints),
    Served("GET", _ENDPOINTS + "/{id}", account.retrieve_endpoint),
)
"""Everything of Stripe's that is served."""


def application(fake: Fake) -> Starlette:
    """Return the ASGI application: Stripe's paths under /v1, the page of a challenge, ours under /_control."""
    api = Api(fake)

    def route(served: Served) -> Route:
        async def serve(request: Request) -> Response:
            return await api.answer(request, served)

        return Route(served.path, serve, methods=[served.method])

    async def unknown(request: Request) -> Response:
        reply = _refusal(errors.unknown_path(request.method, request.url.path))
        return _respond(request, f"req_{token_hex(7)}", reply)

    return Starlette(
        routes=[
            *(route(served) for served in SERVED),
            *page.routes(fake),
            *connect.routes(fake),
            *control.routes(fake),
            Route("/{path:path}", unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
    )


def _api_key(headers: Mapping[str, str], form: Form) -> str:
    """Return the key a request came with; Stripe.js sends its publishable one as a parameter."""
    authorization = headers.get("authorization")
    if authorization is None and (key := form.text("key") or "").startswith(_PUBLISHABLE):
        return key
    scheme, _, credential = (authorization or "").partition(" ")
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
    if not credential.startswith((*_KEY_PREFIXES, _PUBLISHABLE)):
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
    return Reply(error.status, orjson.dumps(error.body()), should_retry=should_retry, headers=error.headers)


def _retry_advice(status: int) -> bool | None:
    return False if status == errors.CARD_ERROR or status >= errors.INTERNAL else None


def _respond(request: Request, request_id: str, reply: Reply) -> Response:
    asked = request.headers
    headers = {
        "access-control-allow-origin": "*",
        "request-id": request_id,
        "stripe-version": asked.get("stripe-version", DEFAULT_VERSION),
        **reply.headers,
    }
    if key := asked.get("idempotency-key"):
        headers["idempotency-key"] = key
        headers["original-request"] = reply.replay_of or request_id
    if reply.replay_of is not None:
        headers["idempotent-replayed"] = "true"
    if reply.should_retry is not None:
        headers["stripe-should-retry"] = "true" if reply.should_retry else "false"
    return Response(reply.body, reply.status, headers, media_type="application/json")
