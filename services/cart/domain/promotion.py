"""Promotions: what a tenant takes off its shoppers' carts, and what of that a cart is given at a moment.

They are gone through by priority, the highest first, and then by code. Each takes its part of what those before it left, so
together they never take more than there is. One that is exclusive is given alone: it comes first, or not at all.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import ClassVar

from libs.common.contracts.cart import Discount, LineDiscount, PromotionChanged, PromotionRemoved
from libs.common.decision import Aggregate, present
from libs.common.errors import RejectedError
from libs.common.money import apportion, spread
from services.cart.domain.line import MAX_TOLD_BYTES, Line, told_bytes

WHOLE = 10_000
"""Basis points in a whole."""
MAX_AUTOMATIC = 50
"""Each of these is looked at with every cart, so there are not many."""
MAX_LIMITED = 500
"""Each of these is known by name wherever a cart freezes."""
MAX_COUPONS = 10
ENTRY_BYTES = 1_500
"""Of a discount in an event, at most, without its lines."""
PART_BYTES = 60
"""Of each of its lines."""


class PromotionKind(StrEnum):
    """How a promotion counts what it takes off."""

    PERCENTAGE = "percentage"
    AMOUNT = "amount"


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion(Aggregate):
    """What a tenant takes off, of what, and when. A removed one stays, for the uses that are counted."""

    KEY: ClassVar[str] = "code"
    OWNER: ClassVar[str | None] = None
    code: str
    name: str
    """What shoppers are told."""
    kind: PromotionKind
    basis_points: int | None = None
    amount_minor: int | None = None
    currency: str | None = None
    """Of its amounts, and of the carts that it is for. None: of any."""
    skus: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """It is for lines of these SKUs or categories; if there are none of either, for all."""
    minimum_subtotal_minor: int | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    requires_coupon: bool = False
    max_uses: int | None = None
    used_count: int = 0
    """Carts that were bought or are being bought with it, of those that froze while it had a limit."""
    priority: int = 0
    exclusive: bool = False
    deleted_at: datetime | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was removed."""
        return self.deleted_at is not None

    @property
    def is_used_up(self) -> bool:
        """Whether nobody is given it any more."""
        return self.max_uses is not None and self.used_count >= self.max_uses

    def concerns(self, line: Line) -> bool:
        """Whether it takes something off this line."""
        return line.sku in self.skus or line.category in self.categories or not (self.skus or self.categories)


