"""One tenant's money as we have it beside what the provider has, and where the two differ. Pure.

Both sides are brought into the same few words (`Side`) and compared object by object. A difference may be repaired only
where one side proves what the other lacks; all else is for a person.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

# --- Sides --------------------------------------------------------------------------------------------------------


class Subject(StrEnum):
    """What is compared."""

    PAYMENT = "payment"
    REFUND = "refund"
    DISPUTE = "dispute"
    TRANSACTION = "transaction"
    """A movement on the provider's balance, beside our ledger."""


class Standing(StrEnum):
    """What has become of the money, in the few words that both sides have."""

    OPEN = "open"
    """It may yet move."""
    HELD = "held"
    MOVED = "moved"
    NOTHING = "nothing"
    """Nothing is held, nothing has moved, and nothing will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One object as one side has it. Amounts in minor units of the ISO 4217 currency."""

    subject: Subject
    our_id: UUID | None
    """Our id of it; of the provider's object, the one its metadata tells or its payment leads to."""
    provider_id: str | None
    payment_id: UUID | None
    standing: Standing
    state: str
    """In that side's own word, for whoever reads the report."""
    amount_minor: int
    """What has moved."""
    held_minor: int = 0
    """What is held, or on its way."""
    fee_minor: int | None = None
    """What the provider kept. None: this side does not say."""
    fee_currency: str | None = None
    """Of a dispute whose fee is in another currency than itself: that."""
    currency: str
    made_at: datetime
    since: datetime
    """When it last began to change, as far as this side knows."""
    may_begin_again: bool = False
    """Nothing has come of it, but its payer may yet bring something about without us."""
    source_id: str | None = None
    """Of a movement on the provider's balance: the provider's object that caused it."""
    exchange_rate: str | None = None
    """Of a movement in another currency than its payment's: at what the provider exchanged, as far as it told."""
    exchanged_minor: int | None = None
    """Of the same as our ledger has it: so much of the payment's money, in its own currency."""

    def as_json(self) -> dict[str, Any]:
        """What a report shows, and all that is needed to compare it again."""
        values = {
            "state": self.state,
            "standing": str(self.standing),
            "amount_minor": self.amount_minor,
            "held_minor": self.held_minor,
            "fee_minor": self.fee_minor,
            "made_at": self.made_at.isoformat(),
            "since": self.since.isoformat(),
            "source_id": self.source_id,
            "fee_currency": self.fee_currency,
            "exchange_rate": self.exchange_rate,
            "exchanged_minor": self.exchanged_minor,
        }
        return {name: value for name, value in values.items() if value is not None}


# --- Differences -------------------------------------------------------------------------------------------------------


class BreakKind(StrEnum):
    """How the sides differ."""

    MISSING_HERE = "missing-here"
    MISSING_THERE = "missing-there"
    AMOUNT = "amount"
    STATE = "state"
    FEE = "fee"


class Repair(StrEnum):
    """What one side proves, so that the other may be brought to it."""

    OBSERVE = "observe"
    """The provider has gone further: its object is told to our machine, which decides as it would upon a webhook."""
    POST = "post"
    """The provider's balance has moved, and our ledger lacks the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One difference, as it stands now."""

    kind: BreakKind
    ours: Side | None
    theirs: Side | None
    repair: Repair | None = None

    @property
    def either(self) -> Side:
        """The side that has it; the provider's, if both do."""
        side = self.theirs or self.ours
        if side is None:
            message = "a break of nothing"
            raise ValueError(message)
        return side

    @property
    def our_id(self) -> UUID | None:
        """Our id of it, from whichever side knows."""
        return self.ours.our_id if self.ours else self.either.our_id

    @property
    def payment_id(self) -> UUID | None:
        """The payment it belongs to, from whichever side knows."""
        return (self.ours.payment_id if self.ours else None) or self.either.payment_id

    @property
    def provider_id(self) -> str | None:
        """The provider's id of it, from whichever side knows."""
        return self.either.provider_id

    def key(self, tenant_id: UUID) -> UUID:
        """The same for the same difference, so that one found again keeps its age."""
        return uuid5(tenant_id, f"break:{self.either.subject}:{self.kind}:{self.provider_id or self.our_id}")


# --- Comparing ----------------------------------------------------------------------------------------------------

AHEAD: Mapping[Standing, frozenset[Standing]] = {
    Standing.OPEN: frozenset({Standing.HELD, Standing.MOVED, Standing.NOTHING}),
    Standing.HELD: frozenset({Standing.MOVED, Standing.NOTHING}),
    Standing.MOVED: frozenset(),
    Standing.NOTHING: frozenset(),
}
"""Where the provider may be further than we are, so that hearing of it is all we need. The rest is nobody's to guess."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to."""

    agreed: tuple[tuple[Side, Side], ...] = ()
    """The pairs that say the same: ours, theirs."""
    found: tuple[Found, ...] = ()
    in_flight: tuple[Found, ...] = ()
    """Differences too young to mean anything."""

    def about(self, provider_ids: Collection[str | None]) -> "Comparison":
        """The same, of these of the provider's objects alone: where only they were asked for, no other can be missed."""
        return Comparison(
            tuple(pair for pair in self.agreed if pair[1].provider_id in provider_ids),
            tuple(found for found in self.found if found.provider_id in provider_ids),
            tuple(found for found in self.in_flight if found.provider_id in provider_ids),
        )


