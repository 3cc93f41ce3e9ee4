"""Card testing: stolen cards are put to their issuers one after another, to learn which are good. Pure.

Counted are the cards that were refused, of one buyer, from one address and in one shop, less the payments that were held
since. Who has too many of them waits before the next: of their own if they are known, and from where they are if they are
guests, who come again as somebody else. What a shop has of them never turns anybody away: it makes the bounds of its guests
strict, for otherwise whoever holds stolen cards could close the shop.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from typing import ClassVar, Literal, TypeAlias
from uuid import UUID, uuid5

from libs.common.contracts.checkout import CardTestingSuspected
from libs.common.decision import Aggregate
from libs.common.errors import UnavailableError

NO_ISSUERS_REFUSAL = frozenset({"provider-rejected", "amount-not-payable", "currency-not-supported", "did-not-happen"})
"""The decline codes of refusals that nobody's card is at fault for."""
SLOT_SECONDS = 10
"""What was refused within these is counted together, and forgotten together."""
LONGEST_WINDOW_SECONDS = 3_600
FAR_SECONDS = 2 * LONGEST_WINDOW_SECONDS
"""What is further ahead than any clock can be wrong was never counted by us."""
STRICTER = 3
"""So many times fewer are let pass of guests while their whole shop has too many."""


By: TypeAlias = Literal["subject", "address", "tenant"]
"""Whose refused cards are counted."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """At so many refused cards within the window the next payment has to wait; a tenant may choose others."""

    window_seconds: int = 600
    per_subject: int = 5
    per_address: int = 15
    per_tenant: int = 100
    challenge_percent: int = 60
    """At this share of a bound whoever pays is asked for proof first (3-D Secure), which a thief of numbers does not have."""

    def of(self, by: By) -> int:
        """The one for what is counted so."""
        return {"subject": self.per_subject, "address": self.per_address, "tenant": self.per_tenant}[by]

    def first_of(self, by: By) -> int:
        """From how many on proof is asked for; a first card that was refused is nothing odd."""
        return max(ceil(self.of(by) * self.challenge_percent / 100), 1)

    def stricter(self) -> "Bounds":
        """Those of guests in a shop that has too many."""
        subject = min(self.per_subject, max(self.per_subject // STRICTER, 2))  # a second card is nothing odd
        address = max(self.per_address // STRICTER, 1)
        return replace(self, per_subject=subject, per_address=address)


class TooManyDeclinesError(UnavailableError):
    """Too many cards were refused lately; nothing was done, and nobody was asked."""

    status = 429

    def __init__(self, by: By, seconds: int) -> None:
        detail = "too many cards were refused; wait for Retry-After seconds before the next"
        super().__init__("too-many-declines", detail, retry_after=seconds)
        self.by = by
        """Whose number it was, which is not for whoever tries cards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payer:
    """Who would pay, and from where. A tenant's own machine is none: it buys for others."""

    tenant_id: UUID
    subject_id: UUID
    address: str
    is_guest: bool

    @property
    def subject(self) -> UUID:
        """Where their own refused cards are counted."""
        return suspect(self.tenant_id, "subject", str(self.subject_id))

    @property
    def origin(self) -> UUID:
        """Where those from their address are."""
        return suspect(self.tenant_id, "address", self.address)


def suspect(tenant_id: UUID, by: By, name: str) -> UUID:
    """The id of a count. No address is kept: who knows one can find its count, and who knows a count has to guess."""
    return uuid5(tenant_id, f"{by}:{name}")


