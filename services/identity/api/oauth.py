"""The token endpoint (RFC 6749), and where to find it and its keys (RFC 8414, RFC 7517)."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import parse_qs, unquote_plus
from uuid import UUID

import orjson
import structlog
from fastapi import Response
from pydantic import BaseModel

from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR, PLATFORM_READER, ROLES, SHOPPER
from libs.common.clock import PLATFORM, now
from libs.common.contracts.external import CANONICAL_UUID
from libs.common.database import TRANSIENT
from libs.common.errors import CartwrightError, RejectedError, UnauthenticatedError, UnavailableError
from libs.common.http.rates import RateLimitedError
from libs.common.http.refusals import note, refused
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers, public, reply
from libs.common.json_text import is_keepable
from libs.common.telemetry.security import Refused
from services.identity import repository
from services.identity.api import kept, member_tokens
from services.identity.api.credentials import Claimed, Found, look_up, note_use
from services.identity.api.issuer import Issuer, TokenAnswer
from services.identity.domain import access
from services.identity.domain.client import Client
from services.identity.domain.session import Refreshed
from services.identity.domain.tenant import ADMITTING
from services.identity.handlers import RefreshSession

ROUTES = Routes(Facing.CUSTOMERS)
MAX_FORM_BYTES = 16_384
MAX_FIELDS = 32
FORM = "application/x-www-form-urlencoded"
GRANTS = ("client_credentials", "refresh_token", "authorization_code")
UNCACHED = {"Cache-Control": "no-store", "Pragma": "no-cache"}

log = structlog.get_logger(__name__)


class Form:
    """The fields of a request. Only `resource` may stand more than once."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        repeated = sorted(name for name, values in fields.items() if len(values) > 1 and name != "resource")
        if repeated:
            raise RejectedError("invalid-request", f"given more than once: {' '.join(repeated)}")
        if not all(is_keepable(text) for name, values in fields.items() for text in (name, *values)):
            raise RejectedError("invalid-request", "a field holds U+0000")
        self.resources = fields.get("resource", [])
        self._fields = fields

    def get(self, name: str) -> str | None:
        """One field; sent without a value, it counts as left out."""
        return self._fields.get(name, [""])[0] or None

    def demand(self, name: str) -> str:
        """One field that must be there."""
        value = self.get(name)
        if value is None:
            raise RejectedError("invalid-request", f"{name} is missing")
        return value


