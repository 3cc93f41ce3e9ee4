"""All SQL of the identity service."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

import orjson
from sqlalchemy import bindparam, select

from libs.common.clock import PLATFORM
from libs.common.database import Connection, Rows, Statement
from services.identity import tables
from services.identity.domain.api_key import ApiKey
from services.identity.domain.client import Client, Secret
from services.identity.domain.invitation import Invitation
from services.identity.domain.member import Member
from services.identity.domain.password_reset import PasswordReset
from services.identity.domain.revocation import Epoch
from services.identity.domain.role import Role
from services.identity.domain.second_factor import SecondFactor
from services.identity.domain.service_secret import ServiceSecret
from services.identity.domain.session import Session
from services.identity.domain.sign_in import AuthorizationCode
from services.identity.domain.signing_key import SigningKey
from services.identity.domain.staff import Staff
from services.identity.domain.tenant import Tenant, TenantStatus

TENANTS = Rows(tables.TENANT, Tenant)
CLIENTS = Rows(tables.CLIENT, Client)
SESSIONS = Rows(tables.SESSION, Session)
SIGNING_KEYS = Rows(tables.SIGNING_KEY, SigningKey)
EPOCHS = Rows(tables.EPOCH, Epoch)
SERVICE_SECRETS = Rows(tables.SERVICE_SECRET, ServiceSecret)
API_KEYS = Rows(tables.API_KEY, ApiKey)
STAFF = Rows(tables.STAFF, Staff)
ROLES = Rows(tables.ROLE, Role)
MEMBERS = Rows(tables.MEMBER, Member)
INVITATIONS = Rows(tables.INVITATION, Invitation)
CODES = Rows(tables.AUTHORIZATION_CODE, AuthorizationCode)
SECOND_FACTORS = Rows(tables.SECOND_FACTOR, SecondFactor)
PASSWORD_RESETS = Rows(tables.PASSWORD_RESET, PasswordReset)

ROWS = (
    *(TENANTS, CLIENTS, API_KEYS, SESSIONS, SIGNING_KEYS, SERVICE_SECRETS),
    *(EPOCHS, STAFF, ROLES, MEMBERS, INVITATIONS, CODES),
    TENANTS,
    CLIENTS,
    SESSIONS,
    SIGNING_KEYS,
    EPOCHS,
    STAFF,
    ROLES,
    MEMBERS,
    INVITATIONS,
    CODES,
    SECOND_FACTORS,
    PASSWORD_RESETS,
)
"""Every aggregate of this service, in the order in which they are locked."""

_STATUS = "SELECT status FROM tenant WHERE tenant_id = $1"
_TENANT_IDS = "SELECT * FROM tenant_ids_for_platform($1, $2, $3)"
_LIVE_EPOCHS = "SELECT tenant_id, id, epoch_ms FROM epochs_for_platform($1)"
_SIGNING_KEYS = Statement(
    select(tables.SIGNING_KEY)
    .where(tables.SIGNING_KEY.c.tenant_id == bindparam("tenant_id"))
    .order_by(tables.SIGNING_KEY.c.not_before)
)
_CLIENT_FOR_GRANT = "SELECT * FROM client_for_grant($1, $2)"
_API_KEY_FOR_GRANT = "SELECT * FROM api_key_for_grant($1, $2)"
_USED = {
    Client: "UPDATE client SET last_used_on = $3 WHERE tenant_id = $1 AND id = $2 AND last_used_on IS DISTINCT FROM $3",
    ApiKey: "UPDATE api_key SET last_used_on = $3 WHERE tenant_id = $1 AND id = $2 AND last_used_on IS DISTINCT FROM $3",
}

_MEMBERS_WITH = """SELECT coalesce((SELECT version FROM staff WHERE tenant_id = $1), 0) AS version,
    ARRAY(SELECT id FROM member WHERE tenant_id = $1 AND roles ? $2 AND state = 'active' ORDER BY id) AS ids"""
_MEMBER_OF = Statement(
    select(tables.MEMBER).where(
        tables.MEMBER.c.tenant_id == bindparam("tenant_id"),
        tables.MEMBER.c.email_key == bindparam("email_key"),
        tables.MEMBER.c.deleted_at.is_(None),
    )
)
_INVITATION_TO = Statement(
    select(tables.INVITATION).where(
        tables.INVITATION.c.tenant_id == bindparam("tenant_id"),
        tables.INVITATION.c.email_key == bindparam("email_key"),
        tables.INVITATION.c.state == "open",
    )
)


async def tenant_ids(connection: Connection, *, after: UUID, limit: int, slug: str | None = None) -> Sequence[UUID]:
    """One page of all tenants, by id. Only in the platform's own transaction are there any."""
    return [row[0] for row in await connection.fetch(_TENANT_IDS, after, limit, slug)]


