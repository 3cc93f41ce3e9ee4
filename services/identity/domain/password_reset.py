"""Passwords that are chosen anew: a token by e-mail, good once and for an hour. Only the token's SHA-256 is here."""

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.contracts.identity import PasswordResetCreated
from libs.common.decision import Aggregate
from libs.common.errors import RejectedError

LIFETIME = timedelta(hours=1)
PAUSE = timedelta(minutes=1)
"""So long nobody is written to again, however often a stranger asks for it."""


class ResetState(StrEnum):
    """Where a member's reset stands. One that is over by time is still open: it can be asked for again."""

    OPEN = "open"
    USED = "used"


TRANSITIONS: dict[ResetState, frozenset[ResetState]] = {
    ResetState.OPEN: frozenset({ResetState.USED}),
    ResetState.USED: frozenset({ResetState.OPEN}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PasswordReset(Aggregate):
    """The newest reset that was asked for, for one member: a row each, however often somebody asks."""

    KEY: ClassVar[str] = "member_id"
    OWNER: ClassVar[str | None] = "member_id"
    member_id: UUID
    state: ResetState
    digest: str
    asked_at: datetime


def digest_of(token: str) -> str:
    """What is kept of a token. It has 256 random bits, so a slow hash would only slow us."""
    return hashlib.sha256(token.encode()).hexdigest()


def ask(
    reset: PasswordReset | None, *, tenant_id: UUID, member_id: UUID, digest: str, letter: str | None, now: datetime
) -> tuple[PasswordReset, PasswordResetCreated] | None:
    """A new token in the place of the one before; None while the letter with that one is hardly there."""
    if reset is None:
        made = PasswordReset(tenant_id=tenant_id, member_id=member_id, state=ResetState.OPEN, digest=digest, asked_at=now)
    elif reset.state is ResetState.OPEN and now < reset.asked_at + PAUSE:
        return None
    else:
        made = replace(reset, state=ResetState.OPEN, digest=digest, asked_at=now)
    return made, PasswordResetCreated(member_id=member_id, expires_at=now + LIFETIME, letter=letter)


def not_valid() -> RejectedError:
    """All that is ever said of a token that is made up, used, replaced, over by time or another tenant's."""
    return RejectedError("password-reset-not-valid", "this link is not valid; ask for another")


def use(reset: PasswordReset | None, presented: str, now: datetime) -> PasswordReset:
    """Take the token whose digest is presented. Raises RejectedError, in the same words whatever is wrong."""
    is_right = hmac.compare_digest(presented, reset.digest if reset is not None else "")
    if reset is None or not is_right or ResetState.USED not in TRANSITIONS[reset.state] or now >= reset.asked_at + LIFETIME:
        raise not_valid()
    return replace(reset, state=ResetState.USED)
