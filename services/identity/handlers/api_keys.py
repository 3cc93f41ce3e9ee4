"""API keys: made, renamed, removed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, World, present
from services.identity import domain
from services.identity.domain.api_key import ApiKey
from services.identity.domain.tenant import Tenant
from services.identity.handlers.granting import Granter, demand_grantable, granter_refs, granter_roles
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApiKey:
    """Make a key of a tenant."""

    key_id: UUID
    name: str
    scopes: tuple[str, ...]
    digest: str
    expires_at: datetime | None
    granter: Granter


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameApiKey:
    """Call a key something else. What it may do, and until when, was said when it was made."""

    key_id: UUID
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveApiKey:
    """Take a key away for good, and every token that it was exchanged for."""

    key_id: UUID


def _api_key(message: Message[Any]) -> list[Ref]:
    return [Ref(ApiKey, message.data.key_id)]


def _own_key(message: Message[CreateApiKey]) -> list[Ref]:
    """The key that grants, if it is one that does."""
    key_id = domain.api_key.id_of(message.data.granter.client_id)
    return [] if key_id is None else [Ref(ApiKey, key_id)]


def _demand_grantable(world: World, scopes: Iterable[str], granter: Granter) -> None:
    """What whoever grants may at this moment, or the key does that grants."""
    demand_grantable(world, scopes, granter)
    key_id = domain.api_key.id_of(granter.client_id)
    if key_id is not None:
        domain.api_key.demand_own(scopes, world.get(ApiKey, key_id), world.now)


def _made(message: Message[CreateApiKey]) -> list[Ref]:
    return [*_api_key(message), *_own_key(message), *granter_refs(message), Ref(Tenant, message.tenant_id, shared=True)]


@HANDLERS.on(CreateApiKey, _made, granter_roles)
def create_api_key(world: World, message: Message[CreateApiKey]) -> ApiKey:
    """Answers the new key."""
    command = message.data
    domain.tenant.demand_admitting(world.get(Tenant, world.tenant_id), world.tenant_id)
    _demand_grantable(world, command.scopes, command.granter)
    key = ApiKey(
        tenant_id=world.tenant_id,
        id=command.key_id,
        name=command.name,
        scopes=command.scopes,
        digest=command.digest,
        created_at=world.now,
        expires_at=domain.api_key.expiry(world.now, command.expires_at),
    )
    return world.save(key)


@HANDLERS.on(RenameApiKey, _api_key)
def rename_api_key(world: World, message: Message[RenameApiKey]) -> ApiKey:
    """Answers the key as it is now."""
    key = present(ApiKey, world.get(ApiKey, message.data.key_id))
    return world.save(replace(key, name=message.data.name))


@HANDLERS.on(RemoveApiKey, lambda m: [*_api_key(m), epoch_ref(domain.api_key.client_id_of(m.data.key_id))])
def remove_api_key(world: World, message: Message[RemoveApiKey]) -> ApiKey:
    """Answers what stays of the key. The tokens that it was exchanged for end with it."""
    key = present(ApiKey, world.get(ApiKey, message.data.key_id))
    raise_epoch(world, "client", key.client_id)
    return world.save(domain.api_key.remove(key, world.now))
