"""The quote: what an order will cost, fixed before anybody is asked for money."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import orjson

from libs.common.contracts.cart import CartFrozen, Discount, FrozenLine
from libs.common.contracts.checkout import OrderLine, Totals
from libs.common.errors import ConflictError
from libs.common.money import apportion, step_minor
from services.checkout.domain.shipping import ShippingMethod
from services.checkout.domain.tax import SHIPPING_CATEGORY, TaxRate, TaxRounding, TaxTable, taxes

MAX_TOTAL_MINOR = 9_000_000_000_000_000
"""What an event can say (`contracts.Minor`): a dearer order could be quoted, and never be paid."""

ROUNDING = "rounding"
"""The discount that leaves an amount which the provider moves, in a currency of which it moves no single minor units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where to. It stays in this service's database: no event ever carries it."""

    name: str
    line1: str
    line2: str | None = None
    city: str | None = None
    """None: addresses in its country have none. So with its postal code."""
    region: str | None = None
    postal_code: str | None = None
    country: str
    """ISO 3166-1 alpha-2."""
    phone: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class QuoteLine:
    """One line of a quote."""

    line_id: str
    sku: str
    name: str
    category: str
    quantity: int
    unit_minor: int
    total_minor: int
    """Unit price times quantity: before discount and tax."""
    discount_minor: int = 0
    """This line's share of what the cart takes off."""
    tax_minor: int = 0
    """The tax on the line without its discount; part of it when prices include tax."""
    tax_rate: str | None = None
    """In percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuoteDiscount:
    """An amount the cart takes off, and why."""

    code: str
    amount_minor: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LineShare:
    """What a discount takes off one line."""

    line_id: str
    amount_minor: int


@dataclass(frozen=True, kw_only=True, slots=True)
class QuotePromotion:
    """An amount that a promotion takes off, and of which lines. A kind of its own, so that digests of earlier quotes stay."""

    code: str
    amount_minor: int
    coupon: str | None = None
    reason: str
    lines: tuple[LineShare, ...]


QuotedDiscount = QuotePromotion | QuoteDiscount


@dataclass(frozen=True, kw_only=True, slots=True)
class QuoteShipping:
    """How the order is sent, and the tax on that."""

    code: str
    name: str
    tax_minor: int
    tax_rate: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What the order will cost, fixed.

    subtotal - discount + shipping + tax = total; with `tax_included` the tax is shown and not added.
    """

    currency: str
    lines: tuple[QuoteLine, ...]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    total_minor: int
    tax_included: bool = False
    discounts: tuple[QuotedDiscount, ...] = ()
    shipping: QuoteShipping | None = None
    country: str | None = None
    """Where it goes to, and so whose tax is owed."""
    address_digest: str | None = None
    """SHA-256 of the shipping address: a quote is for that one and no other."""
    expires_at: datetime | None = None

    @property
    def order_lines(self) -> tuple[OrderLine, ...]:
        """The lines, as everybody knows them."""
        return tuple(
            OrderLine(
                line_id=line.line_id,
                sku=line.sku,
                name=line.name,
                quantity=line.quantity,
                unit_minor=line.unit_minor,
                total_minor=line.total_minor,
                discount_minor=line.discount_minor,
                tax_minor=line.tax_minor,
            )
            for line in self.lines
        )

    @property
    def totals(self) -> Totals:
        """The sums, as everybody knows them."""
        return Totals(
            subtotal_minor=self.subtotal_minor,
            discount_minor=self.discount_minor,
            shipping_minor=self.shipping_minor,
            tax_minor=self.tax_minor,
            total_minor=self.total_minor,
            tax_included=self.tax_included,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the whole quote: what the provider, the order and the buyer agree on."""
        return _digest(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """All that a cart does not say of its price. As they stand by default: nothing is configured, nothing is added."""

    shipping: ShippingMethod | None = None
    shipping_address: Address | None = None
    country: str | None = None
    """Where it is taxed: the shipping address's, else the billing address's, else the tenant's own."""
    taxes: TaxTable | None = None
    tax_included: bool = False
    tax_rounding: TaxRounding = TaxRounding.LINE
    expires_at: datetime | None = None


NOTHING_CONFIGURED = Terms()


class UnquotableError(ConflictError):
    """The cart cannot be priced as its checkout asks."""


@dataclass(frozen=True, slots=True)
class _Basket:
    """What a cart comes to before shipping and tax."""

    lines: Sequence[FrozenLine]
    totals: Sequence[int]
    shares: Sequence[int]
    subtotal_minor: int
    discount_minor: int


def quote(frozen: CartFrozen, terms: Terms = NOTHING_CONFIGURED) -> Quote:
    """Fix what the cart costs under these terms, in an amount that the provider moves: what is above that is taken off.

    Raises UnquotableError when the chosen method cannot send it, or no amount is so large.
    """
    basket = _basket(frozen)
    shipping_minor = _shipping(frozen, basket, terms)
    rates = [terms.taxes.rate_of(line.category) if terms.taxes else None for line in frozen.lines]
    shipping_rate = terms.taxes.rate_of(SHIPPING_CATEGORY) if terms.taxes else None
    amounts = [total - share for total, share in zip(basket.totals, basket.shares, strict=True)]
    owed = taxes(
        [*zip(amounts, rates, strict=True), (shipping_minor, shipping_rate)], terms.tax_rounding, included=terms.tax_included
    )
    added = [0] * len(owed) if terms.tax_included else owed
    total = sum(amounts) + shipping_minor + sum(added)
    if total > MAX_TOTAL_MINOR:
        raise UnquotableError("total-too-large", f"an order comes to {MAX_TOTAL_MINOR} minor units at most")
    rounding = total % step_minor(frozen.currency)
    basket = _rounded(basket, [amount + tax for amount, tax in zip(amounts, added, strict=False)], rounding)
    return Quote(
        currency=frozen.currency,
        lines=_lines(basket, owed, rates),
        subtotal_minor=basket.subtotal_minor,
        discount_minor=basket.discount_minor,
        shipping_minor=shipping_minor,
        tax_minor=sum(owed),
        total_minor=total - rounding,
        tax_included=terms.tax_included,
        discounts=_discounts(frozen, rounding),
        shipping=_delivery(terms.shipping, owed[-1], shipping_rate),
        country=terms.country,
        address_digest=_digest(terms.shipping_address) if terms.shipping_address else None,
        expires_at=min((at for at in (terms.expires_at, frozen.prices_valid_until) if at), default=None),
    )


def may_be_free(frozen: CartFrozen) -> bool:
    """Whether nothing may be left to pay, if sending it costs nothing either."""
    goods = sum(line.unit_minor * line.quantity for line in frozen.lines)
    return goods - sum(each.amount_minor for each in frozen.discounts) < step_minor(frozen.currency)


def has_risen(frozen: CartFrozen) -> bool:
    """Whether something costs more than when its buyer put it in the cart, or less is taken off than they were told."""
    has_lost = frozen.discount_was_minor is not None
    return has_lost or any(line.price_was_minor is not None and line.price_was_minor < line.unit_minor for line in frozen.lines)


def _basket(frozen: CartFrozen) -> _Basket:
    """The lines' amounts, and each line's share of the discount, which never takes more than there is."""
    totals = [line.unit_minor * line.quantity for line in frozen.lines]
    shares = _told_shares(frozen, totals)
    left = [total - share for total, share in zip(totals, shares, strict=True)]
    untold = min(sum(left), sum(each.amount_minor for each in frozen.discounts) - sum(shares))
    shares = [share + part for share, part in zip(shares, apportion(untold, left), strict=True)]
    return _Basket(frozen.lines, totals, shares, sum(totals), sum(shares))


def _told_shares(frozen: CartFrozen, totals: Sequence[int]) -> list[int]:
    """Each line's part of the discounts, as far as the cart says it. What does not add up is said of nothing."""
    shares = [0] * len(totals)
    for discount in frozen.discounts:
        parts = {part.line - 1: part.amount_minor for part in discount.lines}
        is_sound = sum(parts.values()) == discount.amount_minor and all(
            place < len(totals) and shares[place] + amount <= totals[place] for place, amount in parts.items()
        )
        for place, amount in parts.items() if is_sound else ():
            shares[place] += amount
    return shares


def _rounded(basket: _Basket, paid: Sequence[int], rounding: int) -> _Basket:
    """The basket with so much less to pay: a discount on its lines, as far as anything is paid for them, else on the whole."""
    parts = apportion(min(rounding, sum(paid)), paid)
    shares = [share + part for share, part in zip(basket.shares, parts, strict=True)]
    return replace(basket, shares=shares, discount_minor=basket.discount_minor + rounding)


def _discounts(frozen: CartFrozen, rounding: int) -> tuple[QuotedDiscount, ...]:
    given = map(_discount, frozen.discounts)
    return tuple(each for each in (*given, QuoteDiscount(code=ROUNDING, amount_minor=rounding)) if each.amount_minor)


def _discount(given: Discount) -> QuotedDiscount:
    if given.promotion is None:
        return QuoteDiscount(code=given.code, amount_minor=given.amount_minor)
    lines = tuple(LineShare(line_id=str(part.line), amount_minor=part.amount_minor) for part in given.lines)
    reason = given.reason or given.promotion
    return QuotePromotion(code=given.promotion, amount_minor=given.amount_minor, coupon=given.coupon, reason=reason, lines=lines)


def _shipping(frozen: CartFrozen, basket: _Basket, terms: Terms) -> int:
    """What sending it costs: by the weight of the goods, of which an unknown one counts as none, or by what is paid for them."""
    if terms.shipping is None:
        return 0
    grams = sum(max(line.weight_grams or 0, 0) * line.quantity for line in frozen.lines)
    value = basket.subtotal_minor - basket.discount_minor
    country = terms.shipping_address.country if terms.shipping_address else None
    charge = terms.shipping.charge(country, frozen.currency, grams=grams, value_minor=value)
    if charge is None:
        raise UnquotableError("shipping-unavailable", f"{terms.shipping.code} does not send this cart there")
    return charge


def _lines(basket: _Basket, owed: Sequence[int], rates: Sequence[TaxRate | None]) -> tuple[QuoteLine, ...]:
    return tuple(
        QuoteLine(
            line_id=str(number),
            sku=line.sku,
            name=line.name,
            category=line.category,
            quantity=line.quantity,
            unit_minor=line.unit_minor,
            total_minor=basket.totals[number - 1],
            discount_minor=basket.shares[number - 1],
            tax_minor=owed[number - 1],
            tax_rate=_percent(rates[number - 1]),
        )
        for number, line in enumerate(basket.lines, 1)
    )


def _delivery(method: ShippingMethod | None, tax_minor: int, rate: TaxRate | None) -> QuoteShipping | None:
    if method is None:
        return None
    return QuoteShipping(code=method.code, name=method.name, tax_minor=tax_minor, tax_rate=_percent(rate))


def _percent(rate: TaxRate | None) -> str | None:
    return str(rate.rate) if rate else None


def _digest(value: object) -> str:
    """SHA-256 of a dataclass as JSON, its fields in the order of their declaration."""
    return hashlib.sha256(orjson.dumps(value)).hexdigest()


def demand(lines: Sequence[QuoteLine]) -> dict[str, int]:
    """What a quote wants of each product, added up before anything is checked."""
    wanted: dict[str, int] = {}
    for line in lines:
        wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
    return wanted