def compare(ours: Sequence[Side], theirs: Sequence[Side], *, now: datetime, grace: timedelta) -> Comparison:
    """Hold both sides against each other. A provider's object belongs to ours by its id there, else by ours in its metadata."""
    by_provider_id = {side.provider_id: side for side in ours if side.provider_id is not None}
    nameless = {side.our_id: side for side in ours if side.provider_id is None}
    agreed: list[tuple[Side, Side]] = []
    differences: list[Found] = []
    met: set[int] = set()
    for their in theirs:
        mine = by_provider_id.get(their.provider_id or "") or nameless.get(their.our_id)
        if mine is None:
            differences.append(_missing_here(their))
            continue
        met.add(id(mine))
        difference = _difference(mine, their)
        if difference is None:
            agreed.append((mine, their))
        else:
            differences.append(difference)
    absent = [side for side in ours if id(side) not in met and _ought_to_be_there(side)]
    differences += [Found(kind=BreakKind.MISSING_THERE, ours=side, theirs=None) for side in absent]
    young = {index for index, each in enumerate(differences) if now - _since(each) < grace}
    return Comparison(
        tuple(agreed),
        tuple(each for index, each in enumerate(differences) if index not in young),
        tuple(each for index, each in enumerate(differences) if index in young),
    )


def _missing_here(their: Side) -> Found:
    """Refunds and disputes of a payment that we know are the provider's to tell of. A payment is never guessed at."""
    told = their.subject in {Subject.REFUND, Subject.DISPUTE} and their.payment_id is not None
    return Found(kind=BreakKind.MISSING_HERE, ours=None, theirs=their, repair=Repair.OBSERVE if told else None)


def _ought_to_be_there(side: Side) -> bool:
    """Something without an id there never reached the provider, unless money of it has moved."""
    return side.provider_id is not None or side.standing in {Standing.HELD, Standing.MOVED}


def _difference(ours: Side, theirs: Side) -> Found | None:
    if not _stand_alike(ours, theirs):
        provable = _is_provable(ours, theirs)
        return Found(kind=BreakKind.STATE, ours=ours, theirs=theirs, repair=Repair.OBSERVE if provable else None)
    if (ours.currency, ours.amount_minor, ours.held_minor) != (theirs.currency, theirs.amount_minor, theirs.held_minor):
        repair = Repair.OBSERVE if _is_more(ours, theirs) else Repair.POST if _is_unexchanged(ours) else None
        return Found(kind=BreakKind.AMOUNT, ours=ours, theirs=theirs, repair=repair)
    if None not in {ours.fee_minor, theirs.fee_minor} and ours.fee_minor != theirs.fee_minor:
        unposted = ours.fee_minor == 0
        return Found(kind=BreakKind.FEE, ours=ours, theirs=theirs, repair=Repair.POST if unposted else None)
    return None


def _stand_alike(ours: Side, theirs: Side) -> bool:
    """Declined here, the provider's payment waits for another method for ever: nothing is held on either side."""
    if ours.subject is Subject.PAYMENT and ours.standing is Standing.NOTHING:
        return theirs.standing in {Standing.NOTHING, Standing.OPEN}
    return ours.standing is theirs.standing


def _is_provable(ours: Side, theirs: Side) -> bool:
    """Whether our machine can only agree once it hears. What went back may come back: a refund fails late."""
    if ours.currency != theirs.currency:
        return False
    late = ours.subject is Subject.REFUND and ours.standing is Standing.MOVED and theirs.standing is Standing.NOTHING
    begun = ours.may_begin_again and theirs.standing in {Standing.HELD, Standing.MOVED}
    return late or begun or ours.subject is Subject.DISPUTE or theirs.standing in AHEAD[ours.standing]


def _is_more(ours: Side, theirs: Side) -> bool:
    """Whether the provider has only moved more than we have heard of: a part of what is held, or in a dispute."""
    partly = ours.subject is Subject.PAYMENT and ours.standing is Standing.HELD and theirs.amount_minor > ours.amount_minor
    return ours.currency == theirs.currency and (partly or ours.subject is Subject.DISPUTE)


def _is_unexchanged(ours: Side) -> bool:
    """Whether our ledger has the payment's money in its own currency alone, and the provider has exchanged it."""
    return ours.subject is Subject.TRANSACTION and bool(ours.exchanged_minor) and ours.amount_minor == 0


def _since(found: Found) -> datetime:
    return max(side.since for side in (found.ours, found.theirs) if side is not None)


# --- Totals -------------------------------------------------------------------------------------------------------

Totals = dict[str, dict[str, dict[str, int]]]
"""By currency and side (`ours`, `theirs`): gross, refunded, disputed, fees and net, in minor units."""

COLUMNS = ("gross", "refunded", "disputed", "fees", "net")
COLUMN: Mapping[Subject, str] = {Subject.PAYMENT: "gross", Subject.REFUND: "refunded", Subject.DISPUTE: "disputed"}


def count_in(totals: Totals, which: str, side: Side) -> None:
    """Add an object to one side's sums: what payments took, and what refunds, disputes and fees took away again."""
    sums, fee_minor = _sums(totals, side.currency, which), side.fee_minor or 0
    of_fees = _sums(totals, side.fee_currency or side.currency, which) if fee_minor else sums
    of_fees["fees"] += fee_minor
    of_fees["net"] -= fee_minor
    # A movement of the balance tells of a payment's or a refund's amount again: only its fee is news.
    if side.subject is not Subject.TRANSACTION:
        sums[COLUMN[side.subject]] += side.amount_minor
        sums["net"] += side.amount_minor if side.subject is Subject.PAYMENT else -side.amount_minor


def _sums(totals: Totals, currency: str, which: str) -> dict[str, int]:
    return totals.setdefault(currency, {each: dict.fromkeys(COLUMNS, 0) for each in ("ours", "theirs")})[which]
