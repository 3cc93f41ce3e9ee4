"""HTTP in: a tenant proves that an account, which the platform's key is to act for, is its own (Stripe Connect's OAuth)."""

from typing import Annotated

import structlog
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import now, rfc3339
from libs.common.errors import NotFoundError, UnavailableError
from libs.common.http.asking import origin_of
from libs.common.http.members import Moment
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.messaging.audit import Act, append
from services.payments.domain.provider.account import AccountNotProvenError, SeenAccount
from services.payments.domain.provider.connection import LIFETIME, digest_of, new_state
from services.payments.domain.provider.outcome import Rejected
from services.payments.gateway.accounts import Access
from services.payments.repository.provider import connections

ROUTES = Routes(Facing.CUSTOMERS)
NO_STORE = {"Cache_Control": "no-store"}

log = structlog.get_logger(__name__)


class BegunModel(BaseModel):
    """Where the account's owner says yes, and what comes back from there."""

    authorize_url: str
    state: str
    expires_at: Moment


class CodeRequest(BaseModel):
    """What the provider handed back beside the state."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    code: Annotated[str, Field(pattern="^ac_[A-Za-z0-9_]{8,250}$", examples=["ac_1234567890"])]


class ConnectedModel(BaseModel):
    """The account that is now known to be the tenant's."""

    account: str


async def _begun_by_caller(call: Call) -> None:
    """Raise NotFoundError unless this caller began the connection that the path names, and may still complete it."""
    async with call.transaction() as connection:
        digest = digest_of(str(call.request.path_params["state"]))
        if not await connections.is_open(connection, call.tenant_id, digest, call.principal.subject):
            raise _absent()


def _absent() -> NotFoundError:
    return NotFoundError("connection-not-found", "you have begun no such connection, or its time is over, or it was used")


@ROUTES.post("/v1/provider-accounts/stripe/connections", response_model=BegunModel, status_code=201)
@guard("provider-accounts:write")
async def begin_connection(call: Caller) -> Response:
    """Begin to prove whose an account is. The state is this caller's, for ten minutes and one use."""
    state, expires_at = new_state(), now() + LIFETIME
    url = call.service.shared(Access).gateways.authorize_url(state)
    async with call.writing() as connection:
        await connections.begin(connection, call.tenant_id, digest_of(state), call.principal.subject, LIFETIME)
    return reply(201, BegunModel(authorize_url=url, state=state, expires_at=rfc3339(expires_at)), **NO_STORE)


@ROUTES.post("/v1/provider-accounts/stripe/connections/{state}", response_model=ConnectedModel)
@guard("provider-accounts:write", sees=_begun_by_caller)
async def complete_connection(call: Caller, state: str, given: CodeRequest) -> Response:
    """Have the provider say whose account it is, once; then the account may be given."""
    async with call.writing() as connection:
        if not await connections.use(connection, call.tenant_id, digest_of(state), call.principal.subject):
            raise _absent()
    seen = await call.service.shared(Access).gateways.exchange(given.code)
    if isinstance(seen, Rejected):
        raise AccountNotProvenError
    if not isinstance(seen, SeenAccount) or seen.provider_id is None:
        raise UnavailableError("provider-unavailable", "the provider does not say whose account it is: begin another connection")
    async with call.writing() as connection:
        await connections.prove(connection, call.tenant_id, digest_of(state), seen.provider_id)
        await append(connection, [_proven(call, seen.provider_id)])
    log.info(
        "provider_account.connected",
        tenant_id=str(call.tenant_id),
        account=seen.provider_id,
        actor=str(call.principal.subject),
    )
    return reply(200, ConnectedModel(account=seen.provider_id), **NO_STORE)


def _proven(call: Call, account: str) -> Act:
    """For the audit trail: no command stores this."""
    origin = origin_of(call.principal, call.request.scope, call.request_id)
    return Act(tenant_id=call.tenant_id, origin=origin, action="prove-account", kind="provider-account", object_id=account)
