"""Tenants, clients and shoppers' sessions: which command or event goes to which decision."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from libs.common.auth import CLIENT, ROLES
from libs.common.cells import MAIN
from libs.common.decision import Message, Ref, World, present
from libs.common.errors import NotFoundError, StaleError
from services.identity import domain
from services.identity.domain.client import Client, Secret
from services.identity.domain.invitation import Token
from services.identity.domain.role import OWNER
from services.identity.domain.session import Refreshed, Session
from services.identity.domain.tenant import Tenant, TenantStatus
from services.identity.handlers.granting import Granter, demand_grantable, granter_refs, granter_roles
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import COMING_IN, HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOwner:
    """The invitation of a tenant's first owner, to the address that the tenant is onboarded with."""

    invitation_id: UUID
    token: Token
    letter: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardTenant:
    """Make a tenant; the message's own tenant id becomes its. With it goes the invitation of its owner."""

    slug: str
    name: str
    currency: str
    country: str
    admin_email: str
    cell: str = MAIN
    owner: AskOwner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeTenant:
    """Give a tenant another name, or other settings: those that are named, None for none."""

    name: str | None
    settings: dict[str, Any]
    if_match: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateClient:
    """Make a client of a tenant, with its first secret."""

    client_id: str
    subject_id: UUID
    name: str
    scopes: tuple[str, ...]
    secret_id: UUID
    secret_digest: str
    granter: Granter
    redirect_uris: tuple[str, ...] = ()
    """Those of an application that people sign in with: it gets no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSecret:
    """Give a client one more secret: whoever has it may do what the client may."""

    client_id: str
    secret_id: UUID
    secret_digest: str
    granter: Granter


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSecret:
    """Take one secret from a client."""

    client_id: str
    secret_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteClient:
    """Take a client away for good."""

    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSession:
    """Let a shopper in."""

    session_id: UUID
    subject_id: UUID
    is_guest: bool
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSession:
    """Take a refresh token of ours for its successor; both by their digests."""

    session_id: UUID
    presented: str
    successor: str
    client_id: str | None = None
    """The application that asks for a member; a shopper's has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceTenant:
    """Publish a tenant as it is, to whoever has not heard of it."""


def _own_tenant(message: Message[Any]) -> Ref:
    return Ref(Tenant, message.tenant_id, shared=True)


def _client(message: Message[Any]) -> list[Ref]:
    return [Ref(Client, message.data.client_id)]


def _client_and_epoch(message: Message[RemoveSecret] | Message[DeleteClient]) -> list[Ref]:
    return [*_client(message), epoch_ref(message.data.client_id)]


@HANDLERS.on(OnboardTenant, lambda m: [Ref(Tenant, m.tenant_id)])
def onboard_tenant(world: World, message: Message[OnboardTenant]) -> Tenant:
    """Answers the new tenant. Every service learns of it, and says when it can serve it."""
    command = message.data
    tenant = Tenant(
        tenant_id=world.tenant_id,
        slug=command.slug,
        name=command.name,
        status=TenantStatus.PROVISIONING,
        currency=command.currency,
        country=command.country,
        admin_email=command.admin_email,
        cell=command.cell,
    )
    if command.owner is not None:
        owner = command.owner
        invited = domain.invitation.invite(
            world.tenant_id, owner.invitation_id, command.admin_email, [OWNER], owner.token, world.now
        )
        world.save(invited, domain.invitation.created(invited, owner.letter))
    return world.save(tenant, domain.tenant.updated(tenant))


@HANDLERS.on(ChangeTenant, lambda m: [Ref(Tenant, m.tenant_id)])
def change_tenant(world: World, message: Message[ChangeTenant]) -> Tenant:
    """Answers the tenant as it is now. Every service learns of it."""
    command, tenant = message.data, world.get(Tenant, world.tenant_id)
    if tenant is not None and command.if_match is not None and command.if_match != tenant.version:
        raise StaleError("stale-version", f"the tenant is at version {tenant.version}", version=tenant.version)
    changed, event = domain.tenant.change(tenant, command.name, command.settings)
    return world.save(changed, event) if event else changed


def _provisioned_tenant(message: Message[Any]) -> list[Ref]:
    return [Ref(Tenant, message.data.tenant_id)]


def note_provisioned(world: World, message: Message[Any]) -> None:
    """A service can serve the tenant as it now is; when all can, a new one is active."""
    tenant = world.get(Tenant, message.data.tenant_id)
    if tenant is None:
        raise NotFoundError("tenant-not-found", f"{message.source} provisioned a tenant that was never made")
    noted, event = domain.tenant.note_provisioned(tenant, message.data.service)
    noted = domain.tenant.note_acknowledged(noted, message.data.service, message.data.tenant_version)
    if noted != tenant:
        world.save(noted, *([event] if event else []))


