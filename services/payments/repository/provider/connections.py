"""Connections of accounts: begun, used once, and what they have proven."""

from datetime import timedelta
from uuid import UUID

from libs.common.database import Connection

# What nobody completed in time proves nothing: the next one that the tenant begins takes its row.
BEGIN = """WITH left_over AS (
    SELECT state_digest FROM account_connection
    WHERE tenant_id = $1 AND account_id IS NULL AND expires_at < now() - interval '1 day' LIMIT 1 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE account_connection c
    SET state_digest = $2, subject_id = $3, created_at = now(), expires_at = now() + $4::interval, used_at = NULL
    FROM left_over l WHERE c.tenant_id = $1 AND c.state_digest = l.state_digest RETURNING true
)
INSERT INTO account_connection (tenant_id, state_digest, subject_id, created_at, expires_at)
SELECT $1, $2, $3, now(), now() + $4::interval
WHERE NOT EXISTS (SELECT FROM taken) AND NOT EXISTS (SELECT FROM erasure WHERE tenant_id = $1)"""
USE = """UPDATE account_connection SET used_at = now()
WHERE tenant_id = $1 AND state_digest = $2 AND subject_id = $3 AND used_at IS NULL AND expires_at > now() RETURNING true"""
IS_OPEN = """SELECT true FROM account_connection
WHERE tenant_id = $1 AND state_digest = $2 AND subject_id = $3 AND used_at IS NULL AND expires_at > now()"""
PROVE = "UPDATE account_connection SET account_id = $3 WHERE tenant_id = $1 AND state_digest = $2"
IS_PROVEN = """SELECT EXISTS (SELECT FROM account_connection WHERE tenant_id = $1 AND account_id = $2)
    OR EXISTS (SELECT FROM provider_account WHERE tenant_id = $1 AND account_id = $2 AND sealed_api_key IS NULL)"""


async def begin(connection: Connection, tenant_id: UUID, digest: bytes, subject_id: UUID, lifetime: timedelta) -> None:
    """Keep that this person of this tenant has begun a connection."""
    await connection.execute(BEGIN, tenant_id, digest, subject_id, lifetime)


async def is_open(connection: Connection, tenant_id: UUID, digest: bytes, subject_id: UUID) -> bool:
    """Whether this person has begun it, a short while ago, and it is unused."""
    return await connection.fetchval(IS_OPEN, tenant_id, digest, subject_id) is True


async def use(connection: Connection, tenant_id: UUID, digest: bytes, subject_id: UUID) -> bool:
    """Use it up; answers whether this person had begun it, a short while ago, and it was unused."""
    return await connection.fetchval(USE, tenant_id, digest, subject_id) is True


async def prove(connection: Connection, tenant_id: UUID, digest: bytes, account_id: str) -> None:
    """Keep which account the provider named."""
    await connection.execute(PROVE, tenant_id, digest, account_id)


async def is_proven(connection: Connection, tenant_id: UUID, account_id: str) -> bool:
    """Whether this account is the tenant's: by a connection, or because it has been all along."""
    return await connection.fetchval(IS_PROVEN, tenant_id, account_id) is True
