"""What is taken off a cart: never more than there is, by everybody's rules in one order, and no oftener than it may be."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.cart import CartFrozen, PromotionChanged, PromotionRemoved
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.contracts.checkout import CheckoutFailed, CheckoutRequested, StockAvailabilityChanged
from libs.common.decision import Viewer
from libs.common.errors import ConflictError, NotFoundError, RejectedError
from services.cart import domain
from services.cart.domain import Availability, Cart, Line, Offers, Outcome, Promotion, PromotionKind
from services.cart.domain.promotion import MAX_AUTOMATIC, MAX_COUPONS, PART_BYTES, judge, listed
from services.cart.handlers import (
    HANDLERS,
    AddQuantity,
    CreateCart,
    PutCoupon,
    PutLines,
    PutPromotion,
    RemoveCoupon,
    RemoveLines,
    RemovePromotion,
    Written,
)
from tests.shared.events import tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

SHOPPER = Viewer(subject_id=UUID(int=1), sees_all=False)
CART = UUID(int=100)
HOUR = timedelta(hours=1)


def percent(code: str, basis_points: int = 1_000, **terms: Any) -> Promotion:
    kind = PromotionKind.PERCENTAGE
    return Promotion(tenant_id=TENANT, code=code, name=f"{code}!", kind=kind, basis_points=basis_points, **terms)


def amount(code: str, amount_minor: int, **terms: Any) -> Promotion:
    terms = {"currency": "GBP", **terms}
    return Promotion(tenant_id=TENANT, code=code, name=f"{code}!", kind=PromotionKind.AMOUNT, amount_minor=amount_minor, **terms)


def line(sku: str, unit_minor: int, quantity: int = 1, category: str = "things") -> Line:
    return Line(sku=sku, name=sku, category=category, quantity=quantity, unit_minor=unit_minor, price_sequence=1)


def outcomes(lines: Sequence[Line], *promotions: Promotion, coupons: Sequence[str] = ()) -> dict[str, tuple[Outcome, int]]:
    found = judge(lines, "GBP", promotions, coupons, NOW)
    return {each.code: (each.outcome, each.given.amount_minor if each.given else 0) for each in found}


LINES = st.lists(st.integers(0, 100_000), max_size=12).map(
    lambda prices: [line(f"sku{place}", price, category=f"category{place % 3}") for place, price in enumerate(prices)]
)
SOME = st.lists(st.sampled_from([f"sku{place}" for place in range(12)]), max_size=4).map(tuple)


@st.composite
def promotions(draw: st.DrawFn) -> list[Promotion]:
    found = []
    for place in range(draw(st.integers(0, 6))):
        terms = {
            "skus": draw(SOME),
            "categories": draw(st.sampled_from([(), ("category1",)])),
            "priority": draw(st.integers(-1, 1)),
            "exclusive": draw(st.integers(0, 5)) == 0,
            "minimum_subtotal_minor": draw(st.sampled_from([None, 1_000])),
            "currency": "GBP",
        }
        is_percentage = draw(st.booleans())
        found.append(
            percent(f"p{place}", draw(st.integers(1, 10_000)), **terms)
            if is_percentage
            else amount(f"p{place}", draw(st.integers(1, 200_000)), **terms)
        )
    return found


@given(LINES, promotions(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_whatever_is_given_adds_up_leaves_nothing_below_zero_and_is_the_same_in_whichever_order_it_comes(
    lines: list[Line], offered: list[Promotion], random: Any
) -> None:
    found = judge(lines, "GBP", offered, (), NOW)
    assert sorted(each.code for each in found) == [each.code for each in sorted(offered, key=lambda each: each.code)]
    left = {each.sku: each.total_minor for each in lines}
    terms = {each.code: each for each in offered}
    for each in found:
        assert (each.given is not None) == (each.outcome is Outcome.APPLIED)
        if each.given is None:
            continue
        promotion, taken = terms[each.code], {part.sku: part.amount_minor for part in each.given.lines}
        assert each.given.amount_minor == sum(taken.values()) > 0
        base = {one.sku: left[one.sku] for one in lines if promotion.concerns(one)}
        assert taken.keys() <= base.keys()
        whole = sum(base.values())
        if promotion.basis_points is not None:
            assert each.given.amount_minor == round(Fraction(whole * promotion.basis_points, 10_000))
        else:
            assert each.given.amount_minor == min(promotion.amount_minor or 0, whole)
        for sku, value in base.items():
            share = taken.get(sku, 0)
            assert 0 <= share <= value
            assert abs(Fraction(share) - Fraction(value * each.given.amount_minor, whole)) <= 1
            left[sku] -= share
    exclusive = [each.code for each in found if each.given and terms[each.code].exclusive]
    assert not exclusive or sum(1 for each in found if each.given) == 1
    shuffled = [*offered]
    random.shuffle(shuffled)
    assert judge(lines, "GBP", shuffled, (), NOW) == found


def test_each_reason_why_nothing_is_given_is_told() -> None:
    lines = [line("tea", 250, 2), line("mug", 500, category="china")]
    assert outcomes(lines, percent("a"), amount("b", 100)) == {"a": (Outcome.APPLIED, 100), "b": (Outcome.APPLIED, 100)}
    for promotion, why in (
        (amount("p", 5, currency="EUR"), Outcome.OTHER_CURRENCY),
        (percent("p", valid_from=NOW + HOUR), Outcome.NOT_YET_VALID),
        (percent("p", valid_until=NOW), Outcome.NO_LONGER_VALID),
        (percent("p", max_uses=3, used_count=3), Outcome.USED_UP),
        (percent("p", currency="GBP", minimum_subtotal_minor=1_001), Outcome.BELOW_MINIMUM),
        (percent("p", skus=("gin",), categories=("toys",)), Outcome.NO_MATCHING_LINE),
    ):
        assert outcomes(lines, promotion) == {"p": (why, 0)}
    assert outcomes(lines, percent("p", valid_from=NOW, valid_until=NOW + HOUR, max_uses=3, used_count=2)) == {
        "p": (Outcome.APPLIED, 100)
    }
    assert outcomes(lines, percent("p", categories=("china",))) == {"p": (Outcome.APPLIED, 50)}
    assert outcomes(lines, percent("z", 10_000, priority=1), percent("a")) == {
        "z": (Outcome.APPLIED, 1_000),
        "a": (Outcome.NOTHING_LEFT, 0),
    }
    assert outcomes(lines, percent("a", exclusive=True), percent("b")) == {
        "a": (Outcome.APPLIED, 100),
        "b": (Outcome.EXCLUDED, 0),
    }
    assert outcomes(lines, percent("a"), percent("b", exclusive=True)) == {
        "a": (Outcome.APPLIED, 100),
        "b": (Outcome.EXCLUDED, 0),
    }
    assert outcomes(lines, percent("a", requires_coupon=True), coupons=["gone"]) == {"gone": (Outcome.REMOVED, 0)}


def test_a_cart_that_fills_an_event_is_given_no_discount_that_would_not_fit_beside_it() -> None:
    name = "n" * 170
    full = [replace(line(f"s{place:04}", 1_000), name=name) for place in range(2_000)]
    room = domain.MAX_TOLD_BYTES - domain.told_bytes(full)
    assert 0 < room < 2_000 * PART_BYTES
    assert outcomes(full, percent("all"), percent("few", skus=("s0001",))) == {
        "all": (Outcome.CART_TOO_LARGE, 0),
        "few": (Outcome.APPLIED, 100),
    }


def shop(*offered: Promotion, **prices: int) -> Memory:
    memory = Memory(HANDLERS)
    memory.execute(tenant_updated(TENANT))
    for sku, unit_minor in prices.items():
        memory.execute(ProductPublished(sku=sku, name=sku.title(), category="things"), sequence=1)
        memory.execute(PriceChanged(sku=sku, currency="GBP", unit_minor=unit_minor), sequence=2)
    for each in offered:
        memory.execute(PutPromotion(promotion=each))
    memory.execute(CreateCart(cart_id=CART, caller=SHOPPER, currency=None))
    return memory


def put(memory: Memory, **quantities: int) -> Cart:
    written: Written = memory.execute(PutLines(cart_id=CART, caller=SHOPPER, quantities=quantities))
    return written.cart


def coupon(memory: Memory, code: str) -> Cart:
    written: Written = memory.execute(PutCoupon(cart_id=CART, caller=SHOPPER, code=code))
    return written.cart


def freeze(memory: Memory, attempt: int = 1, at: Any = NOW) -> CartFrozen:
    asked = CheckoutRequested(checkout_id=UUID(int=1_000 + attempt), cart_id=CART, subject_id=SHOPPER.subject_id, attempt=attempt)
    memory.execute(asked, now=at)
    return memory.events(CartFrozen)[-1]


def test_a_coupon_is_found_in_either_case_put_once_and_taken_away_and_one_that_is_none_is_refused() -> None:
    memory = shop(percent("WELCOME", requires_coupon=True), percent("free"), tea=250)
    assert [(each.promotion, each.amount_minor) for each in put(memory, tea=4).discounts] == [("free", 100)]
    for unknown in ("NOPE", "free"):
        with pytest.raises(RejectedError) as refused:
            coupon(memory, unknown)
        assert refused.value.code == "coupon-unknown"
    cart = coupon(memory, "welcome")
    assert (cart.coupons, cart.discount_minor, cart.total_minor) == (("WELCOME",), 190, 810)
    assert cart.discounts[0].coupon == "WELCOME"
    assert cart.line_discounts() == {"tea": 190}
    assert coupon(memory, "Welcome") == cart, "once more is no change"
    memory.execute(RemovePromotion(code="WELCOME"))
    kept = put(memory, tea=2)
    assert (kept.coupons, kept.discount_minor) == (("WELCOME",), 50), "told of in the explanation, and not dropped"
    found = {each.code: each.outcome for each in domain.considered(kept, [memory.get(Promotion, "WELCOME")], NOW)}
    assert found == {"WELCOME": Outcome.REMOVED}
    removed: Written = memory.execute(RemoveCoupon(cart_id=CART, caller=SHOPPER, code="welcome"))
    assert removed.cart.coupons == ()
    with pytest.raises(NotFoundError):
        memory.execute(RemoveCoupon(cart_id=CART, caller=SHOPPER, code="WELCOME"))


def test_a_cart_has_a_most_of_coupons_and_a_frozen_one_takes_none() -> None:
    codes = [f"C{number}" for number in range(MAX_COUPONS + 1)]
    memory = shop(*(percent(code, 1, requires_coupon=True) for code in codes), tea=250)
    put(memory, tea=1)
    for code in codes[:-1]:
        coupon(memory, code)
    with pytest.raises(RejectedError) as refused:
        coupon(memory, codes[-1])
    assert refused.value.code == "too-many-coupons"
    freeze(memory)
    with pytest.raises(ConflictError):
        coupon(memory, codes[0])
    with pytest.raises(ConflictError):
        memory.execute(RemoveCoupon(cart_id=CART, caller=SHOPPER, code=codes[0]))


def test_a_checkout_is_told_each_lines_part_and_when_the_first_discount_is_over() -> None:
    memory = shop(percent("a", valid_until=NOW + HOUR), amount("b", 101, skus=("mug",)), tea=250, mug=333)
    put(memory, tea=1, mug=1)
    frozen = freeze(memory)
    assert [(each.code, each.amount_minor, each.reason) for each in frozen.discounts] == [("a", 58, "a!"), ("b", 101, "b!")]
    assert [[(part.line, part.amount_minor) for part in each.lines] for each in frozen.discounts] == [
        [(1, 25), (2, 33)],
        [(2, 101)],
    ]
    assert (frozen.total_minor, frozen.prices_valid_until, frozen.discount_was_minor) == (583 - 159, NOW + HOUR, None)
    memory.assert_numbered()


def test_a_discount_that_is_over_when_the_cart_freezes_is_not_given_and_that_is_told_as_long_as_it_is_not_put_anew() -> None:
    memory = shop(percent("a", valid_until=NOW + HOUR), tea=250)
    put(memory, tea=4)
    for attempt in (1, 2):
        late = freeze(memory, attempt, at=NOW + HOUR)
        assert (late.discounts, late.total_minor, late.discount_was_minor) == ((), 1_000, 100)
        memory.execute(CheckoutFailed(checkout_id=late.checkout_id, cart_id=CART, reason="product-unavailable"))
    memory.execute(PutLines(cart_id=CART, caller=SHOPPER, quantities={"tea": 3}), now=NOW + HOUR)
    assert freeze(memory, 3, at=NOW + HOUR).discount_was_minor is None


def test_a_smaller_discount_of_a_cart_that_became_no_dearer_is_not_told_as_a_rise() -> None:
    memory = shop(percent("a"), tea=250)
    put(memory, tea=4)
    memory.execute(PriceChanged(sku="tea", currency="GBP", unit_minor=100), sequence=3)
    assert freeze(memory).discount_was_minor is None
    memory = shop(percent("a"), tea=250, mug=100)
    put(memory, tea=4, mug=1)
    memory.execute(RemoveLines(cart_id=CART, caller=SHOPPER, sku="tea"))
    assert freeze(memory).discount_was_minor is None


def test_a_limited_promotion_is_counted_while_its_cart_is_bought_and_no_longer_once_that_is_given_back() -> None:
    memory = shop(percent("ONE", max_uses=1, requires_coupon=True), tea=250)
    other = UUID(int=101)
    memory.execute(CreateCart(cart_id=other, caller=SHOPPER, currency=None))
    for cart_id in (CART, other):
        memory.execute(AddQuantity(cart_id=cart_id, caller=SHOPPER, sku="tea", quantity=4))
        memory.execute(PutCoupon(cart_id=cart_id, caller=SHOPPER, code="ONE"))

    def buy(cart_id: UUID, checkout: int, attempt: int = 1) -> int:
        asked = CheckoutRequested(checkout_id=UUID(int=checkout), cart_id=cart_id, subject_id=SHOPPER.subject_id, attempt=attempt)
        memory.execute(asked)
        return sum(each.amount_minor for each in memory.events(CartFrozen)[-1].discounts)

    def used() -> int:
        return memory.get(Promotion, "ONE").used_count

    assert (buy(CART, 1), used()) == (100, 1)
    assert (buy(CART, 1), used()) == (100, 1), "the same checkout asks again"
    assert (buy(CART, 2, attempt=2), used()) == (100, 1), "a cart that passes to its next checkout is used once"
    assert (buy(other, 3), used()) == (0, 1)
    memory.execute(CheckoutFailed(checkout_id=UUID(int=1), cart_id=CART, reason="canceled"))
    assert used() == 1, "not its checkout any more"
    for _ in range(2):
        memory.execute(CheckoutFailed(checkout_id=UUID(int=2), cart_id=CART, reason="canceled"))
        assert used() == 0
    memory.execute(CheckoutFailed(checkout_id=UUID(int=3), cart_id=other, reason="canceled"))
    assert used() == 0, "it was given nothing"
    assert (buy(other, 4, attempt=2), used()) == (100, 1)
    with pytest.raises(RejectedError) as refused:
        memory.execute(PutPromotion(promotion=percent("ONE", max_uses=0, requires_coupon=True)))
    assert refused.value.code == "max-uses-below-used"
    memory.execute(RemovePromotion(code="ONE"))
    memory.execute(CheckoutFailed(checkout_id=UUID(int=4), cart_id=other, reason="canceled"))
    assert used() == 0


def test_a_promotion_is_told_of_when_it_changes_and_its_terms_must_make_sense() -> None:
    memory = shop(percent("p", max_uses=5))
    assert memory.get(Offers, TENANT).automatic == memory.get(Offers, TENANT).limited == ("p",)
    again, is_new = memory.execute(PutPromotion(promotion=percent("p", max_uses=5)))
    assert (again.version, is_new) == (1, False)
    _, is_new = memory.execute(PutPromotion(promotion=percent("p", 2_000, requires_coupon=True)))
    assert not is_new
    assert memory.get(Offers, TENANT).automatic == memory.get(Offers, TENANT).limited == ()
    memory.execute(RemovePromotion(code="p"))
    with pytest.raises(NotFoundError):
        memory.execute(RemovePromotion(code="p"))
    _, is_new = memory.execute(PutPromotion(promotion=percent("p")))
    assert is_new
    told = [published.event for published in memory.outbox if published.event.TOPIC == "promotion.v1"]
    assert [type(each) for each in told] == [PromotionChanged, PromotionChanged, PromotionRemoved, PromotionChanged]
    memory.assert_numbered()
    good = percent("q")
    for wrong in (
        replace(good, basis_points=None),
        replace(good, amount_minor=5, currency="GBP"),
        replace(amount("q", 5), amount_minor=None),
        replace(amount("q", 5), currency=None),
        replace(good, minimum_subtotal_minor=5),
        replace(good, valid_from=NOW, valid_until=NOW),
    ):
        with pytest.raises(RejectedError) as refused:
            memory.execute(PutPromotion(promotion=wrong))
        assert refused.value.code == "promotion-terms"


def test_there_is_a_most_of_promotions_that_every_cart_is_held_against() -> None:
    offers = Offers(tenant_id=TENANT)
    for number in range(MAX_AUTOMATIC):
        offers = listed(offers, percent(f"p{number}"))
    assert listed(offers, percent("p1")) == offers
    with pytest.raises(RejectedError) as refused:
        listed(offers, percent("one more"))
    assert refused.value.code == "too-many-promotions"
    assert listed(offers, percent("one more", requires_coupon=True)) == offers


def test_what_is_put_says_how_it_is_to_be_had_as_it_was_last_told() -> None:
    memory = shop(tea=250)

    def told() -> dict[str, Availability]:
        written: Written = memory.execute(AddQuantity(cart_id=CART, caller=SHOPPER, sku="tea", quantity=1))
        return dict(written.availability)

    assert told() == {}
    memory.execute(StockAvailabilityChanged(sku="tea", availability="low_stock"), sequence=2)
    memory.execute(StockAvailabilityChanged(sku="tea", availability="in_stock"), sequence=1)
    assert told() == {"tea": Availability.LOW_STOCK}
