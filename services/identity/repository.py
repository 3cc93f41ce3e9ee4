"""All SQL of the identity service."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import bindparam, select

from libs.common.clock import PLATFORM
from libs.common.database import Connection, Rows, Statement
from services.identity import tables
from services.identity.domain.client import Client
from services.identity.domain.revocation import Epoch
from services.identity.domain.session import Session
from services.identity.domain.signing_key import SigningKey
from services.identity.domain.tenant import Tenant

TENANTS = Rows(tables.TENANT, Tenant)
CLIENTS = Rows(tables.CLIENT, Client)
SESSIONS = Rows(tables.SESSION, Session)
SIGNING_KEYS = Rows(tables.SIGNING_KEY, SigningKey)
EPOCHS = Rows(tables.EPOCH, Epoch)

ROWS = (TENANTS, CLIENTS, SESSIONS, SIGNING_KEYS, EPOCHS)
"""Every aggregate of this service, in the order in which they are locked."""

_TENANT_IDS = "SELECT * FROM tenant_ids_for_platform($1, $2, $3)"
_LIVE_EPOCHS = "SELECT tenant_id, id, epoch_ms FROM epochs_for_platform($1)"
_SIGNING_KEYS = Statement(
    select(tables.SIGNING_KEY)
    .where(tables.SIGNING_KEY.c.tenant_id == bindparam("tenant_id"))
    .order_by(tables.SIGNING_KEY.c.not_before)
)


async def tenant_ids(connection: Connection, *, after: UUID, limit: int, slug: str | None = None) -> Sequence[UUID]:
    """One page of all tenants, by id. Only in the platform's own transaction are there any."""
    return [row[0] for row in await connection.fetch(_TENANT_IDS, after, limit, slug)]


async def signing_keys(connection: Connection) -> Sequence[SigningKey]:
    """Every signing key, the oldest first."""
    rows = await _SIGNING_KEYS.fetch(connection, tenant_id=PLATFORM)
    return [SIGNING_KEYS.decode(row) for row in rows]


async def live_epochs(connection: Connection, *, since_ms: int) -> Sequence[tuple[UUID, str, int]]:
    """Tenant, id and epoch of those above `since_ms`, of all tenants. Only in the platform's own transaction are there any."""
    return [(row["tenant_id"], row["id"], row["epoch_ms"]) for row in await connection.fetch(_LIVE_EPOCHS, since_ms)]
