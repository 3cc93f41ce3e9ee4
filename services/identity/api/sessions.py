"""Shoppers' sessions: begun by a tenant's own machine for a shopper it knows, or by anybody as a guest."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import ROLES, SHOPPER, Principal, bearer
from libs.common.clock import new_id
from libs.common.errors import NotFoundError, RejectedError
from libs.common.http.refusals import refused
from libs.common.http.routes import Call, Caller, Routes, for_strangers, reply
from libs.common.telemetry.security import Refused
from services.identity import handlers
from services.identity.api.issuer import Issuer, TokenAnswer
from services.identity.domain import access
from services.identity.domain.session import subject_of

ROUTES = Routes()


class NewSession(BaseModel):
    """Who comes in: a guest of `tenant_id`, or the shopper whom a client's tenant calls `shopper_ref`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant_id: UUID | None = None
    shopper_ref: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    guest: bool = False


async def _client(call: Caller) -> Principal | None:
    """The client that speaks for a shopper; None when nobody does."""
    authorization = call.request.headers.get("authorization")
    if authorization is None:
        return None
    principal = await call.service.verifier.verify(bearer(authorization))
    principal.demand("sessions:issue")
    return principal


def _shopper(principal: Principal | None, body: NewSession) -> tuple[UUID, UUID, bool]:
    """The tenant, the subject, and whether it is a guest."""
    if principal is None:
        if body.tenant_id is None or body.shopper_ref is not None:
            raise RejectedError("guest-session", "without a token, send tenant_id and nothing else")
        return body.tenant_id, new_id(), True
    if body.shopper_ref is None or body.tenant_id is not None:
        raise RejectedError("shopper-session", "with a client's token, send shopper_ref; the token says the tenant")
    return principal.tenant_id, subject_of(principal.tenant_id, body.shopper_ref), body.guest


async def _start(call: Call, principal: Principal | None, body: NewSession) -> Response:
    tenant_id, subject_id, is_guest = _shopper(principal, body)
    rates = call.service.rates
    rates.demand_not_made_up(tenant_id, call.address)
    issuer, session_id = call.service.shared(Issuer), new_id()
    refresh_token = issuer.refresh_tokens.issue(tenant_id, session_id)
    command = handlers.StartSession(session_id=session_id, subject_id=subject_id, is_guest=is_guest, digest=refresh_token.digest)
    try:
        session = await call.execute(command, tenant_id=tenant_id)
    except NotFoundError:
        rates.missed(call.address)
        refused(Refused.LOGIN, "no-such-tenant", call.request.scope, "/v1/sessions", tenant_id=tenant_id)
        raise
    rates.found(tenant_id)
    grant = access.of_session(session, SHOPPER, ROLES[SHOPPER])
    answer = await issuer.answer(grant, refresh_token=refresh_token, subject_id=str(subject_id))
    return reply(201, answer, Cache_Control="no-store")


@ROUTES.post(
    "/v1/sessions",
    status_code=201,
    response_model=TokenAnswer,
    openapi_extra={"security": [{}, {"bearer": ["sessions:issue"]}]},
)
@for_strangers
async def start_session(call: Caller, principal: Annotated[Principal | None, Depends(_client)], body: NewSession) -> Response:
    """Let a shopper in."""
    return await _start(call, principal, body)
