"""How a tenant and a client begin."""

from uuid import UUID

import pytest

from libs.common.errors import NotFoundError
from services.identity.domain.client import Client
from services.identity.domain.invitation import Invitation, Token, digest_of
from services.identity.domain.tenant import Tenant, TenantStatus
from services.identity.handlers import AskOwner, CreateClient, OnboardTenant
from tests.unit.identity.house import THE_PLATFORM, House
from tests.unit.memory import TENANT

ASKED = AskOwner(invitation_id=UUID(int=5), token=Token(nonce="n", digest=digest_of("t")), letter=None)


@pytest.mark.parametrize("owner", [ASKED, None])
def test_a_tenant_begins_in_provisioning_and_with_the_invitation_of_its_owner_if_there_is_one(owner: AskOwner | None) -> None:
    house = House()
    house.rows.clear()
    command = OnboardTenant(slug="new", name="New", currency="EUR", country="FR", admin_email="a@new.test", owner=owner)
    made: Tenant = house.execute(command)
    assert (made.tenant_id, made.slug, made.status) == (TENANT, "new", TenantStatus.PROVISIONING)
    invited: Invitation | None = house.get(Invitation, UUID(int=5))
    assert (invited is None) is (owner is None)
    assert invited is None or (invited.email, invited.roles) == ("a@new.test", ("owner",))


def test_a_client_begins_where_there_is_a_tenant() -> None:
    command = CreateClient(
        client_id="till",
        subject_id=UUID(int=6),
        name="Till",
        scopes=("carts:read",),
        secret_id=UUID(int=7),
        secret_digest="d",
        granter=THE_PLATFORM,
    )
    house = House()
    made: Client = house.execute(command)
    assert (made.id, [secret.id for secret in made.secrets]) == ("till", [UUID(int=7)])
    empty = House()
    empty.rows.clear()
    with pytest.raises(NotFoundError):
        empty.execute(command)
