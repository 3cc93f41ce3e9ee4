"""Second factors: codes that change every 30 seconds (TOTP, RFC 6238), and ten recovery codes. Each is good once."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, RejectedError

STEP_SECONDS = 30
DIGITS = 6
WINDOW = 1
"""So many steps before and after the one of now are taken, for clocks that go wrong and people who type slowly."""
SECRET_BYTES = 20
RECOVERY_CODES = 10


class FactorState(StrEnum):
    """Where a member's second factor stands. A pending one is asked for nowhere: its owner has not shown that it works."""

    PENDING = "pending"
    ACTIVE = "active"
    REMOVED = "removed"


TRANSITIONS: dict[FactorState, frozenset[FactorState]] = {
    FactorState.PENDING: frozenset({FactorState.ACTIVE, FactorState.REMOVED}),
    FactorState.ACTIVE: frozenset({FactorState.REMOVED}),
    FactorState.REMOVED: frozenset({FactorState.PENDING}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondFactor(Aggregate):
    """The one second factor of a member. Its secret is sealed, and of recovery codes only SHA-256 is kept."""

    KEY: ClassVar[str] = "member_id"
    OWNER: ClassVar[str | None] = "member_id"
    member_id: UUID
    enrolment: UUID
    """Which secret it is: another one, another id."""
    state: FactorState
    sealed_secret: bytes | None
    last_step: int = 0
    """The step of the last code that was taken: it and all before it are used."""
    recovery: tuple[str, ...] = ()
    """Digests of the recovery codes that are left."""

    @property
    def is_active(self) -> bool:
        """Whether its member is asked for it."""
        return self.state is FactorState.ACTIVE

    @property
    def is_pending(self) -> bool:
        """Whether it waits for its first code."""
        return self.state is FactorState.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What somebody showed, as far as it was judged before anything was locked."""

    enrolment: UUID
    """The secret that it was held against."""
    step: int | None
    """The step whose code it is; None when it is none's around now."""
    digest: str
    """Of the same text, in case it is a recovery code."""


def step_at(at: datetime) -> int:
    """How many steps there were since 1970."""
    return int(at.timestamp()) // STEP_SECONDS


def code_of(secret: bytes, step: int) -> str:
    """The code of a step (RFC 4226 §5.3, with SHA-1, which is what every authenticator app computes)."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    at = mac[-1] & 15
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def matching_step(secret: bytes, code: str, now: datetime) -> int | None:
    """The newest step around now whose code this is."""
    steps = range(step_at(now) + WINDOW, step_at(now) - WINDOW - 1, -1)
    matching = [step for step in steps if hmac.compare_digest(code_of(secret, step).encode(), code.encode())]
    return matching[0] if matching else None


def digest_of(member_id: UUID, recovery_code: str) -> str:
    """What is kept of a recovery code, however it is written. It has 80 random bits, and is of this member alone."""
    plain = recovery_code.casefold().replace("-", "").replace(" ", "")
    return hashlib.sha256(member_id.bytes + plain.encode()).hexdigest()


def not_right() -> RejectedError:
    """All that is ever said of a code: wrong, of another time, used before, or asked of nobody."""
    return RejectedError("second-factor-refused", "this code is not right, or was used before; wait for the next one")


def move(factor: SecondFactor, to: FactorState) -> SecondFactor:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[factor.state]:
        raise ConflictError(
            "second-factor-state", f"a second factor that is {factor.state} cannot be {to}", state=str(factor.state)
        )
    return replace(factor, state=to)


def begin(
    factor: SecondFactor | None, *, tenant_id: UUID, member_id: UUID, enrolment: UUID, sealed_secret: bytes
) -> SecondFactor:
    """A secret that waits to be confirmed, in the place of one that waited before. Raises ConflictError beside an active one."""
    if factor is None:
        pending = FactorState.PENDING
        return SecondFactor(
            tenant_id=tenant_id, member_id=member_id, enrolment=enrolment, state=pending, sealed_secret=sealed_secret
        )
    if not factor.is_pending:
        factor = move(factor, FactorState.PENDING)
    return replace(factor, enrolment=enrolment, sealed_secret=sealed_secret, last_step=0, recovery=())


def confirm(factor: SecondFactor | None, shown: Shown, recovery: Sequence[str]) -> SecondFactor:
    """Ask for it from now on, upon a first code. Raises RejectedError for any other."""
    if factor is None or not factor.is_pending or factor.enrolment != shown.enrolment or shown.step is None:
        raise not_right()
    return replace(move(factor, FactorState.ACTIVE), last_step=shown.step, recovery=tuple(recovery))


def use(factor: SecondFactor | None, shown: Shown | None) -> SecondFactor:
    """Take a code or a recovery code, which is good no more then. Raises RejectedError, in the same words whatever is wrong."""
    if factor is None or shown is None or not factor.is_active or factor.enrolment != shown.enrolment:
        raise not_right()
    if shown.step is not None and shown.step > factor.last_step:
        return replace(factor, last_step=shown.step)
    if shown.digest in factor.recovery:
        return replace(factor, recovery=tuple(each for each in factor.recovery if each != shown.digest))
    raise not_right()


def demand(factor: SecondFactor | None, shown: Shown | None, *, is_required: bool) -> SecondFactor | None:
    """Let somebody in who knows the password: with their second factor if they have one, or must have. Raises RejectedError."""
    if (factor is not None and factor.is_active) or is_required:
        return use(factor, shown)
    return None


def renew(factor: SecondFactor | None, shown: Shown, recovery: Sequence[str]) -> SecondFactor:
    """Other recovery codes in the place of all there were. Raises RejectedError."""
    return replace(use(factor, shown), recovery=tuple(recovery))


def remove(factor: SecondFactor) -> SecondFactor:
    """What stays of it: nothing to come in with."""
    gone = factor if factor.state is FactorState.REMOVED else move(factor, FactorState.REMOVED)
    return replace(gone, sealed_secret=None, recovery=())
