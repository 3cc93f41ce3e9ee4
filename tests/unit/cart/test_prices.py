"""Which price a cart is given away at: one that counts at that moment, and the buyer knows whether it rose."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.cart import CartFreezeRefused, CartFrozen
from libs.common.contracts.catalog import PriceChanged, ProductPublished, ProductWithdrawn
from libs.common.contracts.checkout import CheckoutFailed, CheckoutRequested
from libs.common.decision import Viewer
from libs.common.errors import RejectedError
from services.cart import domain
from services.cart.domain import MAX_TOTAL_MINOR, Cart
from services.cart.handlers import HANDLERS, AddQuantity, CreateCart, PutLines, RemoveLines
from tests.shared.events import tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

SHOPPER = Viewer(subject_id=UUID(int=1), sees_all=False)
CART = UUID(int=100)
HOUR = timedelta(hours=1)


class Shop:
    """A catalogue, a cart, and a clock."""

    def __init__(self, **prices: int) -> None:
        self.memory = Memory(HANDLERS)
        self.now = NOW
        self.told = 0
        self.memory.execute(tenant_updated(TENANT))
        for sku, unit_minor in prices.items():
            self.say(ProductPublished(sku=sku, name=sku, category="things"))
            self.price(sku, unit_minor)
        self.memory.execute(CreateCart(cart_id=CART, caller=SHOPPER, currency=None))

    def say(self, fact: Any) -> None:
        self.told += 1
        self.memory.execute(fact, sequence=self.told, now=self.now)

    def price(self, sku: str, unit_minor: int, since: datetime | None = None, until: datetime | None = None) -> None:
        self.say(PriceChanged(sku=sku, currency="GBP", unit_minor=unit_minor, valid_from=since, valid_until=until))

    def put(self, sku: str, quantity: int = 1) -> None:
        self.memory.execute(PutLines(cart_id=CART, caller=SHOPPER, quantities={sku: quantity}), now=self.now)

    def add(self, sku: str) -> None:
        self.memory.execute(AddQuantity(cart_id=CART, caller=SHOPPER, sku=sku, quantity=1), now=self.now)

    def remove(self, sku: str) -> None:
        self.memory.execute(RemoveLines(cart_id=CART, caller=SHOPPER, sku=sku), now=self.now)

    def freeze(self, attempt: int = 1) -> CartFrozen | None:
        """The cart as a checkout is given it; None: it is refused, and stays as it was."""
        before = len(self.memory.outbox)
        checkout_id, whose = UUID(int=1_000 + attempt), SHOPPER.subject_id
        asked = CheckoutRequested(checkout_id=checkout_id, cart_id=CART, subject_id=whose, attempt=attempt)
        self.memory.execute(asked, now=self.now)
        answers = [each.event for each in self.memory.outbox[before:]]
        [answer] = [each for each in answers if isinstance(each, CartFrozen | CartFreezeRefused)]
        if isinstance(answer, CartFrozen):
            self.memory.execute(CheckoutFailed(checkout_id=checkout_id, cart_id=CART, reason="canceled"), now=self.now)
            return answer
        return None


def _prices(frozen: CartFrozen | None) -> list[tuple[int, int | None]]:
    assert frozen is not None
    assert frozen.total_minor == sum(line.total_minor for line in frozen.lines)
    return [(line.unit_minor, line.price_was_minor) for line in frozen.lines]


def test_a_price_that_rose_is_frozen_as_it_is_now_beside_what_it_was_and_one_that_fell_likewise() -> None:
    shop = Shop(tea=100, gin=900)
    shop.put("tea")
    shop.put("gin")
    shop.price("tea", 10_000)
    shop.price("gin", 800)
    assert _prices(shop.freeze()) == [(10_000, 100), (800, 900)]
    assert _prices(shop.freeze(2)) == [(10_000, 100), (800, 900)], "a checkout that came to nothing has accepted nothing"
    shop.price("tea", 100)
    assert _prices(shop.freeze(3)) == [(100, None), (800, 900)], "it rose, and fell back"


def test_another_quantity_is_no_word_on_the_price_but_whoever_takes_a_line_out_and_puts_it_in_has_seen_what_it_costs() -> None:
    shop = Shop(tea=100)
    shop.put("tea")
    shop.price("tea", 150)
    shop.put("tea", 2)
    shop.add("tea")
    assert _prices(shop.freeze()) == [(150, 100)]
    shop.remove("tea")
    shop.put("tea")
    assert _prices(shop.freeze(2)) == [(150, None)]
    shop.price("tea", 120)
    shop.put("tea", 2)
    shop.price("tea", 150)
    assert _prices(shop.freeze(3)) == [(150, 120)], "who put it again while it was cheaper knows the lower price"


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_price_that_is_over_or_has_not_begun_is_neither_put_nor_frozen(is_begun: bool) -> None:
    shop = Shop(tea=100)
    shop.put("tea")
    bounds = {"until": NOW + HOUR} if is_begun else {"since": NOW + 2 * HOUR}
    shop.price("tea", 50, **bounds)
    shop.now = NOW + HOUR
    assert shop.freeze() is None
    with pytest.raises(RejectedError, match="product-unavailable"):
        shop.put("tea")
    shop.now = NOW if is_begun else NOW + 2 * HOUR
    assert _prices(shop.freeze(2)) == [(50, 100)]


def test_what_is_frozen_says_when_the_first_of_its_prices_is_over() -> None:
    shop = Shop(tea=100, gin=900)
    shop.put("tea")
    shop.put("gin")
    frozen = shop.freeze()
    assert frozen is not None
    assert frozen.prices_valid_until is None
    shop.price("tea", 100, until=NOW + 2 * HOUR)
    shop.price("gin", 900, until=NOW + HOUR)
    frozen = shop.freeze(2)
    assert frozen is not None
    assert frozen.prices_valid_until == NOW + HOUR


def test_a_cart_whose_prices_rose_beyond_what_an_event_can_say_is_refused() -> None:
    shop = Shop(tea=1)
    shop.put("tea", 1_000_000)
    shop.price("tea", MAX_TOTAL_MINOR)
    assert shop.freeze() is None


STEPS = st.one_of(
    st.tuples(st.just("price"), st.sampled_from("ab"), st.integers(0, 5), st.sampled_from([None, (0, 1), (1, 2), (-2, 0)])),
    st.tuples(st.sampled_from(["put", "add", "remove", "withdraw", "publish"]), st.sampled_from("ab"), st.integers(1, 3)),
    st.tuples(st.just("time"), st.just(""), st.just(1)),
    st.tuples(st.just("freeze"), st.just(""), st.just(1)),
)


class Model:
    """What a person would say of the same shop."""

    def __init__(self) -> None:
        self.prices: dict[str, tuple[int, datetime | None, datetime | None]] = {"a": (1, None, None), "b": (2, None, None)}
        self.known: dict[str, int] = {}
        self.gone: set[str] = set()
        self.attempts = 0

    def price(self, sku: str, now: datetime) -> int | None:
        unit, since, until = self.prices[sku]
        counts = sku not in self.gone and (since is None or since <= now) and (until is None or now < until)
        return unit if counts else None

    def put(self, sku: str, now: datetime) -> bool:
        price = self.price(sku, now)
        if price is not None:
            self.known[sku] = min(self.known.get(sku, price), price)
        return price is not None


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_to_prices_and_lines_a_cart_freezes_at_prices_that_count_and_names_the_one_its_buyer_knows(
    steps: list[tuple[Any, ...]],
) -> None:
    shop, model = Shop(a=1, b=2), Model()
    for step, sku, *rest in steps:
        _take(shop, model, step, sku, rest)
    _assert_frozen_as(shop, model)
    assert {line.sku for line in shop.memory.get(Cart, CART).lines} == set(model.known)


def _take(shop: Shop, model: Model, step: str, sku: str, rest: list[Any]) -> None:
    match step:
        case "price":
            since, until = [None if rest[1] is None else shop.now + each * HOUR for each in rest[1] or (0, 0)]
            model.prices[sku] = (rest[0], since, until)
            shop.price(sku, rest[0], since, until)
        case "put" | "add":
            _put(shop, model, sku, rest[0] if step == "put" else None)
        case "remove" if sku in model.known:
            del model.known[sku]
            shop.remove(sku)
        case "withdraw":
            model.gone.add(sku)
            shop.say(ProductWithdrawn(sku=sku))
        case "publish":
            model.gone.discard(sku)
            shop.say(ProductPublished(sku=sku, name=sku, category="things"))
        case "time":
            shop.now += HOUR
        case "freeze":
            _assert_frozen_as(shop, model)
        case _:
            assert step == "remove", "there is nothing to remove"


def _put(shop: Shop, model: Model, sku: str, quantity: int | None) -> None:
    if not model.put(sku, shop.now):
        with pytest.raises(RejectedError, match="product-unavailable"):
            shop.put(sku)
    elif quantity is None:
        shop.add(sku)
    else:
        shop.put(sku, quantity)


def _assert_frozen_as(shop: Shop, model: Model) -> None:
    model.attempts += 1
    frozen = shop.freeze(model.attempts)
    prices = {sku: model.price(sku, shop.now) for sku in model.known}
    if not prices or None in prices.values():
        assert frozen is None
        return
    assert frozen is not None
    found = {line.sku: (line.unit_minor, line.price_was_minor) for line in frozen.lines}
    assert found == {sku: (unit, None if unit == model.known[sku] else model.known[sku]) for sku, unit in prices.items()}


def test_a_cart_of_before_there_was_a_limit_may_be_as_large_as_one_that_is_filled_today(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tea=250)
    shop.put("tea")
    cart = shop.memory.get(Cart, CART)
    size = domain.told_bytes(cart.lines)
    for most, why in ((size, None), (size - 1, "cart-unavailable")):
        monkeypatch.setattr(domain.cart, "MAX_TOLD_BYTES", most)
        assert domain.freeze_refusal(cart, SHOPPER.subject_id, unavailable=False) == why
