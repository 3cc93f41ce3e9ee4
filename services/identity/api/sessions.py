"""Shoppers' sessions: begun by a tenant's own machine for a shopper it knows, or by anybody as a guest; listed and ended."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import ROLES, SHOPPER, Principal, bearer
from libs.common.clock import NIL, new_id, rfc3339
from libs.common.decision import absent
from libs.common.errors import NotFoundError, RejectedError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.refusals import refused
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers, public, reply
from libs.common.http.seeing import Sight, listed
from libs.common.telemetry.security import Refused
from services.identity import handlers, repository
from services.identity.api import kept
from services.identity.api.issuer import Issuer, TokenAnswer
from services.identity.domain import access
from services.identity.domain.session import Session, SessionState, subject_of

ROUTES = Routes(Facing.CUSTOMERS)
SESSION = Sight(repository.SESSIONS, "session_id")
STAFF = "sessions:issue"
"""Who may begin a shopper's session may look at it and end it."""


class NewSession(BaseModel):
    """Who comes in: a guest of `tenant_id`, or the shopper whom a client's tenant calls `shopper_ref`.

    With `guest_refresh_token` the shopper was a guest until now: the guest's session ends, and its carts are theirs to claim.
    For a page at this address `refresh_token_in: cookie` leaves a guest's refresh token to the browser, where no script reads it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant_id: UUID | None = None
    shopper_ref: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    guest: bool = False
    guest_refresh_token: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    refresh_token_in: kept.Kept = kept.ANSWER


async def _client(call: Caller) -> Principal | None:
    """The client that speaks for a shopper; None when nobody does."""
    authorization = call.request.headers.get("authorization")
    if authorization is None:
        return None
    principal = await call.service.verifier.verify(bearer(authorization))
    principal.demand(STAFF)
    return principal


def _shopper(principal: Principal | None, body: NewSession) -> tuple[UUID, UUID, bool]:
    """The tenant, the subject, and whether it is a guest."""
    if principal is None:
        if body.tenant_id is None or body.shopper_ref is not None or body.guest_refresh_token is not None:
            raise RejectedError("guest-session", "without a token, send tenant_id and nothing else")
        return body.tenant_id, new_id(), True
    if body.shopper_ref is None or body.tenant_id is not None or body.refresh_token_in == kept.COOKIE:
        raise RejectedError("shopper-session", "with a client's token, send shopper_ref; the token says the tenant")
    return principal.tenant_id, subject_of(principal.tenant_id, body.shopper_ref), body.guest


def _taking_over(begun: handlers.StartSession, tenant_id: UUID, token: str, issuer: Issuer) -> handlers.TakeOver:
    """The same of somebody who was a guest. What is no token of ours names no session that there could be."""
    guest = issuer.refresh_tokens.read(token)
    if guest is not None and guest.tenant_id != tenant_id:
        guest = None
    return handlers.TakeOver(
        session_id=begun.session_id,
        subject_id=begun.subject_id,
        is_guest=begun.is_guest,
        digest=begun.digest,
        guest_session_id=guest.session_id if guest else NIL,
        presented=guest.digest if guest else "",
    )


async def _start(call: Call, principal: Principal | None, body: NewSession) -> Response:
    tenant_id, subject_id, is_guest = _shopper(principal, body)
    if body.refresh_token_in == kept.COOKIE:
        kept.demand_page_here(call)
    rates = call.service.rates
    rates.demand_not_made_up(tenant_id, call.address)
    issuer, session_id = call.service.shared(Issuer), new_id()
    refresh_token = issuer.refresh_tokens.issue(tenant_id, session_id)
    begun = handlers.StartSession(session_id=session_id, subject_id=subject_id, is_guest=is_guest, digest=refresh_token.digest)
    command = begun if body.guest_refresh_token is None else _taking_over(begun, tenant_id, body.guest_refresh_token, issuer)
    known_ms = issuer.raised.latest(tenant_id, access.SHOPPER_CLIENT)
    try:
        session = await call.execute(command, tenant_id=tenant_id)
    except NotFoundError:
        rates.missed(call.address)
        refused(Refused.LOGIN, "no-such-tenant", call.request.scope, "/v1/sessions", tenant_id=tenant_id)
        raise
    rates.found(tenant_id)
    grant = access.of_session(session, SHOPPER, ROLES[SHOPPER])
    answer = await issuer.answer(grant, refresh_token=refresh_token, subject_id=str(subject_id), known_ms=known_ms)
    if body.refresh_token_in == kept.COOKIE:
        return kept.put(call, 201, answer, tenant_id)
    return reply(201, answer, Cache_Control="no-store")


@ROUTES.post(
    "/v1/sessions",
    status_code=201,
    response_model=TokenAnswer,
    openapi_extra={"security": [{}, {"bearer": [STAFF]}]},
)
@for_strangers
async def start_session(call: Caller, principal: Annotated[Principal | None, Depends(_client)], body: NewSession) -> Response:
    """Let a shopper in."""
    return await _start(call, principal, body)


class SessionModel(BaseModel):
    """A session, as whoever has it may see it, and staff."""

    session_id: UUID
    subject_id: UUID
    guest: bool
    began_at: Moment
    refreshed_at: Moment
    refresh_count: int
    expires_at: Moment


def session_model(session: Session) -> SessionModel:
    """A session for an answer."""
    return SessionModel(
        session_id=session.id,
        subject_id=session.subject_id,
        guest=session.is_guest,
        began_at=rfc3339(session.began_at),
        refreshed_at=rfc3339(session.rotated_at),
        refresh_count=session.refresh_count,
        expires_at=rfc3339(session.expires_at),
    )


async def _somebody(call: Caller) -> Principal:
    """Whoever has a valid token: what is one's own takes no permission."""
    await call.authenticate()
    return call.principal


