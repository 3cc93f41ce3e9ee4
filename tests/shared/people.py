"""Identity's own parts for tests that take people in: its desk, and tenants with staff."""

from uuid import UUID, uuid4

from libs.common.auth import CLIENT, MEMBER, ROLES
from libs.common.clock import PLATFORM, new_id
from libs.common.messaging.shell import Shell
from services.identity.api.desk import Desk
from services.identity.domain.invitation import digest_of
from services.identity.domain.role import BUILT_IN
from services.identity.handlers import AcceptInvitation, CreateInvitation, CreateRole, Granter
from tests.shared.callers import Person, message

MASTER_KEY = b"m" * 32
PASSWORD = "correct horse battery staple"
THE_PLATFORM = Granter(tenant_id=PLATFORM, client_id="platform", grantable=tuple(sorted(ROLES[CLIENT])))


def desk() -> Desk:
    """Where people are taken in who are shown their invitation's token."""
    return Desk(MASTER_KEY, shows_tokens=True)


async def invited(shell: Shell, at: Desk, tenant_id: UUID, email: str, *roles: str) -> tuple[UUID, str]:
    """Somebody whom the platform invited; answers the invitation's id and its token, which the desk shows."""
    invitation_id = new_id()
    token, letter = at.token(tenant_id, invitation_id, email)
    command = CreateInvitation(
        invitation_id=invitation_id, email=email, roles=roles, token=token, letter=letter, granter=THE_PLATFORM
    )
    invitation = await shell.execute(message(command, tenant_id))
    return invitation_id, str(at.shown(invitation))


async def member_of(shell: Shell, at: Desk, tenant_id: UUID, *roles: str, password: str = "no hash", name: str = "n") -> Person:
    """A member with these roles, and a token of all that they allow."""
    invitation_id, shown = await invited(shell, at, tenant_id, f"{uuid4().hex}@shop.test", *roles)
    command = AcceptInvitation(
        invitation_id=invitation_id, presented=digest_of(shown), member_id=new_id(), name=name, password=password
    )
    member = await shell.execute(message(command, tenant_id))
    return holder(tenant_id, member.id, *roles)


def holder(tenant_id: UUID, member_id: UUID, *roles: str) -> Person:
    """A member's token as identity would issue it, of built-in roles."""
    allowed = frozenset[str]().union(*(BUILT_IN.get(role, frozenset()) for role in roles))
    return Person(tenant_id, subject=member_id, role=MEMBER, scope=sorted(allowed), claims={"roles": [MEMBER, *roles]})


async def staffed(shell: Shell, at: Desk, tenant_id: UUID, role: str, own_role: str) -> dict[str, UUID | str]:
    """A tenant with a member, somebody invited, and a role of its own; what they are called in a path."""
    create = CreateRole(name=own_role, description="canary", permissions=("carts:read",), granter=THE_PLATFORM)
    await shell.execute(message(create, tenant_id))
    owner = await member_of(shell, at, tenant_id, role, name="canary")
    await member_of(shell, at, tenant_id, role)
    invitation_id, _ = await invited(shell, at, tenant_id, "canary@shop.test", own_role)
    return {"member_id": owner.subject, "invitation_id": invitation_id, "role_name": own_role}
