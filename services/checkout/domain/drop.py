"""Drops: a product that more people want at once than there are units of it, and the queue before it. Pure.

Who arrives gets a number; how far numbers are admitted stands in the drop alone. So a place is never rewritten when it is
somebody's turn, and how many are ahead is a difference of two numbers. Who is admitted may start one checkout with the product,
for a while; then the next in the queue is. Nobody is admitted for units that are not there, beyond a small share of them: some
of those who are admitted come no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil, floor
from typing import ClassVar
from uuid import UUID, uuid5

from libs.common.decision import Aggregate, present
from libs.common.errors import ConflictError, RejectedError
from services.checkout.domain.stock import Stock, StockPolicy

NAMES = UUID("6f0a3a52-6a53-5a0e-9a5b-2a4f1d6f7c11")
"""Under which a drop is named after its product."""
OVERCOMMIT_PERCENT = 5
"""So many more than there are units, in percent and rounded down, may be admitted at once: of the last few units nobody is."""
WAVE = timedelta(seconds=10)
"""Who is admitted within these is admitted together, and has as long as the last of them."""
LONGEST_BURST_SECONDS = 5
"""What was not admitted longer ago, since nobody waited or nothing was free, is not made up for."""
ASKS_PER_SECOND = 100
"""So often those who are far from their turn ask, all together."""
SHORT_PAUSE_SECONDS, LONG_PAUSE_SECONDS = 60, 600
"""So long they pause between, in a small crowd and in any."""
LEAST_SHARE = 0.1
"""Of the rate, that is kept to however crowded it is."""


class Standing(StrEnum):
    """How somebody stands in a queue."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    USED = "used"
    """They have started the checkout that they were admitted for."""
    LAPSED = "lapsed"
    """They were admitted, and did not come in time."""
    SOLD_OUT = "sold-out"
    OVER = "over"
    """The product is sold like any other by now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wave:
    """Those who were admitted together."""

    up_to: int
    """Their last number. The first is the one after the wave before, or anywhere below."""
    began_at: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How a drop lets people in, as the tenant sets it."""

    per_minute: int
    patience_seconds: int = 300
    """How long who is admitted may take to start a checkout."""
    starts_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop(Aggregate):
    """A product's waiting room. One that was taken away stays as a row, so that its numbers go on when it comes back."""

    OWNER: ClassVar[str | None] = None
    id: UUID
    sku: str
    per_minute: int
    patience_seconds: int
    starts_at: datetime
    """Who arrives before waits, and nobody is admitted."""
    ends_at: datetime | None = None
    """From here on the product is sold like any other."""
    last_number: int = 0
    """The number of who arrived last."""
    opened_after: int = 0
    """Numbers up to here are of an earlier drop of the product."""
    served_number: int = 0
    """Numbers up to here have been admitted."""
    rated_at: datetime
    """Up to when the rate is used up."""
    waves: tuple[Wave, ...] = ()
    """Those who may still come, the oldest first."""
    sold_out: bool = False
    deleted_at: datetime | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was taken away."""
        return self.deleted_at is not None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self.last_number - self.served_number

    def guards(self, now: datetime) -> bool:
        """Whether the product is sold to those alone who were admitted."""
        return not self.is_gone and (self.ends_at is None or now < self.ends_at)

    def live(self, now: datetime) -> tuple[Wave, ...]:
        """Those who may still come."""
        return tuple(wave for wave in self.waves if now < wave.until)

    def lapsed_number(self, now: datetime) -> int:
        """Numbers up to here may come no more."""
        return max((wave.up_to for wave in self.waves if wave.until <= now), default=self._below_waves)

    @property
    def _below_waves(self) -> int:
        return self.opened_after if self.waves else self.served_number


@dataclass(frozen=True, kw_only=True, slots=True)
class Place(Aggregate):
    """Somebody's place in a queue: one a subject. Who was served and wants another gets a new number."""

    OWNER: ClassVar[str | None] = "subject_id"
    id: UUID
    drop_id: UUID
    subject_id: UUID
    number: int
    joined_at: datetime
    checkout_id: UUID | None = None
    """The one that they were admitted for."""


def drop_id(sku: str) -> UUID:
    """The id of a product's drop."""
    return uuid5(NAMES, sku)


def place_id(drop: UUID, subject_id: UUID) -> UUID:
    """The id of a subject's place."""
    return uuid5(drop, str(subject_id))


def put(known: Drop | None, tenant_id: UUID, sku: str, terms: Terms, now: datetime) -> Drop:
    """Open a waiting room, or change the terms of one that is there: who waits keeps their place. Raises RejectedError."""
    starts_at = terms.starts_at or (known.starts_at if known and not known.is_gone else now)
    if terms.ends_at is not None and terms.ends_at <= max(starts_at, now):
        raise RejectedError("drop-ends-before", "ends_at is to come, and after starts_at")
    if known is None:
        known = Drop(tenant_id=tenant_id, id=drop_id(sku), sku=sku, per_minute=1, patience_seconds=1, starts_at=now, rated_at=now)
    elif known.is_gone or (known.ends_at is not None and known.ends_at <= now):
        last = known.last_number
        known = replace(known, deleted_at=None, opened_after=last, served_number=last, waves=(), sold_out=False, rated_at=now)
    return replace(
        known,
        per_minute=terms.per_minute,
        patience_seconds=terms.patience_seconds,
        starts_at=starts_at,
        ends_at=terms.ends_at,
    )


def take_away(drop: Drop | None, now: datetime) -> Drop:
    """Close the waiting room: the product is sold like any other, and nobody waits."""
    return replace(present(Drop, drop), deleted_at=now)


