"""Members: the people of a tenant's staff, for those of them who look after the others."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import rfc3339
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed
from services.identity import handlers, repository
from services.identity.api.clients import granter_of
from services.identity.domain.member import Member, MemberState
from services.identity.domain.role import NAME

ROUTES = Routes(Facing.CUSTOMERS)
MEMBER = Sight(repository.MEMBERS, "member_id")

RoleNames = Annotated[list[Annotated[str, Field(pattern=f"^{NAME.pattern}$")]], Field(min_length=1, max_length=20)]


class MemberChange(BaseModel):
    """What is to change of a member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: RoleNames | None = None
    state: Annotated[
        Literal["active", "deactivated"] | None, Field(description="Whoever is deactivated cannot sign in, and keeps their roles")
    ] = None


class MemberModel(BaseModel):
    """A member."""

    id: UUID
    email: str
    name: str
    roles: list[str]
    state: MemberState
    joined_at: Moment


def member_model(member: Member) -> MemberModel:
    """A member for an answer."""
    return MemberModel(
        id=member.id,
        email=member.email,
        name=member.name,
        roles=list(member.roles),
        state=member.state,
        joined_at=rfc3339(member.joined_at),
    )


@ROUTES.get("/v1/members", response_model=Page[MemberModel])
@guard("members:manage")
async def list_members(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Everybody of the tenant's staff."""
    return await listed(call, repository.MEMBERS, member_model, limit, cursor)


@ROUTES.get("/v1/members/{member_id}", response_model=MemberModel)
@guard("members:manage", sees=MEMBER)
async def read_member(call: Caller, member_id: UUID) -> Response:
    """One of them."""
    member = await MEMBER.of(call, member_id)
    return reply(200, member_model(member), ETag=f'"{member.version}"')


@ROUTES.patch("/v1/members/{member_id}", response_model=MemberModel)
@guard("members:manage", sees=MEMBER)
async def change_member(call: Caller, member_id: UUID, body: MemberChange) -> Response:
    """Give a member other roles, or keep them from signing in. What it takes away is gone within five seconds."""
    command = handlers.ChangeMember(
        member_id=member_id,
        roles=None if body.roles is None else tuple(sorted(set(body.roles))),
        state=None if body.state is None else MemberState(body.state),
        granter=granter_of(call),
    )
    member: Member = await call.execute(command)
    return reply(200, member_model(member), ETag=f'"{member.version}"')


@ROUTES.delete("/v1/members/{member_id}", status_code=204)
@guard("members:manage", sees=MEMBER, goes_on=True)
async def remove_member(call: Caller, member_id: UUID) -> Response:
    """Take somebody off the staff. Their tokens are over within five seconds, and their address is free again."""
    await call.execute(handlers.RemoveMember(member_id=member_id, granter=granter_of(call)))
    return reply(204, None)
