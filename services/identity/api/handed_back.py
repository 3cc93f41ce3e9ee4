"""Tokens that are handed back (RFC 7009), and what others' gateways may ask of one (RFC 7662). Our services ask nobody.

Neither tells what is unknown from what is somebody else's.
"""

from typing import Any
from uuid import UUID

import jwt
from fastapi import Response
from pydantic import BaseModel

from libs.common.auth import InvalidTokenError, Principal, Verifier
from libs.common.clock import PLATFORM, now
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers
from services.identity import repository
from services.identity.api.issuer import Issuer
from services.identity.api.oauth import BY_CLIENT, FORM, REFUSED, Form, answered, authenticate, unknown_client
from services.identity.api.tokens import RefreshToken
from services.identity.domain import access
from services.identity.domain.client import Client
from services.identity.handlers import RevokeSession, RevokeToken

ROUTES = Routes(Facing.CUSTOMERS)
TOKEN_FIELDS: dict[str, Any] = {
    "type": "object",
    "required": ["token"],
    "properties": {
        "token": {"type": "string"},
        "token_type_hint": {"type": "string"},
        "client_id": {"type": "string"},
        "client_secret": {"type": "string"},
    },
}
IN_A_FORM = {"security": BY_CLIENT, "requestBody": {"required": True, "content": {FORM: {"schema": TOKEN_FIELDS}}}}


class Introspection(BaseModel):
    """What there is to say of a token (RFC 7662 §2.2). Of one that is not active, nothing."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    token_type: str | None = None
    sub: str | None = None
    iss: str | None = None
    aud: list[str] | None = None
    iat: int | None = None
    exp: int | None = None
    jti: str | None = None
    tid: str | None = None
    sid: str | None = None


INACTIVE = Introspection(active=False)


async def _read(call: Call, token: str) -> Principal | None:
    """Whose access token this is, whichever services it is for; None unless it is good."""
    ours = call.service.verifier
    verifier = Verifier(ours.keys, ours.revocations, issuer=call.service.shared(Issuer).address, audience=None)
    try:
        return await verifier.verify(token)
    except InvalidTokenError:
        return None


def _claims(token: str) -> dict[str, Any]:
    """What a token says that has just been verified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def _caller(call: Call, form: Form) -> Client | None:
    """The client that proves itself. None for the public one of shoppers, which has nothing to prove itself with."""
    proves = call.request.headers.get("authorization") is not None or form.get("client_secret") is not None
    if not proves and form.get("client_id") in {None, access.SHOPPER_CLIENT}:
        return None
    return await authenticate(call, form)


async def _revoke(call: Call, form: Form) -> None:
    token, client = form.demand("token"), await _caller(call, form)
    refresh = call.service.shared(Issuer).refresh_tokens.read(token)
    if refresh is not None:
        await _end_session(call, client, refresh.tenant_id, refresh.session_id)
        return
    principal = await _read(call, token)
    if principal is None:
        return
    if principal.session_id:
        await _end_session(call, client, principal.tenant_id, UUID(principal.session_id))
    elif client is None:
        raise unknown_client("machine-token-without-proof")
    elif (client.tenant_id, client.id) == (principal.tenant_id, principal.client_id):
        await call.execute(RevokeToken(token_id=_claims(token)["jti"]), tenant_id=client.tenant_id)


async def _end_session(call: Call, client: Client | None, tenant_id: UUID, session_id: UUID) -> None:
    """Whoever has a token of a session may end it; a client of another tenant has no business with it."""
    if client is None or client.tenant_id == tenant_id:
        await call.execute(RevokeSession(session_id=session_id), tenant_id=tenant_id)


async def _introspect(call: Call, form: Form) -> Introspection:
    client, token = await authenticate(call, form), form.demand("token")
    refresh = call.service.shared(Issuer).refresh_tokens.read(token)
    if refresh is not None:
        return await _told_of_refresh(call, client, refresh)
    principal = await _read(call, token)
    if principal is None or principal.tenant_id != client.tenant_id:
        return INACTIVE
    claims = _claims(token)
    named = {name: claims.get(name) for name in Introspection.model_fields if name in claims}
    return Introspection(**{**named, "active": True, "token_type": "Bearer", "scope": " ".join(sorted(principal.permissions))})


async def _told_of_refresh(call: Call, client: Client, token: RefreshToken) -> Introspection:
    """Of the one that would be taken next."""
    if token.tenant_id != client.tenant_id or client.tenant_id == PLATFORM:
        return INACTIVE
    async with call.transaction(token.tenant_id) as connection:
        found = await repository.SESSIONS.load(connection, [(token.tenant_id, token.session_id)], lock=False)
    if not found or found[0].is_gone or found[0].digest != token.digest or found[0].expires_at <= now():
        return INACTIVE
    [session] = found
    return Introspection(
        active=True,
        client_id=session.client_id or access.SHOPPER_CLIENT,
        sub=str(session.subject_id),
        iss=call.service.shared(Issuer).address,
        exp=int(session.expires_at.timestamp()),
        tid=str(session.tenant_id),
        sid=str(session.id),
    )


@ROUTES.post("/oauth/revoke", responses=REFUSED, openapi_extra=IN_A_FORM)
@for_strangers
async def revoke_token(call: Caller) -> Response:
    """Take a token back, with its session if it has one; whatever it is, the answer is the same."""
    return await answered(call, "/oauth/revoke", _revoke)


@ROUTES.post("/oauth/introspect", response_model=Introspection, responses=REFUSED, openapi_extra=IN_A_FORM)
@for_strangers
async def introspect_token(call: Caller) -> Response:
    """Whether a token of the client's own tenant is good, and for what."""
    return await answered(call, "/oauth/introspect", _introspect)