def join(drop: Drop | None, place: Place | None, subject_id: UUID, now: datetime) -> tuple[Drop, Place] | None:
    """Who arrives, and their number; None who has a place already. Raises NotFoundError and ConflictError."""
    drop = present(Drop, drop)
    if not drop.guards(now):
        raise ConflictError("drop-over", "the drop is over: the product is sold without waiting")
    if place is not None and standing(drop, place, now) not in {None, Standing.USED, Standing.LAPSED}:
        return None
    if drop.sold_out:
        raise ConflictError("sold-out", "there are none left, and nobody is admitted any more")
    number, key = drop.last_number + 1, place_id(drop.id, subject_id)
    fresh = Place(tenant_id=drop.tenant_id, id=key, drop_id=drop.id, subject_id=subject_id, number=number, joined_at=now)
    if place is not None:
        fresh = replace(place, number=number, joined_at=now, checkout_id=None)
    return replace(drop, last_number=number), fresh


def standing(drop: Drop, place: Place, now: datetime) -> Standing | None:
    """How somebody stands; None whose place is of an earlier drop."""
    if place.number <= drop.opened_after:
        return None
    if place.checkout_id is not None:
        return Standing.USED
    if not drop.guards(now):
        return Standing.OVER
    if place.number > drop.served_number:
        return Standing.SOLD_OUT if drop.sold_out else Standing.WAITING
    return Standing.ADMITTED if admitted_until(drop, place, now) is not None else Standing.LAPSED


def admitted_until(drop: Drop, place: Place, now: datetime) -> datetime | None:
    """Until when they may start their checkout, if they may."""
    wave = next((each for each in drop.waves if place.number <= each.up_to), None)
    is_theirs = wave is not None and drop.lapsed_number(now) < place.number <= drop.served_number
    return wave.until if wave is not None and is_theirs and now < wave.until else None


def ahead(drop: Drop, place: Place) -> int:
    """How many are admitted before them."""
    return max(place.number - drop.served_number - 1, 0)


def wait_seconds(drop: Drop, place: Place, now: datetime) -> int:
    """When it is their turn at the soonest, should nobody before them fail to come."""
    begins_in = max((drop.starts_at - now).total_seconds(), 0.0)
    return ceil(begins_in + (ahead(drop, place) + 1) * 60 / drop.per_minute)


def pause_seconds(drop: Drop, place: Place, now: datetime) -> int:
    """When it is worth asking again: at half of what is still to be waited, and so that a large crowd is heard slowly."""
    latest = min(max(drop.waiting // ASKS_PER_SECOND, SHORT_PAUSE_SECONDS), LONG_PAUSE_SECONDS)
    return min(max(wait_seconds(drop, place, now) // 2, 1), latest)


# --- Who is let in ---------------------------------------------------------------------------------------------------


def admissible(stock: Stock | None, unused: int) -> int | None:
    """How many more may be admitted while so many are and have not come; None: as many as want, nobody counts the units."""
    if stock is not None and stock.policy is not StockPolicy.TRACKED:
        return None
    free = stock.on_hand if stock is not None else 0
    return max(free + free * OVERCOMMIT_PERCENT // 100 - unused, 0)


def is_sold_out(stock: Stock | None) -> bool:
    """Whether none are left, and none are held that could come back."""
    if stock is None:
        return True
    return stock.policy is StockPolicy.TRACKED and not stock.on_hand and not stock.reserved


def admit(drop: Drop, stock: Stock | None, unused: int, now: datetime, crowded: float = 0.0) -> Drop:
    """Let in whoever's turn it is. The same drop if nobody's is.

    `unused`: how many of those who may still come have not. `crowded`: which part of its time whoever decides waits for a
    processor, busy with others. Fewer are let in then, and fewer than in proportion: a queue at a processor grows so, too.
    """
    if not drop.guards(now) or now < drop.starts_at or not drop.waiting:
        return drop
    if is_sold_out(stock):
        return drop if drop.sold_out else replace(drop, sold_out=True)
    drop = replace(drop, sold_out=False) if drop.sold_out else drop
    per_minute = drop.per_minute * max((1 - crowded) ** 2, LEAST_SHARE)
    burst = timedelta(seconds=max(LONGEST_BURST_SECONDS, 2 * 60 / per_minute))
    since = max(drop.rated_at, drop.starts_at, now - burst)
    due = floor((now - since).total_seconds() * per_minute / 60)
    most = admissible(stock, unused)
    count = min(due, drop.waiting, due if most is None else most)
    if count <= 0:
        return drop
    rated_at = since + timedelta(seconds=count * 60 / per_minute)
    served = drop.served_number + count
    return replace(drop, served_number=served, rated_at=rated_at, waves=(*_grown(drop, served, now),))


def _grown(drop: Drop, served: int, now: datetime) -> Iterator[Wave]:
    """The waves with those that are admitted now: a young one takes them in. Of those that are over, one says up to where."""
    until = now + timedelta(seconds=drop.patience_seconds)
    over = [wave for wave in drop.waves if wave.until <= now]
    live = list(drop.live(now))
    yield from over[-1:]
    if live and now < live[-1].began_at + WAVE:
        yield from live[:-1]
        yield replace(live[-1], up_to=served, until=until)
        return
    yield from live
    yield Wave(up_to=served, began_at=now, until=until)


# --- At the checkout -------------------------------------------------------------------------------------------------


def may_buy(drop: Drop | None, place: Place | None, now: datetime) -> bool:
    """Whether this subject may buy the product now."""
    if drop is None or not drop.guards(now):
        return True
    return place is not None and standing(drop, place, now) is Standing.ADMITTED


def use(place: Place, checkout_id: UUID) -> Place:
    """They have come: what they were admitted for is this checkout."""
    return replace(place, checkout_id=checkout_id)