@dataclass(frozen=True, kw_only=True, slots=True)
class Offers(Aggregate):
    """What has to be known of a tenant's promotions before any of them is looked up. One row, found with the tenant's key."""

    KEY: ClassVar[str] = "tenant_id"
    OWNER: ClassVar[str | None] = None
    automatic: tuple[str, ...] = ()
    """The codes of those that need no coupon."""
    limited: tuple[str, ...] = ()
    """The codes of those whose uses are counted: whoever freezes a cart with one changes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What is taken off one line."""

    sku: str
    amount_minor: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What one promotion takes off a cart."""

    promotion: str
    coupon: str | None = None
    amount_minor: int
    reason: str
    lines: tuple[Part, ...]
    is_counted: bool = False
    """Whether it counts as a use of its promotion until the cart is given back."""


class Outcome(StrEnum):
    """Whether a promotion is given, or why not."""

    APPLIED = "applied"
    REMOVED = "removed"
    OTHER_CURRENCY = "other-currency"
    NOT_YET_VALID = "not-yet-valid"
    NO_LONGER_VALID = "no-longer-valid"
    USED_UP = "used-up"
    BELOW_MINIMUM = "below-minimum"
    NO_MATCHING_LINE = "no-matching-line"
    EXCLUDED = "excluded"
    NOTHING_LEFT = "nothing-left"
    CART_TOO_LARGE = "cart-too-large"


DETAILS: Mapping[Outcome, str] = {
    Outcome.APPLIED: "It is taken off.",
    Outcome.REMOVED: "There is no such promotion any more.",
    Outcome.OTHER_CURRENCY: "It is for carts in another currency.",
    Outcome.NOT_YET_VALID: "Its time has not come yet.",
    Outcome.NO_LONGER_VALID: "Its time is over.",
    Outcome.USED_UP: "It has been used as often as it may be.",
    Outcome.BELOW_MINIMUM: "The goods come to less than it is for.",
    Outcome.NO_MATCHING_LINE: "It is for other goods than are in the cart.",
    Outcome.EXCLUDED: "It cannot be combined with what is taken off before it.",
    Outcome.NOTHING_LEFT: "Nothing is left that it could take off.",
    Outcome.CART_TOO_LARGE: "The cart has too many lines for one more discount.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """One promotion as a cart met it."""

    code: str
    coupon: str | None = None
    name: str | None = None
    outcome: Outcome
    given: Given | None = None


def define(known: Promotion | None, wanted: Promotion) -> tuple[Promotion, PromotionChanged]:
    """The promotion on its new terms. Its uses go on being counted from where they are. Raises RejectedError."""
    if (wanted.basis_points is None) == (wanted.kind is PromotionKind.PERCENTAGE):
        raise RejectedError("promotion-terms", "a percentage has a percent, and nothing else has one")
    if (wanted.amount_minor is None) == (wanted.kind is PromotionKind.AMOUNT):
        raise RejectedError("promotion-terms", "an amount has an amount_minor, and nothing else has one")
    if wanted.currency is None and (wanted.amount_minor is not None or wanted.minimum_subtotal_minor is not None):
        raise RejectedError("promotion-terms", "an amount is of a currency: say which")
    if wanted.valid_from and wanted.valid_until and wanted.valid_from >= wanted.valid_until:
        raise RejectedError("promotion-terms", "it ends before it begins")
    used = known.used_count if known else 0
    if wanted.max_uses is not None and wanted.max_uses < used:
        raise RejectedError("max-uses-below-used", f"it has been used {used} times", used_count=used)
    promotion = replace(wanted, used_count=used)
    if known is not None:
        promotion = replace(promotion, version=known.version, sequence=known.sequence)
    return promotion, PromotionChanged(
        code=promotion.code,
        name=promotion.name,
        kind=promotion.kind.value,
        basis_points=promotion.basis_points,
        amount_minor=promotion.amount_minor,
        currency=promotion.currency,
        skus=promotion.skus,
        categories=promotion.categories,
        minimum_subtotal_minor=promotion.minimum_subtotal_minor,
        valid_from=promotion.valid_from,
        valid_until=promotion.valid_until,
        requires_coupon=promotion.requires_coupon,
        max_uses=promotion.max_uses,
        priority=promotion.priority,
        exclusive=promotion.exclusive,
    )


def remove(known: Promotion | None, now: datetime) -> tuple[Promotion, PromotionRemoved]:
    """Give it no more. Carts that are frozen keep what they were given. Raises NotFoundError."""
    promotion = present(Promotion, known)
    return replace(promotion, deleted_at=now), PromotionRemoved(code=promotion.code)


def listed(offers: Offers, promotion: Promotion) -> Offers:
    """What is to be known beforehand, with this promotion as it is now. Raises RejectedError when that is too much."""
    automatic = _with(offers.automatic, promotion.code, wanted=not (promotion.is_gone or promotion.requires_coupon))
    limited = _with(offers.limited, promotion.code, wanted=not promotion.is_gone and promotion.max_uses is not None)
    if len(automatic) > MAX_AUTOMATIC:
        raise RejectedError("too-many-promotions", f"there are at most {MAX_AUTOMATIC} promotions that need no coupon")
    if len(limited) > MAX_LIMITED:
        raise RejectedError("too-many-promotions", f"there are at most {MAX_LIMITED} promotions with a limit")
    return replace(offers, automatic=automatic, limited=limited)


def _with(codes: tuple[str, ...], code: str, *, wanted: bool) -> tuple[str, ...]:
    return tuple(sorted({*codes} | {code} if wanted else {*codes} - {code}))


def take(promotion: Promotion) -> Promotion:
    """Count one more use."""
    return replace(promotion, used_count=promotion.used_count + 1)


def give_back(promotion: Promotion) -> Promotion:
    """Count one use less: its cart was given back."""
    return replace(promotion, used_count=max(promotion.used_count - 1, 0))


def judge(
    lines: Sequence[Line], currency: str, promotions: Iterable[Promotion], coupons: Collection[str], now: datetime
) -> list[Considered]:
    """What becomes of each of these promotions and coupons with these lines, in the order in which they are looked at.

    In whichever order they come, the outcome is the same.
    """
    found = [each for each in promotions if not each.is_gone and (not each.requires_coupon or each.code in coupons)]
    if not found and not coupons:
        return []
    judging = _Judging(lines, currency, now)
    for promotion in sorted(found, key=lambda each: (-each.priority, each.code)):
        judging.consider(promotion)
    unknown = sorted({*coupons} - {each.code for each in found})
    return [*judging.considered, *(Considered(code=code, coupon=code, outcome=Outcome.REMOVED) for code in unknown)]


class _Judging:
    """How far the promotions of one cart have been gone through."""

    def __init__(self, lines: Sequence[Line], currency: str, now: datetime) -> None:
        self.considered: list[Considered] = []
        self._lines = lines
        self._currency = currency
        self._now = now
        self._left = [line.total_minor for line in lines]
        self._subtotal = sum(self._left)
        self._room = MAX_TOLD_BYTES - told_bytes(lines)
        self._is_given, self._is_closed = False, False

    def consider(self, promotion: Promotion) -> None:
        """Give it, or say why not."""
        parts = self._parts(promotion)
        outcome = self._refusal(promotion, parts)
        given = None
        coupon = promotion.code if promotion.requires_coupon else None
        if outcome is Outcome.APPLIED:
            self._left = [left - part for left, part in zip(self._left, parts, strict=True)]
            self._room -= _bytes(parts)
            self._is_given, self._is_closed = True, promotion.exclusive
            given = Given(
                promotion=promotion.code,
                coupon=coupon,
                amount_minor=sum(parts),
                reason=promotion.name,
                lines=tuple(Part(sku=line.sku, amount_minor=part) for line, part in zip(self._lines, parts, strict=True) if part),
                is_counted=promotion.max_uses is not None,
            )
        self.considered.append(Considered(code=promotion.code, coupon=coupon, name=promotion.name, outcome=outcome, given=given))

    def _refusal(self, promotion: Promotion, parts: Sequence[int]) -> Outcome:
        """The first reason why it is not given, or that it is."""
        least, since, until = promotion.minimum_subtotal_minor, promotion.valid_from, promotion.valid_until
        reasons = (
            (Outcome.OTHER_CURRENCY, promotion.currency not in {None, self._currency}),
            (Outcome.NOT_YET_VALID, since is not None and self._now < since),
            (Outcome.NO_LONGER_VALID, until is not None and self._now >= until),
            (Outcome.USED_UP, promotion.is_used_up),
            (Outcome.BELOW_MINIMUM, least is not None and self._subtotal < least),
            (Outcome.NO_MATCHING_LINE, not any(map(promotion.concerns, self._lines))),
            (Outcome.EXCLUDED, self._is_closed or (promotion.exclusive and self._is_given)),
            (Outcome.NOTHING_LEFT, not any(parts)),
            (Outcome.CART_TOO_LARGE, _bytes(parts) > self._room),
        )
        return next((outcome for outcome, is_so in reasons if is_so), Outcome.APPLIED)

    def _parts(self, promotion: Promotion) -> list[int]:
        """What it takes off each line, of what is left there; in all half to even, and each line within one of its exact part."""
        base = [left if promotion.concerns(line) else 0 for line, left in zip(self._lines, self._left, strict=True)]
        if promotion.basis_points is not None:
            exact = [Fraction(each * promotion.basis_points, WHOLE) for each in base]
            return spread(exact, round(sum(exact, Fraction())))
        return apportion(min(promotion.amount_minor or 0, sum(base)), base)


def _bytes(parts: Sequence[int]) -> int:
    """What a discount takes in an event, at most."""
    return ENTRY_BYTES + PART_BYTES * sum(1 for part in parts if part)


def given(considered: Iterable[Considered]) -> tuple[Given, ...]:
    """What is taken off."""
    return tuple(each.given for each in considered if each.given is not None)


def told(discounts: Iterable[Given], lines: Sequence[Line]) -> tuple[Discount, ...]:
    """Discounts of these lines, as others hear of them."""
    places = {line.sku: place for place, line in enumerate(lines, 1)}
    return tuple(
        Discount(
            code=each.promotion,
            amount_minor=each.amount_minor,
            promotion=each.promotion,
            coupon=each.coupon,
            reason=each.reason,
            lines=tuple(LineDiscount(line=places[part.sku], amount_minor=part.amount_minor) for part in each.lines),
        )
        for each in discounts
    )
