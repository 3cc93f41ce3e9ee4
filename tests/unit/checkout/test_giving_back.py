"""Every cart can be paid in every currency, and every order given back whole, in any parts, whatever fails in between."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.payments import RefundFailed, RefundSucceeded
from libs.common.errors import ConflictError, RejectedError
from libs.common.money import CURRENCIES, step_minor
from services.checkout.domain import order as orders
from services.checkout.domain import refund as till
from services.checkout.domain import saga
from services.checkout.domain.order import Order
from services.checkout.domain.quote import Quote, Terms, may_be_free, quote
from services.checkout.domain.refund import Refund, RefundWish
from services.checkout.domain.shipping import ShippingKind, ShippingMethod, ShippingRate
from services.checkout.domain.tax import TaxRate, TaxRounding, TaxTable
from services.checkout.domain.worth import Worth, worths
from services.payments.domain.payment.asking import is_payable
from tests.shared.events import cart_frozen, frozen_line
from tests.unit.memory import NOW, TENANT

EVERY_CURRENCY = st.one_of(st.sampled_from(["BHD", "KWD", "ISK", "UGX", "JPY", "GBP"]), st.sampled_from(sorted(CURRENCIES)))
LINES = st.lists(st.tuples(st.integers(1, 7), st.integers(0, 400)), min_size=1, max_size=5)
PERCENTS = st.sampled_from(["0", "5", "7.7", "10", "19", "100"])


def terms(currency: str, shipping_minor: int | None, percent: str, *, included: bool, rounding: TaxRounding) -> Terms:
    table = TaxTable(tenant_id=TENANT, country="GB", rates={"*": TaxRate(name="VAT", rate=Decimal(percent))})
    rates = (ShippingRate(amount_minor=shipping_minor or 0),)
    method = ShippingMethod(tenant_id=TENANT, code="p", name="P", kind=ShippingKind.FLAT, currency=currency, rates=rates)
    chosen = None if shipping_minor is None else method
    return Terms(shipping=chosen, country="GB", taxes=table, tax_included=included, tax_rounding=rounding)


def ordered(priced: Quote) -> Order:
    """An order that came of this quote, its money taken."""
    started = saga.new_checkout(
        tenant_id=TENANT,
        checkout_id=uuid4(),
        subject_id=UUID(int=1),
        cart_id=uuid4(),
        method="pm_card_visa",
        confirmation="server",
        email=None,
        shipping_method=None,
        shipping_address=None,
        billing_address=None,
        accept_price_changes=False,
        body_digest="",
        now=NOW,
        expires_at=NOW,
    )
    paying, _ = saga.begin_payment(saga.reserve(started, priced, ()), priced, "on-confirmation")
    _, order, _ = saga.confirm(paying, priced, 1, NOW)
    return orders.capture(order, order.total_minor)


class Till:
    """Refunds of one order, as they are asked for, paid and failed late."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.given: dict[UUID, Refund] = {}

    def ask(self, amount_minor: int | None = None, quantities: Mapping[str, int] | None = None) -> Refund:
        wish = RefundWish(amount_minor=amount_minor, quantities=quantities or {}, restock=False, reason="r")
        self.order, refund, asked = till.request(self.order, uuid4(), wish, NOW)
        assert is_payable(asked.amount_minor, asked.currency), "accepted, and then refused by the provider"
        self._told(refund, RefundSucceeded, refunded_minor=0)
        return refund

    def fail(self, refund_id: UUID) -> None:
        """The money of one that had succeeded comes back to us."""
        refund = self.given.pop(refund_id)
        self._told(refund, RefundFailed, refunded_minor=0, code="expired_card")

    def _told(self, refund: Refund, kind: type[Any], **more: Any) -> None:
        whose = {"refund_id": refund.id, "payment_id": refund.payment_id, "checkout_id": self.order.checkout_id}
        of_it = {"order_id": self.order.id, "amount_minor": refund.amount_minor, "currency": refund.currency}
        followed = till.follow(self.order, refund, kind(**whose, **of_it, **more))
        assert followed is not None
        self.order, told = followed
        if kind is RefundSucceeded:
            self.given[refund.id] = told

    def left(self, line_id: str) -> int:
        line = self.order.line(line_id)
        assert line is not None
        return line.quantity - self.order.progress_of(line_id).refunded


