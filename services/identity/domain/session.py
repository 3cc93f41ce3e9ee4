"""Sessions, of shoppers and of members. A refresh token is good once; a second use after a short grace means it was stolen."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID, uuid5

from libs.common.decision import Aggregate
from libs.common.errors import ConflictError, RejectedError

LIFETIME = timedelta(days=30)
"""However often it is refreshed, a session ends this long after it began."""
GRACE = timedelta(seconds=30)
"""How long a used token still answers with its successor: an answer can be lost, and tabs race."""


class SessionState(StrEnum):
    """Where a session stands."""

    LIVE = "live"
    ENDED = "ended"


TRANSITIONS: dict[SessionState, frozenset[SessionState]] = {
    SessionState.LIVE: frozenset({SessionState.ENDED}),
    SessionState.ENDED: frozenset(),
}


class Refreshed(StrEnum):
    """What became of a refresh token that was presented."""

    ROTATED = "rotated"
    REPEATED = "repeated"
    """Used a moment ago: the answer is the same successor again."""
    REUSED = "reused"
    """Used long ago: somebody has a copy, and nobody can tell who is the shopper."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Session(Aggregate):
    """Somebody who came in once, and all the refresh tokens that followed. Of those only SHA-256 is kept."""

    OWNER: ClassVar[str | None] = "subject_id"
    id: UUID
    subject_id: UUID
    is_guest: bool
    state: SessionState
    digest: str
    previous_digest: str | None = None
    refresh_count: int = 0
    """How often a token of it was taken for the next."""
    former_subject_id: UUID | None = None
    """The guest that this shopper was, whose carts are theirs to claim."""
    rotated_at: datetime
    expires_at: datetime
    client_id: str | None = None
    """The application that a member signed in with; None is a shopper's session."""
    scopes: tuple[str, ...] = ()
    """What the application asked for."""

    @property
    def is_gone(self) -> bool:
        """Whether it has ended. It is kept, so that a copy of its refresh token is known for what it is."""
        return self.state is SessionState.ENDED

    @property
    def began_at(self) -> datetime:
        """When somebody came in."""
        return self.expires_at - LIFETIME


def subject_of(tenant_id: UUID, shopper_ref: str) -> UUID:
    """The subject of a tenant's own name for a shopper: the same for ever, with nothing to look up."""
    return uuid5(tenant_id, f"shopper:{shopper_ref}")


def start(
    tenant_id: UUID,
    session_id: UUID,
    subject_id: UUID,
    digest: str,
    now: datetime,
    *,
    is_guest: bool,
    client_id: str | None = None,
    scopes: tuple[str, ...] = (),
) -> Session:
    """A new session, with the digest of its first refresh token."""
    return Session(
        tenant_id=tenant_id,
        id=session_id,
        subject_id=subject_id,
        is_guest=is_guest,
        state=SessionState.LIVE,
        digest=digest,
        rotated_at=now,
        expires_at=now + LIFETIME,
        client_id=client_id,
        scopes=scopes,
    )


def move(session: Session, to: SessionState) -> Session:
    """Change state, if the table says so. Raises ConflictError otherwise."""
    if to not in TRANSITIONS[session.state]:
        raise ConflictError("session-state", f"a session that is {session.state} cannot become {to}", state=str(session.state))
    return replace(session, state=to)


def end(session: Session) -> Session:
    """The session when somebody has left, or was shown the door. Said again, it changes nothing."""
    return session if session.is_gone else move(session, SessionState.ENDED)


def take_over(guest: Session | None, presented: str, now: datetime) -> Session:
    """The guest's session as it is when its shopper is known: ended. Raises RejectedError unless the token is of a live one.

    What is wrong with the token is not told: unknown, used, over and another tenant's are one.
    """
    if guest is not None and guest.is_guest and not guest.is_gone and now < guest.expires_at and _is_good(guest, presented, now):
        return end(guest)
    raise RejectedError("guest-token-refused", "this is no refresh token of a guest here, or it is used or over")


def _is_good(session: Session, presented: str, now: datetime) -> bool:
    return presented == session.digest or (presented == session.previous_digest and now - session.rotated_at <= GRACE)


def refresh(session: Session, presented: str, successor: str, now: datetime) -> tuple[Session, Refreshed]:
    """Decide on a refresh token of this session, by its digest and that of the one that would follow it.

    The caller has made sure that the token is one of ours: a made-up one must not be able to end a session.
    """
    if session.state is SessionState.ENDED or now >= session.expires_at:
        return session, Refreshed.REFUSED
    if presented == session.digest:
        count = session.refresh_count + 1
        rotated = replace(session, digest=successor, previous_digest=presented, rotated_at=now, refresh_count=count)
        return rotated, Refreshed.ROTATED
    if presented == session.previous_digest and now - session.rotated_at <= GRACE:
        return session, Refreshed.REPEATED
    return move(session, SessionState.ENDED), Refreshed.REUSED
