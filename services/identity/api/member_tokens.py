"""Members' tokens: for an authorization code, and for the refresh token of the session that it was taken for."""

import re
import secrets
from uuid import UUID

import structlog

from libs.common.auth import MEMBER
from libs.common.clock import new_id
from libs.common.errors import RejectedError, UnavailableError
from libs.common.http.refusals import refused
from libs.common.http.routes import Call
from libs.common.telemetry.security import Refused
from services.identity.api.issuer import Issuer, TokenAnswer
from services.identity.api.tokens import RefreshToken
from services.identity.domain import access
from services.identity.domain.client import tenant_of
from services.identity.domain.session import Refreshed, Session
from services.identity.domain.sign_in import Redeemed, digest_of
from services.identity.handlers import ReadStanding, RedeemCode, RefreshSession, Standing

CODE = re.compile(r"ac_([0-9a-f]{32})_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")
CODE_BYTES = 32
TRIES = 5
ROUTE = "/oauth/token"

log = structlog.get_logger(__name__)


def new_code(tenant_id: UUID, code_id: UUID) -> str:
    """An authorization code that names its row."""
    return f"ac_{tenant_id.hex}_{code_id.hex}_{secrets.token_urlsafe(CODE_BYTES)}"


async def redeemed(call: Call, client_id: str, code: str, redirect_uri: str, verifier: str) -> TokenAnswer:
    """Tokens for a code. Raises RejectedError, in the same words whatever is wrong with it."""
    match = CODE.fullmatch(code)
    tenant_id = tenant_of(client_id)
    if match is None or tenant_id is None or tenant_id != UUID(hex=match[1]):
        raise _refusal(call, "made-up-code", tenant_id, client_id)
    session_id = new_id()
    refresh_token = call.service.shared(Issuer).refresh_tokens.issue(tenant_id, session_id)
    command = RedeemCode(
        code_id=UUID(hex=match[2]),
        presented=digest_of(code),
        client_id=client_id,
        redirect_uri=redirect_uri,
        verifier=verifier,
        session_id=session_id,
        refresh_digest=refresh_token.digest,
    )
    session, came_to = await call.execute(command, tenant_id=tenant_id)
    if session is None or came_to is not Redeemed.TAKEN:
        raise _refusal(call, f"code-{came_to}", tenant_id, client_id)
    return await _answer(call, session, client_id, refresh_token)


async def refreshed(call: Call, client_id: str, refresh_token: str) -> TokenAnswer:
    """Tokens for a member's refresh token, of what they may by now. Raises RejectedError, in the same words whatever is wrong."""
    tokens = call.service.shared(Issuer).refresh_tokens
    presented = tokens.read(refresh_token)
    if presented is None or presented.tenant_id != tenant_of(client_id):
        raise _refusal(call, "made-up-refresh-token", None, client_id)
    call.service.rates.subject("refresh", presented.session_id)
    successor = tokens.successor(presented)
    command = RefreshSession(
        session_id=presented.session_id, presented=presented.digest, successor=successor.digest, client_id=client_id
    )
    session, came_to = await call.execute(command, tenant_id=presented.tenant_id)
    if came_to is Refreshed.REUSED:
        log.warning("session.ended_by_reuse", session_id=str(presented.session_id), tenant_id=str(presented.tenant_id))
    if session is None or came_to not in {Refreshed.ROTATED, Refreshed.REPEATED}:
        raise _refusal(call, f"refresh-token-{came_to}", presented.tenant_id, client_id)
    return await _answer(call, session, client_id, successor)


async def _answer(call: Call, session: Session, client_id: str, refresh_token: RefreshToken) -> TokenAnswer:
    """What a member may is looked up before and after: what was taken away in between must not be in a token made after it."""
    standing = await _standing(call, session, client_id)
    for _ in range(TRIES):
        if standing is None:
            raise _refusal(call, "no-member", session.tenant_id, client_id)
        grant = access.of_member(session, standing.client, MEMBER, standing.member.roles, standing.allowed)
        if not grant.permissions:
            raise RejectedError("invalid-scope", "nothing of what was asked for is this member's to do with this client")
        answer = await call.service.shared(Issuer).answer(
            grant, scope=grant.scope, refresh_token=refresh_token, subject_id=str(session.subject_id)
        )
        before, standing = standing, await _standing(call, session, client_id)
        if standing == before:
            return answer
    raise UnavailableError("contention", "what this member may changes all the time; try again", retry_after=1)


async def _standing(call: Call, session: Session, client_id: str) -> Standing | None:
    command = ReadStanding(member_id=session.subject_id, client_id=client_id)
    standing: Standing | None = await call.execute(command, tenant_id=session.tenant_id)
    return standing


def _refusal(call: Call, reason: str, tenant_id: UUID | None, client_id: str) -> RejectedError:
    refused(Refused.LOGIN, reason, call.request.scope, ROUTE, tenant_id=tenant_id, client_id=client_id)
    return RejectedError("invalid-grant", "this is unknown, used or over; sign in again")