@given(
    EVERY_CURRENCY,
    LINES,
    st.one_of(st.just(0), st.integers(0, 2_000)),
    st.one_of(st.none(), st.integers(0, 99)),
    PERCENTS,
    st.booleans(),
    st.sampled_from(TaxRounding),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_in_a_cart_its_order_is_an_amount_the_provider_takes_less_than_a_step_below_what_it_comes_to(
    currency: str,
    lines: list[tuple[int, int]],
    discount: int,
    shipping_minor: int | None,
    percent: str,
    included: bool,
    rounding: TaxRounding,
) -> None:
    goods = [frozen_line(f"s{number}", count, unit) for number, (count, unit) in enumerate(lines)]
    asked, step = terms(currency, shipping_minor, percent, included=included, rounding=rounding), step_minor(currency)
    frozen = cart_frozen(*goods, discount_minor=discount, currency=currency)
    priced = quote(frozen, asked)
    assert priced.total_minor % step == 0
    added = 0 if included else priced.tax_minor
    assert priced.subtotal_minor - priced.discount_minor + priced.shipping_minor + added == priced.total_minor
    rounded = sum(each.amount_minor for each in priced.discounts if each.code == "rounding")
    assert rounded == (priced.total_minor + rounded) % step
    assert priced.discount_minor == min(discount, priced.subtotal_minor) + rounded
    assert min(line.discount_minor for line in priced.lines) >= 0
    assert may_be_free(frozen) or priced.total_minor, "an order of nothing, whose number nobody had locked"
    if priced.total_minor:
        order = ordered(priced)
        assert min(order.paid_minor(line) for line in order.lines) >= 0
        assert sum(order.paid_minor(line) for line in order.lines) <= order.total_minor


WISHES = st.lists(st.tuples(st.sampled_from(["lines", "amount", "fail"]), st.randoms(use_true_random=False)), max_size=12)


@given(EVERY_CURRENCY, LINES, st.one_of(st.none(), st.integers(0, 99)), PERCENTS, WISHES)
@settings(max_examples=150, deadline=None)
def test_in_whatever_parts_an_order_is_given_back_every_part_can_be_paid_and_in_the_end_it_is_all_there(
    currency: str, lines: list[tuple[int, int]], shipping_minor: int | None, percent: str, wishes: Sequence[tuple[str, Any]]
) -> None:
    goods = [frozen_line(f"s{number}", count, unit) for number, (count, unit) in enumerate(lines)]
    asked = terms(currency, shipping_minor, percent, included=False, rounding=TaxRounding.LINE)
    priced, step = quote(cart_frozen(*goods, currency=currency), asked), step_minor(currency)
    if not priced.total_minor:
        return
    at, total = Till(ordered(priced)), priced.total_minor
    for kind, chance in wishes:
        if kind == "fail" and at.given:
            at.fail(chance.choice(list(at.given)))
        elif kind == "lines":
            wanted = {each.line_id: chance.randint(1, each.quantity) for each in at.order.lines if chance.random() < 0.5}
            before = at.order
            try:
                at.ask(quantities={line_id: count for line_id, count in wanted.items() if count <= at.left(line_id)} or {"1": 1})
            except ConflictError:
                assert at.order == before
        elif kind == "amount":
            amount = chance.randint(1, total)
            if amount % step:
                with pytest.raises(RejectedError, match="amount-not-payable"):
                    at.ask(amount)
            elif amount <= till.refundable_minor(at.order):
                at.ask(amount)
        assert at.order.refunded_minor == sum(each.amount_minor for each in at.given.values()) <= total
    if till.refundable_minor(at.order):
        at.ask()
    assert (at.order.refunded_minor, at.order.payment_state) == (total, orders.PaymentState.REFUNDED)


UNITS = st.integers(1, 9)


@given(
    st.sampled_from(["GBP", "JPY", "BHD", "ISK"]),
    st.lists(st.tuples(UNITS, st.integers(1, 500)), min_size=1, max_size=3),
    st.integers(0, 300),
    st.lists(st.tuples(st.booleans(), st.randoms(use_true_random=False)), max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_refunded_by_the_line_a_line_comes_to_what_it_cost_whichever_refunds_failed_late_in_between(
    currency: str, lines: list[tuple[int, int]], discount: int, steps: Sequence[tuple[bool, Any]]
) -> None:
    goods = [frozen_line(f"s{number}", count, unit) for number, (count, unit) in enumerate(lines)]
    step = step_minor(currency)
    priced = quote(cart_frozen(*goods, discount_minor=discount, currency=currency))
    if not priced.total_minor:
        return
    at = Till(ordered(priced))
    whole = Till(at.order)
    for fails, chance in steps:
        if fails and at.given:
            at.fail(chance.choice(list(at.given)))
            continue
        line = chance.choice(at.order.lines)
        if count := chance.randint(0, at.left(line.line_id)):
            _ask_unless_worth_nothing(at, line.line_id, count)
    for line in at.order.lines:
        if count := at.left(line.line_id):
            _ask_unless_worth_nothing(at, line.line_id, count)
        _ask_unless_worth_nothing(whole, line.line_id, line.quantity)
    for line in at.order.lines:
        cost = _back(whole, line.line_id)
        assert _back(at, line.line_id) == cost
        assert abs(cost - at.order.paid_minor(line)) < step, "the line's own price, but for rounding to what can be paid"
    assert at.order.refunded_minor == at.order.total_minor, "nothing is sent, so the lines are all there is"


def _ask_unless_worth_nothing(at: Till, line_id: str, count: int) -> None:
    if worths(at.order)[line_id].of(count):
        at.ask(quantities={line_id: count})
        return
    with pytest.raises(ConflictError, match="0 minor units"):
        at.ask(quantities={line_id: count})


def _back(at: Till, line_id: str) -> int:
    return sum(each.amount_minor for each in at.given.values() if each.lines[0].line_id == line_id)


def test_a_unit_refunded_again_after_an_earlier_one_failed_is_not_asked_for_beyond_what_the_line_cost() -> None:
    at = Till(ordered(quote(cart_frozen(frozen_line("tea", 1, 100)))))
    at.order = replace(at.order, lines=(replace(at.order.lines[0], quantity=3),))  # three for 1.00
    first, rest = at.ask(quantities={"1": 1}), at.ask(quantities={"1": 2})
    at.fail(first.id)
    again = at.ask(quantities={"1": 1})
    assert (first.amount_minor, rest.amount_minor, again.amount_minor) == (33, 67, 33)


@given(st.integers(1, 12), st.integers(0, 60), st.sampled_from([1, 10]), st.data())
@settings(max_examples=300, deadline=None)
def test_some_of_a_line_cost_as_near_to_their_even_part_as_leaves_the_rest_of_it_whole(
    quantity: int, steps: int, step: int, data: st.DataObject
) -> None:
    price, large_count = divmod(steps, quantity)
    large = data.draw(st.integers(0, large_count))
    refunded = large + data.draw(st.integers(0, quantity - large_count))
    if refunded == quantity:
        return
    count = data.draw(st.integers(1, quantity - refunded))
    gone = price * refunded + large
    found = Worth(step, steps, quantity, refunded, gone * step).of(count)
    # So many of the large and the small as there are left, of which those are best that come nearest to the even part.
    small_left = quantity - refunded - (large_count - large)
    possible = range(max(count - small_left, 0), min(count, large_count - large) + 1)
    even = steps * (refunded + count) // quantity
    nearest = min(possible, key=lambda each: abs(gone + price * count + each - even))
    least = min(possible[-1], 1) if not price else 0
    assert found == (price * count + max(nearest, least)) * step


@pytest.mark.parametrize(("currency", "step"), [("GBP", 1), ("BHD", 10)])
def test_refunds_from_before_their_lines_worth_was_written_down_count_for_their_even_part(currency: str, step: int) -> None:
    at = Till(ordered(quote(cart_frozen(frozen_line("tea", 1, 100 * step), currency=currency))))
    at.order = replace(at.order, lines=(replace(at.order.lines[0], quantity=3),))
    old = at.ask(quantities={"1": 1})
    at.given[old.id] = replace(at.given[old.id], lines=(till.RefundLine(line_id="1", quantity=1),))
    at.order = replace(at.order, progress={"1": orders.Progress(refunded=1)})
    assert at.ask(quantities={"1": 1}).amount_minor == 33 * step
    assert at.order.progress_of("1").refunded_minor == 66 * step
    at.fail(old.id)
    assert at.ask(quantities={"1": 2}).amount_minor == 67 * step
    assert at.order.refunded_minor == 100 * step


def test_a_line_whose_discount_nobody_told_is_refunded_in_amounts_that_can_be_paid() -> None:
    order = ordered(quote(cart_frozen(frozen_line("tea", 1, 1_255), discount_minor=500, currency="BHD")))
    at = Till(replace(order, lines=(replace(order.lines[0], discount_minor=None),), captured_minor=2_000))
    assert at.ask(quantities={"1": 1}).amount_minor == 1_250


def test_a_refund_that_the_provider_could_not_pay_is_refused_at_the_door_with_the_step_it_may_be_given_in() -> None:
    at = Till(ordered(quote(cart_frozen(frozen_line("tea", 1, 1_255), currency="BHD"))))
    assert at.order.total_minor == 1_250
    with pytest.raises(RejectedError, match="amount-not-payable") as refused:
        at.ask(5)
    assert refused.value.members == {"step_minor": 10}
    assert [at.ask(10).amount_minor, at.ask().amount_minor] == [10, 1_240]
