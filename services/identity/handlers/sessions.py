"""Sessions that end because somebody says so: whoever has them, their tenant's staff, or a refresh token handed back."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, Viewer, World
from services.identity import domain
from services.identity.domain.session import Session
from services.identity.domain.tenant import Tenant
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import COMING_IN, HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """Let a shopper in who was a guest until now, by the digest of the guest's refresh token: the guest is no more."""

    session_id: UUID
    subject_id: UUID
    is_guest: bool
    digest: str
    guest_session_id: UUID
    presented: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """End a session and every token of it, if it is any of the viewer's business."""

    session_id: UUID
    viewer: Viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeSession:
    """The same for whoever has proved that it is theirs: with a token of it. One that is not there, or over, is no matter."""

    session_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeToken:
    """End one access token of a machine, which has no session but itself."""

    token_id: str


def _guest_and_tenant(message: Message[TakeOver]) -> list[Ref]:
    guest = message.data.guest_session_id
    return [Ref(Session, guest), epoch_ref(guest), Ref(Tenant, message.tenant_id, shared=True)]


@HANDLERS.on(TakeOver, _guest_and_tenant, unaudited=COMING_IN)
def take_over(world: World, message: Message[TakeOver]) -> Session:
    """Answers the shopper's new session."""
    command = message.data
    domain.tenant.demand_active(world.get(Tenant, world.tenant_id))
    guest = domain.session.take_over(world.get(Session, command.guest_session_id), command.presented, world.now)
    raise_epoch(world, "session", guest.id)
    world.save(guest)
    session = domain.session.start(
        world.tenant_id, command.session_id, command.subject_id, command.digest, world.now, is_guest=command.is_guest
    )
    return world.save(replace(session, former_subject_id=guest.subject_id))


def _session_and_epoch(message: Message[Any]) -> list[Ref]:
    return [Ref(Session, message.data.session_id), epoch_ref(message.data.session_id)]


@HANDLERS.on(EndSession, _session_and_epoch)
def end_session(world: World, message: Message[EndSession]) -> Session:
    """Answers the session as it was left."""
    command = message.data
    return _ended(world, command.viewer.demand(Session, world.get(Session, command.session_id)))


@HANDLERS.on(RevokeSession, _session_and_epoch, unaudited=COMING_IN)
def revoke_session(world: World, message: Message[RevokeSession]) -> None:
    """Whoever hands a token back hears nothing of what became of its session."""
    session = world.get(Session, message.data.session_id)
    if session is not None and not session.is_gone:
        _ended(world, session)


@HANDLERS.on(RevokeToken, lambda m: [epoch_ref(m.data.token_id)], unaudited=COMING_IN)
def revoke_token(world: World, message: Message[RevokeToken]) -> None:
    """Nothing was kept of it, so nothing but its epoch says that there was one."""
    raise_epoch(world, "session", message.data.token_id)


def _ended(world: World, session: Session) -> Session:
    raise_epoch(world, "session", session.id)
    return world.save(domain.session.end(session))