async def form_of(call: Call) -> Form:
    """The body, read up to a limit. Anybody at all may send one."""
    if call.request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise RejectedError("invalid-request", f"send {FORM}")
    body = bytearray()
    async for chunk in call.request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise RejectedError("invalid-request", f"a form may have {MAX_FORM_BYTES} bytes")
    try:
        return Form(parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise RejectedError("invalid-request", "the form cannot be read") from error


def _credentials(call: Call, form: Form) -> tuple[str, str]:
    """Who the caller claims to be, and the proof: by HTTP Basic or in the form, not both."""
    scheme, _, encoded = call.request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return form.get("client_id") or "", form.get("client_secret") or ""
    if form.get("client_secret") is not None:
        raise RejectedError("invalid-request", "prove who you are in one way only")
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise unknown_client()
    if form.get("client_id") not in {None, unquote_plus(client_id)}:
        raise RejectedError("invalid-request", "two different client ids")
    return unquote_plus(client_id), unquote_plus(secret)


class _LoginError(CartwrightError):
    """Somebody proved nothing; for the log, how and whose name was used."""

    def __init__(self, told: CartwrightError, reason: str, tenant_id: UUID | None = None, **known: str) -> None:
        super().__init__(told.code, told.detail)
        self.told = told
        self.reason = reason
        self.tenant_id = tenant_id
        self.known = known


def unknown_client(reason: str = "unreadable", tenant_id: UUID | None = None, client_id: str = "") -> _LoginError:
    """One answer whatever is wrong. An id is only written down if it can be one of ours."""
    told = UnauthenticatedError("invalid-client", "no such client, or not its secret")
    return _LoginError(told, reason, tenant_id, client_id=client_id)


async def authenticate(call: Call, form: Form) -> Client:
    """The client, or the API key as a client, if it proves to be one and its tenant lets it in."""
    return (await _proven(call, Claimed.of(*_credentials(call, form)))).client


async def _proven(call: Call, claimed: Claimed | None) -> Found:
    """Whoever was claimed, if that is so. An API key never stands in a log: the part that it is known by does."""
    if claimed is None:
        raise unknown_client("not-a-client")
    tenant_id, client_id = claimed.tenant_id, claimed.client_id
    rates, address = call.service.rates, call.address
    rates.demand_not_made_up(client_id, address)
    rates.demand_may_guess(client_id, address)
    found = await look_up(call.shell.database, claimed, now())
    if found is None:
        rates.missed(address)
        raise unknown_client("unknown-client", tenant_id, client_id)
    rates.found(client_id)
    rates.guessed(client_id, address, right=found.is_right)
    if not found.is_right:
        raise unknown_client("wrong-secret", tenant_id, client_id)
    if not found.is_admitted:
        raise unknown_client("tenant-not-admitted", tenant_id, client_id)
    return found


async def _client_credentials(call: Call, form: Form) -> TokenAnswer:
    claimed, issuer = Claimed.of(*_credentials(call, form)), call.service.shared(Issuer)
    known_ms = issuer.raised.latest(claimed.tenant_id, claimed.client_id) if claimed else 0
    found = await _proven(call, claimed)
    client = found.client
    whole = await _whole(call, client, form.get("tenant_id"))
    permissions, audience = access.narrow(whole.permissions, whole.audience, scope=form.get("scope"), resources=form.resources)
    grant = replace(whole, permissions=permissions, audience=audience)
    answer = await issuer.answer(grant, scope=grant.scope, known_ms=known_ms)
    await note_use(call.shell.database, found.row, now())
    return answer


async def _whole(call: Call, client: Client, wanted: str | None) -> access.Grant:
    """All that a client may be granted; the platform's, that names a tenant, what it takes to look at that one."""
    if wanted is None:
        kind = (access.of_operator, PLATFORM_OPERATOR) if client.tenant_id == PLATFORM else (access.of_client, CLIENT)
        return kind[0](client, kind[1], ROLES[kind[1]])
    tenant_id = UUID(wanted) if CANONICAL_UUID.fullmatch(wanted) else PLATFORM
    async with call.shell.database.transaction([tenant_id]) as connection:
        status = await repository.status_of(connection, tenant_id)
    if client.tenant_id != PLATFORM or status not in ADMITTING:
        raise RejectedError("invalid-target", "tenant_id names no tenant that you may look at")
    log.info("token.for_looking", client_id=client.id, tenant_id=wanted)
    return access.of_reader(client, PLATFORM_READER, ROLES[PLATFORM_READER], tenant_id)


async def _refresh_token(call: Call, form: Form) -> TokenAnswer | Response:
    """Shoppers are a public client, and so are the applications of members: the token itself is the proof, and works once."""
    client_id, where = form.get("client_id"), form.get("refresh_token_in")
    if where not in {None, *get_args(kept.Kept)}:
        raise RejectedError("invalid-request", f"refresh_token_in is one of {', '.join(get_args(kept.Kept))}")
    if client_id in {None, access.SHOPPER_CLIENT}:
        return await (_kept(call, form) if where == kept.COOKIE else _refreshed(call, form, form.demand("refresh_token")))
    if where == kept.COOKIE:
        raise RejectedError("invalid-request", "a cookie is for shoppers' sessions")
    return await member_tokens.refreshed(call, str(client_id), form.demand("refresh_token"))


async def _kept(call: Call, form: Form) -> Response:
    """The same of the token in the browser's cookie, and the next one put there; a given one is put there instead."""
    kept.demand_page_here(call)
    said = form.demand("tenant_id")
    tenant_id = UUID(said) if CANONICAL_UUID.fullmatch(said) else PLATFORM
    token = form.get("refresh_token") or kept.read(call, tenant_id)
    if token is None:
        raise RejectedError("invalid-grant", "the browser keeps no session of this shop; begin a new one")
    return kept.put(call, 200, await _refreshed(call, form, token, tenant_id), tenant_id)


async def _refreshed(call: Call, form: Form, token: str, tenant_id: UUID | None = None) -> TokenAnswer:
    """Of this tenant's session alone, if one is named."""
    # What is wrong with the request must be said before the token is used up.
    permissions, audience = access.narrow(ROLES[SHOPPER], access.AUDIENCES, scope=form.get("scope"), resources=form.resources)
    issuer = call.service.shared(Issuer)
    presented = issuer.refresh_tokens.read(token)
    if presented is None or tenant_id not in {None, presented.tenant_id}:
        raise _refused_refresh("made-up-refresh-token")
    call.concerns = presented.tenant_id
    call.service.rates.subject("refresh", presented.session_id)
    known_ms = issuer.raised.latest(presented.tenant_id, access.SHOPPER_CLIENT)
    successor = issuer.refresh_tokens.successor(presented)
    command = RefreshSession(session_id=presented.session_id, presented=presented.digest, successor=successor.digest)
    session, came_to = await call.execute(command, tenant_id=presented.tenant_id)
    if came_to is Refreshed.REUSED:
        log.warning("session.ended_by_reuse", session_id=str(presented.session_id), tenant_id=str(presented.tenant_id))
    if came_to not in {Refreshed.ROTATED, Refreshed.REPEATED}:
        subject = {"subject": str(session.subject_id)} if session is not None else {}
        raise _refused_refresh(f"refresh-token-{came_to}", presented.tenant_id, **subject)
    grant = access.of_session(session, SHOPPER, permissions, audience)
    return await issuer.answer(grant, scope=grant.scope, refresh_token=successor, known_ms=known_ms)


def _refused_refresh(reason: str, tenant_id: UUID | None = None, **known: str) -> _LoginError:
    told = RejectedError("invalid-grant", "this refresh token is unknown, used or over; begin a new session")
    return _LoginError(told, reason, tenant_id, client_id=access.SHOPPER_CLIENT, **known)


async def _grant(call: Call, form: Form) -> TokenAnswer | Response:
    kind = form.demand("grant_type")
    if kind == "client_credentials":
        return await _client_credentials(call, form)
    if kind == "refresh_token":
        return await _refresh_token(call, form)
    if kind == "authorization_code":
        names = ("client_id", "code", "redirect_uri", "code_verifier")
        return await member_tokens.redeemed(call, *(form.demand(name) for name in names))
    raise RejectedError("unsupported-grant-type", f"grant_type is one of {', '.join(GRANTS)}")


def _oauth_error(error: CartwrightError) -> Response:
    """A refusal as RFC 6749 §5.2 has it."""
    headers = dict(UNCACHED)
    status, code = 400, error.code.replace("-", "_")
    if isinstance(error, UnauthenticatedError):
        status = 401
        headers["WWW-Authenticate"] = 'Basic realm="cartwright"'
    elif isinstance(error, UnavailableError):
        status, code = 503, "temporarily_unavailable"
        headers["Retry-After"] = "1"
    body = orjson.dumps({"error": code, "error_description": error.detail})
    return Response(body, status_code=status, headers=headers, media_type="application/json")


async def answered(call: Call, route: str, work: Callable[[Call, Form], Awaitable[BaseModel | Response | None]]) -> Response:
    """What comes of a form, or why nothing does, as RFC 6749 has it."""
    try:
        answer = await work(call, await form_of(call))
    except _LoginError as error:
        refused(Refused.LOGIN, error.reason, call.request.scope, route, tenant_id=error.tenant_id, **error.known)
        return _oauth_error(error.told)
    except RateLimitedError:
        raise  # as everywhere: RFC 6749 has no word for it
    except CartwrightError as error:
        note(error, call.request.scope, route, None)
        return _oauth_error(error)
    except TRANSIENT as error:
        log.warning("token.dependency_away", error=f"{type(error).__name__}: {error}")
        return _oauth_error(UnavailableError("dependency-unavailable", "something this needs does not answer; try again shortly"))
    return answer if isinstance(answer, Response) else reply(200, answer, **UNCACHED)


class OAuthErrorModel(BaseModel):
    """A refusal as RFC 6749 §5.2 has it."""

    error: str
    error_description: str


REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthErrorModel, "description": "Not granted"},
    401: {"model": OAuthErrorModel, "description": "Not the client's secret"},
    503: {"model": OAuthErrorModel, "description": "Temporarily unavailable"},
}
BY_CLIENT: list[dict[str, list[str]]] = [{}, {"client": []}]
"""A client proves itself by HTTP Basic or in the form; the public one of shoppers has nothing to prove itself with."""
_FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"type": "string", "enum": list(GRANTS)},
        "client_id": {"type": "string"},
        "client_secret": {"type": "string"},
        "refresh_token": {"type": "string"},
        "code": {"type": "string"},
        "redirect_uri": {"type": "string"},
        "code_verifier": {"type": "string"},
        "scope": {"type": "string"},
        "refresh_token_in": {
            "type": "string",
            "enum": list(get_args(kept.Kept)),
            "default": "answer",
            "description": "`cookie`: the browser keeps a shopper's, of `tenant_id`, where no script reads it; that one is taken",
        },
        "tenant_id": {
            "type": "string",
            "format": "uuid",
            "description": "The shop of a cookie; or whom a platform operator looks at",
        },
        "resource": {"type": "array", "items": {"type": "string", "enum": list(access.AUDIENCES)}},
    },
}


