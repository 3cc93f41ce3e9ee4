"""A tenant in memory, with an application, and whoever is on its staff."""

from typing import Any
from uuid import UUID, uuid4

from libs.common.clock import PLATFORM
from libs.common.decision import Identity
from services.identity.domain.client import Client
from services.identity.domain.invitation import Invitation, Token, digest_of
from services.identity.domain.member import Member
from services.identity.domain.revocation import Epoch
from services.identity.domain.role import BUILT_IN, OWNER
from services.identity.domain.tenant import Tenant, TenantStatus
from services.identity.handlers import HANDLERS, AcceptInvitation, CreateInvitation, CreateRole, Granter
from tests.unit.memory import TENANT, Memory

EVERYTHING = tuple(sorted(BUILT_IN[OWNER]))
THE_PLATFORM = Granter(tenant_id=PLATFORM, client_id="platform", grantable=EVERYTHING, subject_id=UUID(int=7))
SHOP = Tenant(
    tenant_id=TENANT,
    version=1,
    slug="shop",
    name="Shop",
    status=TenantStatus.PROVISIONING,
    currency="GBP",
    country="GB",
    admin_email="o@shop.test",
)
APP = Client(tenant_id=TENANT, version=1, id="app", subject_id=UUID(int=9), name="app", scopes=EVERYTHING, secrets=())


class House(Memory):
    """A tenant in memory, with an application, and members of whom nobody asks where they come from."""

    def __init__(self) -> None:
        super().__init__(HANDLERS)
        self.put(SHOP, APP)

    def put(self, *rows: Any) -> None:
        for row in rows:
            identity: Identity = (type(row), row.tenant_id, row.key)
            self.rows[identity] = row

    def get(self, kind: type[Any], key: Any) -> Any:
        return self.rows.get((kind, TENANT, key))

    def invited(self, *roles: str, granter: Granter = THE_PLATFORM, email: str = "") -> Invitation:
        command = CreateInvitation(
            invitation_id=uuid4(),
            email=email or f"{uuid4().hex}@Shop.test",
            roles=roles,
            token=Token(nonce="n", digest=digest_of("t")),
            letter=None,
            granter=granter,
        )
        made: Invitation = self.execute(command)
        return made

    def accept(self, invitation_id: UUID, token: str = "t", **circumstances: Any) -> Member:
        command = AcceptInvitation(
            invitation_id=invitation_id, presented=digest_of(token), member_id=uuid4(), name="Ada", password="hash"
        )
        joined: Member = self.execute(command, **circumstances)
        return joined

    def member(self, *roles: str) -> Member:
        return self.accept(self.invited(*roles).id)

    def role(self, name: str, *permissions: str) -> str:
        self.execute(CreateRole(name=name, description="", permissions=permissions, granter=THE_PLATFORM))
        return name

    def epoch(self, whose: UUID) -> Epoch | None:
        found: Epoch | None = self.get(Epoch, str(whose))
        return found