async def _owner_or_staff(call: Caller) -> Principal:
    """A shopper, who sees their own, or staff that may begin sessions."""
    principal = await _somebody(call)
    if not principal.is_shopper:
        principal.demand(STAFF)
    return principal


Somebody = Annotated[Principal, Depends(_somebody)]
OwnerOrStaff = Annotated[Principal, Depends(_owner_or_staff)]
OWN = {"security": [{"bearer": list[str]()}]}


def _current(principal: Principal) -> UUID:
    """The session of the token. Raises NotFoundError: a machine has none."""
    try:
        return UUID(principal.session_id)
    except ValueError as error:
        raise absent(Session) from error


@ROUTES.get("/v1/sessions/current", response_model=SessionModel, openapi_extra=OWN)
@public
async def read_current_session(call: Caller, principal: Somebody) -> Response:
    """The session that one's token is of."""
    return reply(200, session_model(await SESSION.of(call, _current(principal))))


@ROUTES.delete("/v1/sessions/current", status_code=204, openapi_extra=OWN)
@public
async def end_current_session(call: Caller, principal: Somebody) -> Response:
    """Log out: no token of the session is good any more, here at once and everywhere within seconds."""
    await call.execute(handlers.EndSession(session_id=_current(principal), viewer=call.viewer))
    return reply(204, None)


@ROUTES.get("/v1/sessions", response_model=Page[SessionModel], openapi_extra=OWN)
@public
async def list_sessions(
    call: Caller, principal: OwnerOrStaff, subject_id: UUID | None = None, limit: Limit = 50, cursor: str | None = None
) -> Response:
    """One's own sessions that have not ended; for staff with `sessions:issue`, those of a shopper, or of all."""
    if principal.is_shopper and subject_id not in {None, principal.subject}:
        raise absent(Session)
    where = {"state": SessionState.LIVE, "subject_id": subject_id}
    return await listed(call, repository.SESSIONS, session_model, limit, cursor, where=where)


@ROUTES.delete("/v1/sessions/{session_id}", status_code=204, openapi_extra=OWN)
@public
async def end_session(call: Caller, _principal: OwnerOrStaff, session_id: UUID) -> Response:
    """End a session of one's own; for staff with `sessions:issue`, any shopper's."""
    await call.execute(handlers.EndSession(session_id=session_id, viewer=call.viewer))
    return reply(204, None)