# The same fact from every publisher: a class each in its contracts, one meaning.
for publisher in domain.tenant.PROVISIONERS:
    HANDLERS.on(import_module(f"libs.common.contracts.{publisher}").TenantProvisioned, _provisioned_tenant)(note_provisioned)


@HANDLERS.on(CreateClient, lambda m: [*_client(m), *granter_refs(m), _own_tenant(m)], granter_roles)
def create_client(world: World, message: Message[CreateClient]) -> Client:
    """Answers the new client."""
    command = message.data
    domain.tenant.demand_admitting(world.get(Tenant, world.tenant_id), world.tenant_id)
    demand_grantable(world, command.scopes, command.granter)
    secret = Secret(id=command.secret_id, digest=command.secret_digest, created_at=world.now)
    client = Client(
        tenant_id=world.tenant_id,
        id=command.client_id,
        subject_id=command.subject_id,
        name=command.name,
        scopes=command.scopes,
        secrets=() if command.redirect_uris else (secret,),
        redirect_uris=command.redirect_uris,
    )
    return world.save(client)


@HANDLERS.on(AddSecret, lambda m: [*_client(m), *granter_refs(m)], granter_roles)
def add_secret(world: World, message: Message[AddSecret]) -> Client:
    """Answers the client with one more secret."""
    command = message.data
    client = present(Client, world.get(Client, command.client_id))
    demand_grantable(world, set(client.scopes) & ROLES[CLIENT], command.granter)
    secret = Secret(id=command.secret_id, digest=command.secret_digest, created_at=world.now)
    return world.save(domain.client.add_secret(client, secret))


@HANDLERS.on(RemoveSecret, _client_and_epoch)
def remove_secret(world: World, message: Message[RemoveSecret]) -> Client:
    """Answers the client without the secret. Its tokens end: nobody knows which secret each was given for."""
    client = present(Client, world.get(Client, message.data.client_id))
    without = domain.client.remove_secret(client, message.data.secret_id)
    raise_epoch(world, "client", client.id)
    return world.save(without)


@HANDLERS.on(DeleteClient, _client_and_epoch)
def delete_client(world: World, message: Message[DeleteClient]) -> Client:
    """Answers what stays of the client. Its tokens end."""
    client = present(Client, world.get(Client, message.data.client_id))
    raise_epoch(world, "client", client.id)
    return world.save(domain.client.delete(client, world.now))


@HANDLERS.on(StartSession, lambda m: [_own_tenant(m)], unaudited=COMING_IN)  # a new id: there is nothing to look up
def start_session(world: World, message: Message[StartSession]) -> Session:
    """Answers the new session."""
    command = message.data
    domain.tenant.demand_active(world.get(Tenant, world.tenant_id))
    session = domain.session.start(
        world.tenant_id, command.session_id, command.subject_id, command.digest, world.now, is_guest=command.is_guest
    )
    return world.save(session)


def _epoch_if_reused(world: World, message: Message[RefreshSession]) -> list[Ref]:
    """Few refreshes end a session, so the others look up no epoch."""
    command, session = message.data, world.get(Session, message.data.session_id)
    if session is None:
        return []
    _, came_to = domain.session.refresh(session, command.presented, command.successor, world.now)
    return [epoch_ref(command.session_id)] if came_to is Refreshed.REUSED else []


def _admits(tenant: Tenant, session: Session) -> bool:
    """Its staff set a shop up before it is open to shoppers, and who was let in reads on where nothing new begins."""
    return tenant.admits_shoppers if session.client_id is None else tenant.admits_clients


@HANDLERS.on(RefreshSession, lambda m: [Ref(Session, m.data.session_id), _own_tenant(m)], _epoch_if_reused, unaudited=COMING_IN)
def refresh_session(world: World, message: Message[RefreshSession]) -> tuple[Session | None, Refreshed]:
    """Answers the session and what became of the token. A refusal is no error here: the end of a session must stand."""
    command = message.data
    session = world.get(Session, command.session_id)
    tenant = world.get(Tenant, world.tenant_id)
    if session is None or tenant is None or session.client_id != command.client_id or not _admits(tenant, session):
        return session, Refreshed.REFUSED
    refreshed, came_to = domain.session.refresh(session, command.presented, command.successor, world.now)
    if refreshed != session:
        world.save(refreshed)
    if came_to is Refreshed.REUSED:
        raise_epoch(world, "session", session.id)
    return refreshed, came_to


@HANDLERS.on(AnnounceTenant, lambda m: [Ref(Tenant, m.tenant_id)], outlives=True)
def announce_tenant(world: World, _message: Message[AnnounceTenant]) -> None:
    """A new version without a change: every reader keeps the highest, so nobody minds who knows it already."""
    tenant = world.get(Tenant, world.tenant_id)
    if tenant is not None:
        world.save(tenant, domain.tenant.updated(tenant))
