"""Nobody grants what they do not have, at this moment."""

from dataclasses import replace
from uuid import UUID

import pytest

from libs.common.errors import RejectedError
from services.identity.domain.client import Client, delete, demand_grantable
from tests.unit.memory import NOW, TENANT

GRANTER = Client(
    tenant_id=TENANT, id="granter", subject_id=UUID(int=1), name="g", scopes=("carts:read", "orders:read"), secrets=()
)


def test_what_is_granted_is_had_by_the_token_and_by_the_row_of_whoever_grants_it() -> None:
    demand_grantable(["carts:read"], ["carts:read", "carts:write"], None)
    demand_grantable(["carts:read"], ["carts:read", "carts:write"], GRANTER)
    demand_grantable([], [], GRANTER)
    for scopes, grantable, granter, beyond in (
        (["carts:write", "carts:read"], ["carts:read"], None, ["carts:write"]),
        (["carts:write"], ["carts:read", "carts:write"], GRANTER, ["carts:write"]),
        (["orders:read"], ["carts:read"], GRANTER, ["orders:read"]),
        (["carts:read"], ["carts:read"], delete(GRANTER, NOW), ["carts:read"]),
        (["carts:read"], ["carts:read"], replace(GRANTER, scopes=()), ["carts:read"]),
    ):
        with pytest.raises(RejectedError) as refused:
            demand_grantable(scopes, grantable, granter)
        assert (refused.value.code, refused.value.members) == ("scope-not-grantable", {"scopes": beyond})
