"""Roles: those that are built in, and those that a tenant makes."""

from operator import attrgetter
from typing import Annotated

from fastapi import Path, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.contracts.external import NAMED, WRITTEN
from libs.common.decision import absent, present
from libs.common.errors import ConflictError
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import of_the_tenant
from services.identity import handlers, repository
from services.identity.api.clients import granter_of
from services.identity.domain.role import BUILT_IN, DESCRIPTIONS, NAME, Role

ROUTES = Routes(Facing.CUSTOMERS)
TRIES = 5
"""How often a role is tried to be changed while others give it or take it away."""

RoleName = Annotated[str, Field(pattern=f"^{NAME.pattern}$"), NAMED]
RolePath = Annotated[str, Path(pattern=f"^{NAME.pattern}$")]
Description = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,200}$"), WRITTEN]
Permissions = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)]


class NewRole(BaseModel):
    """A role to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: RoleName
    permissions: Permissions
    description: Description = ""


class RoleChange(BaseModel):
    """What is to change of a role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    permissions: Permissions | None = None
    description: Description | None = None


class RoleModel(BaseModel):
    """A role. One that is built in is the same in every tenant, and nobody changes it."""

    name: str
    permissions: list[str]
    description: str
    built_in: bool


def role_model(role: Role) -> RoleModel:
    """A role for an answer."""
    return RoleModel(
        name=role.name, permissions=sorted(role.permissions), description=role.description, built_in=role.name in BUILT_IN
    )


def _built_in(call: Call, name: str) -> Role:
    permissions = tuple(sorted(BUILT_IN[name]))
    return Role(tenant_id=call.tenant_id, name=name, description=DESCRIPTIONS[name], permissions=permissions)


def _demand_custom(name: str) -> None:
    if name in BUILT_IN:
        raise ConflictError("role-built-in", f"{name} is built in: it is the same for everybody", name=name)


@ROUTES.post("/v1/roles", status_code=201, response_model=RoleModel)
@guard("roles:manage")
async def create_role(call: Caller, body: NewRole) -> Response:
    """Make a role, of permissions that one has."""
    command = handlers.CreateRole(
        name=body.name,
        description=body.description,
        permissions=tuple(sorted(set(body.permissions))),
        granter=granter_of(call),
    )
    role: Role = await call.execute(command)
    return reply(201, role_model(role), Location=f"/v1/roles/{role.name}", ETag=f'"{role.version}"')


@ROUTES.get("/v1/roles", response_model=Page[RoleModel])
@guard("members:manage", instead="roles:manage")
async def list_roles(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Every role of the tenant, those that are built in among them, by name."""
    asked = Paging(limit, cursor, str)
    async with call.transaction() as connection:
        found = await repository.ROLES.judged_page(connection, call.tenant_id, after=asked.after, limit=asked.most)
    ours = [_built_in(call, name) for name in BUILT_IN if asked.after is None or name > asked.after[0]]
    return asked.reply(sorted([*ours, *found], key=attrgetter("key"))[: asked.most], role_model, lambda role: [role.name])


@ROUTES.get("/v1/roles/{role_name}", response_model=RoleModel)
@guard("members:manage", instead="roles:manage", sees=of_the_tenant)
async def read_role(call: Caller, role_name: RolePath) -> Response:
    """One role."""
    if role_name in BUILT_IN:
        return reply(200, role_model(_built_in(call, role_name)))
    async with call.transaction() as connection:
        found = await repository.ROLES.load(connection, [(call.tenant_id, role_name)], lock=False)
    role = present(Role, found[0] if found else None)
    return reply(200, role_model(role), ETag=f'"{role.version}"')


@ROUTES.patch("/v1/roles/{role_name}", response_model=RoleModel)
@guard("roles:manage", sees=of_the_tenant)
async def change_role(call: Caller, role_name: RolePath, body: RoleChange) -> Response:
    """Have a role allow something else. What that takes ends within five seconds, what it gives comes with the next token."""
    _demand_custom(role_name)
    role = await _changed(call, role_name, body)
    return reply(200, role_model(role), ETag=f'"{role.version}"')


async def _changed(call: Call, name: str, body: RoleChange) -> Role:
    """Whose tokens end is looked up first, and again when somebody was given the role meanwhile."""
    for left in reversed(range(TRIES)):
        async with call.transaction() as connection:
            version, holders = await repository.members_with(connection, call.tenant_id, name)
        command = handlers.ChangeRole(
            name=name,
            description=body.description,
            permissions=None if body.permissions is None else tuple(body.permissions),
            granter=granter_of(call),
            holders=tuple(holders),
            staff_version=version,
        )
        try:
            role: Role = await call.execute(command)
        except ConflictError as error:
            if error.code != "staff-changed" or not left:
                raise
        else:
            return role
    raise absent(Role)


@ROUTES.delete("/v1/roles/{role_name}", status_code=204)
@guard("roles:manage", sees=of_the_tenant)
async def delete_role(call: Caller, role_name: RolePath) -> Response:
    """Take away a role that nobody has and nobody is invited to."""
    _demand_custom(role_name)
    await call.execute(handlers.DeleteRole(name=role_name))
    return reply(204, None)