def shop_of(tenant_id: UUID) -> UUID:
    """Where all of a shop's are counted."""
    return suspect(tenant_id, "tenant", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Declines(Aggregate):
    """How many cards were refused lately, of one buyer, from one address or in one shop."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    by: By
    counts: dict[int, int] = field(default_factory=dict)
    """By the slot that it happened in, counted from 1970."""
    last_at: datetime

    def within(self, now: datetime, window_seconds: int) -> Mapping[int, int]:
        """Those of the window, the oldest first: a slot is in it until the whole of it is older."""
        return {slot: self.counts[slot] for slot in sorted(self.counts) if 0 < _left(slot, now, window_seconds) <= FAR_SECONDS}

    def count(self, now: datetime, window_seconds: int) -> int:
        """How many there are in the window."""
        return sum(self.within(now, window_seconds).values())

    def wait(self, now: datetime, window_seconds: int, bound: int) -> float:
        """In how many seconds there will be fewer than the bound, if there are no more until then; 0 if there are."""
        counts, wait = self.within(now, window_seconds), 0.0
        kept = sum(counts.values())
        for slot, count in counts.items():
            if kept < bound:
                break
            kept, wait = kept - count, _left(slot, now, window_seconds)
        return wait


def _slot(at: datetime) -> int:
    return int(at.timestamp()) // SLOT_SECONDS


def _left(slot: int, now: datetime, window_seconds: int) -> float:
    """In how many seconds the whole of a slot is older than the window."""
    return (slot + 1) * SLOT_SECONDS + window_seconds - now.timestamp()


def demand_may_try(
    payer: Payer, own: Declines | None, from_there: Declines | None, in_shop: Declines | None, bounds: Bounds, now: datetime
) -> None:
    """Let nobody put a card to its issuer who had too many refused. Raises TooManyDeclinesError, with when to come again."""
    if payer.is_guest and in_shop is not None and in_shop.count(now, bounds.window_seconds) >= bounds.per_tenant:
        bounds = bounds.stricter()
    counted = [own, from_there] if payer.is_guest else [own]
    window = bounds.window_seconds
    waits = [(each.wait(now, window, bounds.of(each.by)), each.by) for each in counted if each is not None]
    seconds, by = max(waits, default=(0.0, "subject"))
    if seconds > 0:
        raise TooManyDeclinesError(by, ceil(seconds))


def is_challenged(
    payer: Payer, own: Declines | None, from_there: Declines | None, in_shop: Declines | None, bounds: Bounds, now: datetime
) -> bool:
    """Whether this payer is to be asked for proof: who is close to waiting, and every guest of a shop that has too many."""
    window, counted = bounds.window_seconds, [own, from_there] if payer.is_guest else [own]
    if payer.is_guest and in_shop is not None and in_shop.count(now, window) >= bounds.per_tenant:
        return True
    near = [(each.count(now, window), bounds.first_of(each.by)) for each in counted if each is not None]
    return any(count >= first for count, first in near)


def declined(declines: Declines, bounds: Bounds, subject_id: UUID, now: datetime) -> tuple[Declines, CardTestingSuspected | None]:
    """One more was refused; an event if that is as many as there may be."""
    kept = {slot: count for slot, count in declines.within(now, LONGEST_WINDOW_SECONDS).items() if count}
    before, slot, bound = declines.count(now, bounds.window_seconds), _slot(now), bounds.of(declines.by)
    counted = replace(declines, counts={**kept, slot: kept.get(slot, 0) + 1}, last_at=max(now, declines.last_at))
    if before + 1 != bound:
        return counted, None
    return counted, CardTestingSuspected(
        suspect_id=declines.id,
        by=declines.by,
        subject_id=subject_id if declines.by == "subject" else None,
        declined_count=before + 1,
        window_seconds=bounds.window_seconds,
        until=now + timedelta(seconds=counted.wait(now, bounds.window_seconds, bound)),
    )


def held(declines: Declines, now: datetime) -> Declines | None:
    """A payment was held, which takes one of the refused back: the latest. None if there is none to take back."""
    newest = next(_with_any(declines.within(now, LONGEST_WINDOW_SECONDS)), None)
    if newest is None:
        return None
    return replace(declines, counts={**declines.counts, newest: declines.counts[newest] - 1})


def _with_any(counts: Mapping[int, int]) -> Iterator[int]:
    return (slot for slot in reversed(counts) if counts[slot])