async def status_of(connection: Connection, tenant_id: UUID) -> TenantStatus | None:
    """Where a tenant stands; None: there is none."""
    status: str | None = await connection.fetchval(_STATUS, tenant_id)
    return None if status is None else TenantStatus(status)


async def signing_keys(connection: Connection) -> Sequence[SigningKey]:
    """Every signing key, the oldest first."""
    rows = await _SIGNING_KEYS.fetch(connection, tenant_id=PLATFORM)
    return [SIGNING_KEYS.decode(row) for row in rows]


async def live_epochs(connection: Connection, *, since_ms: int) -> Sequence[tuple[UUID, str, int]]:
    """Tenant, id and epoch of those above `since_ms`, of all tenants. Only in the platform's own transaction are there any."""
    return [(row["tenant_id"], row["id"], row["epoch_ms"]) for row in await connection.fetch(_LIVE_EPOCHS, since_ms)]


async def client_for_grant(connection: Connection, tenant_id: UUID, client_id: str) -> tuple[Client, TenantStatus | None] | None:
    """A client with its tenant's status, in one round trip outside any transaction."""
    row = await connection.fetchrow(_CLIENT_FOR_GRANT, tenant_id, client_id)
    if row is None:
        return None
    subject_id, name, scopes, secrets, last_used_on, status = row
    client = Client(
        tenant_id=tenant_id,
        id=client_id,
        subject_id=subject_id,
        name=name,
        scopes=tuple(orjson.loads(scopes)),
        secrets=tuple(map(_secret, orjson.loads(secrets))),
        last_used_on=last_used_on,
    )
    return client, status and TenantStatus(status)


def _secret(stored: Mapping[str, str]) -> Secret:
    created_at = datetime.fromisoformat(stored["created_at"])
    return Secret(id=UUID(stored["id"]), digest=stored["digest"], created_at=created_at)


async def api_key_for_grant(connection: Connection, tenant_id: UUID, key_id: UUID) -> tuple[ApiKey, TenantStatus] | None:
    """The same of an API key. Only tenants have any."""
    row = await connection.fetchrow(_API_KEY_FOR_GRANT, tenant_id, key_id)
    if row is None:
        return None
    facts = dict(row.items())
    status, scopes = TenantStatus(facts.pop("tenant_status")), tuple(orjson.loads(facts.pop("scopes")))
    return ApiKey(tenant_id=tenant_id, id=key_id, scopes=scopes, **facts), status


async def note_use(connection: Connection, used: Client | ApiKey, today: date) -> None:
    """Write down the day. It is no change of the row that anybody decides on, so its version stays."""
    await connection.execute(_USED[type(used)], used.tenant_id, used.id, today)


async def members_with(connection: Connection, tenant_id: UUID, role: str) -> tuple[int, Sequence[UUID]]:
    """Who has a role and can sign in, and the version that the tenant's staff had then: 0 when nobody was counted yet."""
    [row] = await connection.fetch(_MEMBERS_WITH, tenant_id, role)
    return row["version"], row["ids"]


async def member_of(connection: Connection, tenant_id: UUID, email_key: str) -> Member | None:
    """The member with this address, unless there is none or they were removed."""
    rows = await _MEMBER_OF.fetch(connection, tenant_id=tenant_id, email_key=email_key)
    return MEMBERS.decode(rows[0]) if rows else None


async def invitation_to(connection: Connection, tenant_id: UUID, email_key: str) -> Invitation | None:
    """The open invitation to this address, over by time or not."""
    rows = await _INVITATION_TO.fetch(connection, tenant_id=tenant_id, email_key=email_key)
    return INVITATIONS.decode(rows[0]) if rows else None