@ROUTES.post(
    "/oauth/token",
    response_model=TokenAnswer,
    responses=REFUSED,
    openapi_extra={"security": BY_CLIENT, "requestBody": {"required": True, "content": {FORM: {"schema": _FORM_SCHEMA}}}},
)
@for_strangers
async def issue_token(call: Caller) -> Response:
    """Give an access token for a client's secret, a member's authorization code or a refresh token."""
    return await answered(call, "/oauth/token", _grant)


@ROUTES.get("/.well-known/jwks.json", response_model=dict[str, Any])
@public
async def read_jwks(call: Caller) -> Response:
    """The public keys of access tokens."""
    ring = call.service.shared(Issuer).ring
    body = orjson.dumps({"keys": await ring.jwks()})
    return Response(body, headers={"Cache-Control": f"max-age={ring.cached_seconds}"}, media_type="application/json")


@ROUTES.get("/.well-known/oauth-authorization-server", response_model=dict[str, Any])
@public
async def read_metadata(call: Caller) -> Response:
    """What this authorization server can do (RFC 8414)."""
    address = call.service.shared(Issuer).address
    metadata = {
        "issuer": address,
        "token_endpoint": f"{address}/oauth/token",
        "jwks_uri": f"{address}/.well-known/jwks.json",
        "scopes_supported": sorted(PERMISSIONS),
        "response_types_supported": ["code"],
        "grant_types_supported": list(GRANTS),
        "authorization_endpoint": f"{address}/oauth/authorize",
        "authorization_response_iss_parameter_supported": True,
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "revocation_endpoint": f"{address}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "introspection_endpoint": f"{address}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }
    return Response(orjson.dumps(metadata), headers={"Cache-Control": "max-age=300"}, media_type="application/json")
