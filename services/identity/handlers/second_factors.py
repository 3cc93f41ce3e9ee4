"""A member's second factor: begun, confirmed, its recovery codes renewed, and removed, by nobody but the member."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.common.decision import Message, Ref, World, present
from services.identity import domain
from services.identity.domain.member import Member
from services.identity.domain.second_factor import SecondFactor, Shown
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginFactor:
    """Keep a secret that the member has still to show a code of."""

    member_id: UUID
    enrolment: UUID
    sealed_secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmFactor:
    """Ask for it from now on; `recovery` are the digests of its recovery codes."""

    member_id: UUID
    shown: Shown
    recovery: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewRecoveryCodes:
    """Take other recovery codes for those there were."""

    member_id: UUID
    shown: Shown
    recovery: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFactor:
    """Ask for it no more."""

    member_id: UUID
    shown: Shown


def factor_refs(member_id: UUID) -> list[Ref]:
    """A member and their second factor, both locked: of two who show the same code, one comes second."""
    return [Ref(Member, member_id), Ref(SecondFactor, member_id)]


def _own(message: Message[Any]) -> list[Ref]:
    return factor_refs(message.data.member_id)


def _active(world: World, member_id: UUID) -> Member:
    member = present(Member, world.get(Member, member_id))
    if not member.is_active:
        raise domain.second_factor.not_right()
    return member


@HANDLERS.on(BeginFactor, _own)
def begin_factor(world: World, message: Message[BeginFactor]) -> SecondFactor:
    """Answers the factor that waits."""
    command = message.data
    member = _active(world, command.member_id)
    factor = domain.second_factor.begin(
        world.get(SecondFactor, member.id),
        tenant_id=world.tenant_id,
        member_id=member.id,
        enrolment=command.enrolment,
        sealed_secret=command.sealed_secret,
    )
    return world.save(factor)


@HANDLERS.on(ConfirmFactor, _own)
def confirm_factor(world: World, message: Message[ConfirmFactor]) -> SecondFactor:
    """Answers the factor as it is asked for from now on."""
    command = message.data
    member = _active(world, command.member_id)
    return world.save(domain.second_factor.confirm(world.get(SecondFactor, member.id), command.shown, command.recovery))


@HANDLERS.on(RenewRecoveryCodes, _own)
def renew_recovery_codes(world: World, message: Message[RenewRecoveryCodes]) -> SecondFactor:
    """Answers the factor with other recovery codes."""
    command = message.data
    member = _active(world, command.member_id)
    return world.save(domain.second_factor.renew(world.get(SecondFactor, member.id), command.shown, command.recovery))


@HANDLERS.on(RemoveFactor, _own)
def remove_factor(world: World, message: Message[RemoveFactor]) -> SecondFactor:
    """Answers what stays of the factor."""
    command = message.data
    member = _active(world, command.member_id)
    used = domain.second_factor.use(world.get(SecondFactor, member.id), command.shown)
    return world.save(domain.second_factor.remove(used))
