"""Whose proof a token request brings: a client's secret, or an API key, which is name and secret in one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from libs.common.clock import PLATFORM
from libs.common.database import Database
from services.identity import repository
from services.identity.domain import api_key
from services.identity.domain.api_key import ApiKey, Presented
from services.identity.domain.client import PLATFORM_CLIENT, Client, authenticates, tenant_of
from services.identity.domain.tenant import ADMITTING


@dataclass(frozen=True, slots=True)
class Claimed:
    """Who somebody says to be. `client_id` may be written down; the rest of a key never is."""

    tenant_id: UUID
    client_id: str
    secret: str
    key: Presented | None = None

    @classmethod
    def of(cls, name: str, secret: str) -> Self | None:
        """What a user name and a password say; None when they can be nobody's."""
        key = api_key.read(name)
        if key is not None:
            return cls(key.tenant_id, api_key.client_id_of(key.id), secret, key)
        tenant_id = PLATFORM if name == PLATFORM_CLIENT else tenant_of(name)
        return None if tenant_id is None else cls(tenant_id, name, secret)


@dataclass(frozen=True, slots=True)
class Found:
    """There is somebody of this name: as a client, and whether it was proven and is let in."""

    client: Client
    row: Client | ApiKey
    is_right: bool
    is_admitted: bool


async def look_up(database: Database, claimed: Claimed, now: datetime) -> Found | None:
    """Whoever was claimed, if there is one: a single statement, outside any transaction."""
    async with database.acquire() as connection:
        if claimed.key is None:
            client = await repository.client_for_grant(connection, claimed.tenant_id, claimed.client_id)
        else:
            key = await repository.api_key_for_grant(connection, claimed.tenant_id, claimed.key.id)
    if claimed.key is None:
        if client is None:
            return None
        found, status = client
        return Found(found, found, authenticates(found, claimed.secret), found.tenant_id == PLATFORM or status in ADMITTING)
    if key is None:
        return None
    row, status = key
    is_right = api_key.authenticates(row, claimed.key, now) and not claimed.secret
    return Found(api_key.as_client(row), row, is_right, status in ADMITTING)


async def note_use(database: Database, used: Client | ApiKey, now: datetime) -> None:
    """Write down the day on which somebody was let in, once a day."""
    if used.last_used_on != now.date():
        async with database.transaction([used.tenant_id]) as connection:
            await repository.note_use(connection, used, now.date())
