"""Invitations to a tenant's staff. A token leaves by the event alone, unless the stack writes to nobody."""

import unicodedata
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import new_id, now, rfc3339
from libs.common.contracts.external import NAMED, WRITTEN
from libs.common.errors import ConflictError, RejectedError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.refusals import refused
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers, guard, reply
from libs.common.http.seeing import Sight, listed
from libs.common.messaging.idempotency import Answer, Replayed
from libs.common.telemetry.security import Refused
from services.identity import handlers, repository
from services.identity.api.clients import granter_of, tenant_asked
from services.identity.api.desk import Desk
from services.identity.api.letters import named
from services.identity.api.members import MemberModel, RoleNames, member_model
from services.identity.domain.invitation import Invitation, InvitationState, is_live, not_valid
from services.identity.domain.member import Member, email_key

ROUTES = Routes(Facing.CUSTOMERS)
INVITATION = Sight(repository.INVITATIONS, "invitation_id")
PLACE = "/v1/invitations/accept"

Email = Annotated[
    str, Field(pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$", max_length=254, examples=["ada@shop.example"]), NAMED
]
_SAID = "As long as one likes: no kind of sign is asked for"
Password = Annotated[str, Field(min_length=12, max_length=200, description=_SAID, examples=["correct horse battery staple"])]


class NewInvitation(BaseModel):
    """Who is to be invited, and as what. `tenant_id` is the platform's to say; a tenant's own people invite to it alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: Email
    roles: RoleNames
    tenant_id: UUID | None = None


class Acceptance(BaseModel):
    """What makes a member of whoever has the token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: Annotated[str, Field(max_length=200)]
    password: Password
    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), WRITTEN]


class InvitationModel(BaseModel):
    """An invitation. `token` is told where the stack writes to nobody, to whoever has just invited somebody, and not again."""

    id: UUID
    email: str
    roles: list[str]
    state: InvitationState | Literal["expired"]
    expires_at: Moment
    token: str | None = None


def invitation_model(invitation: Invitation, token: str | None = None) -> InvitationModel:
    """An invitation for an answer."""
    is_over = invitation.state is InvitationState.OPEN and not is_live(invitation, now())
    return InvitationModel(
        id=invitation.id,
        email=invitation.email,
        roles=list(invitation.roles),
        state="expired" if is_over else invitation.state,
        expires_at=rfc3339(invitation.expires_at),
        token=token,
    )


def _answer(call: Call, status: int, invitation: Invitation, **headers: str) -> Response:
    token = call.service.shared(Desk).shown(invitation) if invitation.state is InvitationState.OPEN else None
    return reply(status, invitation_model(invitation, token), Location=f"/v1/invitations/{invitation.id}", **headers)


def _remember(invitation: Invitation) -> Answer:
    """Only which it was: a replay shows it as it is then, and its token to whoever may see it."""
    return Answer(201, headers={"Location": f"/v1/invitations/{invitation.id}"})


@ROUTES.post("/v1/invitations", status_code=201, response_model=InvitationModel)
@guard("members:manage", instead="tenants:manage", idempotent=True)
async def create_invitation(call: Caller, body: NewInvitation) -> Response:
    """Invite somebody to the tenant's staff, for no more than one may oneself. The token is good once and for a week."""
    tenant_id = tenant_asked(call, body.tenant_id)
    async with call.transaction(tenant_id) as connection:
        member = await repository.member_of(connection, tenant_id, email_key(body.email))
        open_one = await repository.invitation_to(connection, tenant_id, email_key(body.email))
    invitation_id = new_id() if open_one is None else open_one.id
    token, letter = call.service.shared(Desk).token(tenant_id, invitation_id, body.email)
    command = handlers.CreateInvitation(
        invitation_id=invitation_id,
        email=body.email,
        roles=tuple(sorted(set(body.roles))),
        token=token,
        letter=letter,
        granter=granter_of(call),
        member_id=None if member is None else member.id,
    )
    invitation = await call.execute_once(command, _remember, tenant_id=tenant_id)
    if isinstance(invitation, Replayed):
        stored_id = UUID(invitation.answer.headers["Location"].rpartition("/")[2])
        async with call.transaction(tenant_id) as connection:
            [stored] = await repository.INVITATIONS.load(connection, [(tenant_id, stored_id)], lock=False)
        return _answer(call, 201, stored, Idempotent_Replayed="true")
    return _answer(call, 201, invitation)


@ROUTES.get("/v1/invitations", response_model=Page[InvitationModel])
@guard("members:manage")
async def list_invitations(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Everybody who was invited, and what became of it."""
    return await listed(call, repository.INVITATIONS, invitation_model, limit, cursor)


@ROUTES.get("/v1/invitations/{invitation_id}", response_model=InvitationModel)
@guard("members:manage", sees=INVITATION)
async def read_invitation(call: Caller, invitation_id: UUID) -> Response:
    """One invitation."""
    return reply(200, invitation_model(await INVITATION.of(call, invitation_id)))


@ROUTES.post("/v1/invitations/{invitation_id}/resend", response_model=InvitationModel)
@guard("members:manage", sees=INVITATION)
async def resend_invitation(call: Caller, invitation_id: UUID) -> Response:
    """Send it once more, for another week: under a new token, the one before it is good no more."""
    stored = await INVITATION.of(call, invitation_id)
    token, letter = call.service.shared(Desk).token(call.tenant_id, invitation_id, stored.email)
    command = handlers.ResendInvitation(invitation_id=invitation_id, token=token, letter=letter, granter=granter_of(call))
    return _answer(call, 200, await call.execute(command))


@ROUTES.delete("/v1/invitations/{invitation_id}", status_code=204)
@guard("members:manage", sees=INVITATION, goes_on=True)
async def revoke_invitation(call: Caller, invitation_id: UUID) -> Response:
    """Withdraw it: its token is good no more."""
    await call.execute(handlers.RevokeInvitation(invitation_id=invitation_id, granter=granter_of(call)))
    return reply(204, None)


@ROUTES.post(PLACE, status_code=201, response_model=MemberModel)
@for_strangers
async def accept_invitation(call: Caller, body: Acceptance) -> Response:
    """Become a member, with the token of an invitation. Whatever is wrong with it, the answer is the same and takes as long."""
    rates = call.service.rates
    rates.demand_not_made_up(body.token, call.address)
    password = unicodedata.normalize("NFC", body.password)
    hashed = await call.service.shared(Desk).passwords.hash(password)
    try:
        member = await _accepted(call, body, hashed)
    except RejectedError as error:
        rates.missed(call.address)
        refused(Refused.LOGIN, error.code, call.request.scope, PLACE)
        raise
    return reply(201, member_model(member), Cache_Control="no-store")


async def _accepted(call: Call, body: Acceptance, password: str) -> Member:
    invitation = named(body.token)
    if invitation is None:
        raise not_valid()
    command = handlers.AcceptInvitation(
        invitation_id=invitation.invitation_id,
        presented=invitation.digest,
        member_id=new_id(),
        name=body.name,
        password=password,
    )
    try:
        member: Member = await call.execute(command, tenant_id=invitation.tenant_id)
    except ConflictError as error:
        if error.code != "email-taken":
            raise
        raise not_valid() from error
    return member
