"""Passwords that are chosen anew: who is written to, and what ends when it is done."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, World
from services.identity import domain
from services.identity.domain.member import Member
from services.identity.domain.password_reset import PasswordReset
from services.identity.domain.session import Session
from services.identity.domain.tenant import Tenant
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class AskPasswordReset:
    """Write to a member; `digest` is that of the token in the letter."""

    member_id: UUID
    digest: str
    letter: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPassword:
    """Take a token, by its digest, for another password, by its hash. `sessions` are those that the member has."""

    member_id: UUID
    presented: str
    password: str
    sessions: tuple[UUID, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLeftSessions:
    """End those that were begun with the old password in the same moment."""

    member_id: UUID
    sessions: tuple[UUID, ...]


def _reset(message: Message[Any]) -> list[Ref]:
    member_id = message.data.member_id
    return [Ref(Member, member_id), Ref(PasswordReset, member_id), Ref(Tenant, message.tenant_id, shared=True)]


@HANDLERS.on(AskPasswordReset, _reset, unaudited="anybody may ask for anybody, and nothing changes by it")
def ask_password_reset(world: World, message: Message[AskPasswordReset]) -> None:
    """Whoever asks hears nothing of whether there is somebody to write to."""
    command = message.data
    member, tenant = world.get(Member, command.member_id), world.get(Tenant, world.tenant_id)
    if member is None or tenant is None or not member.is_active or not tenant.admits_clients:
        return
    asked = domain.password_reset.ask(
        world.get(PasswordReset, member.id),
        tenant_id=world.tenant_id,
        member_id=member.id,
        digest=command.digest,
        letter=command.letter,
        now=world.now,
    )
    if asked is not None:
        world.save(*asked)


def _reset_and_sessions(message: Message[ResetPassword]) -> list[Ref]:
    sessions = [Ref(Session, each) for each in message.data.sessions]
    return [*_reset(message), *sessions, epoch_ref(message.data.member_id)]


@HANDLERS.on(ResetPassword, _reset_and_sessions)
def reset_password(world: World, message: Message[ResetPassword]) -> Member:
    """Answers the member. Every token they had is over: whoever knew the old password may have any of them."""
    command = message.data
    member, tenant = world.get(Member, command.member_id), world.get(Tenant, world.tenant_id)
    if member is None or tenant is None or not member.is_active or not tenant.admits_clients:
        raise domain.password_reset.not_valid()
    world.save(domain.password_reset.use(world.get(PasswordReset, member.id), command.presented, world.now))
    raise_epoch(world, "subject", member.id)
    _end(world, member.id, command.sessions)
    return world.save(replace(member, password=command.password))


@HANDLERS.on(EndLeftSessions, lambda m: [Ref(Session, each) for each in m.data.sessions])
def end_left_sessions(world: World, message: Message[EndLeftSessions]) -> None:
    """Their access tokens are over by the epoch of the reset; so are their refresh tokens now."""
    _end(world, message.data.member_id, message.data.sessions)


def _end(world: World, member_id: UUID, sessions: tuple[UUID, ...]) -> None:
    for session_id in sessions:
        session = world.get(Session, session_id)
        if session is not None and session.subject_id == member_id and not session.is_gone:
            world.save(domain.session.end(session))
