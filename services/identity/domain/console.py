"""The console: an application that every tenant's staff may sign in with, and that is in no tenant's table.

It may all that an owner may, for a token never has more than its member's roles, and nobody manages people, roles or keys that
may more than their token does.
"""

from collections.abc import Collection
from uuid import UUID

from services.identity.domain.client import Client, client_id_of
from services.identity.domain.role import BUILT_IN, OWNER

CONSOLE = UUID(int=1)
"""What its client id ends in, in every tenant: the page makes it of the tenant's id."""


def console(tenant_id: UUID, client_id: str, redirect_uris: Collection[str] = ()) -> Client | None:
    """The console of this tenant, if that is its client id. It has no secret: a browser keeps none."""
    if client_id != client_id_of(tenant_id, CONSOLE):
        return None
    return Client(
        tenant_id=tenant_id,
        id=client_id,
        subject_id=CONSOLE,
        name="Console",
        scopes=tuple(sorted(BUILT_IN[OWNER])),
        secrets=(),
        redirect_uris=tuple(redirect_uris),
    )
