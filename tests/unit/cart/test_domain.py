from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.cart import CartFreezeRefused, CartFrozen, CartOrdered, CartReopened
from libs.common.contracts.catalog import PriceChanged, ProductPublished, ProductWithdrawn
from libs.common.contracts.checkout import CheckoutFailed, CheckoutRequested, OrderConfirmed
from libs.common.decision import Viewer
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, NotYetError, RejectedError, StaleError
from services.cart import domain
from services.cart.domain import TRANSITIONS, Cart, CartState, Product
from services.cart.handlers import HANDLERS, AddQuantity, CreateCart, PutLines, RemoveLines, Written
from tests.shared.events import order_confirmed, tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

SHOPPER = Viewer(subject_id=UUID(int=1), sees_all=False)
STRANGER = Viewer(subject_id=UUID(int=2), sees_all=False)
STAFF = Viewer(subject_id=UUID(int=3), sees_all=True)
CART = UUID(int=100)
CHECKOUT = UUID(int=200)


def shop(**prices: int) -> Memory:
    """A tenant with a catalogue, and one shopper's cart."""
    memory = Memory(HANDLERS)
    memory.execute(tenant_updated(TENANT))
    for sku, unit_minor in prices.items():
        memory.execute(ProductPublished(sku=sku, name=sku.title(), category="things"), sequence=1)
        memory.execute(PriceChanged(sku=sku, currency="GBP", unit_minor=unit_minor), sequence=2)
    memory.execute(CreateCart(cart_id=CART, caller=SHOPPER, currency=None))
    return memory


def put(memory: Memory, caller: Viewer = SHOPPER, *, if_match: int | None = None, **quantities: int) -> Cart:
    written: Written = memory.execute(PutLines(cart_id=CART, caller=caller, quantities=quantities, if_match=if_match))
    return written.cart


def freeze(memory: Memory, subject_id: UUID = SHOPPER.subject_id, checkout_id: UUID = CHECKOUT) -> None:
    memory.execute(CheckoutRequested(checkout_id=checkout_id, cart_id=CART, subject_id=subject_id))


def confirmed(order_id: UUID) -> OrderConfirmed:
    whose = {"order_id": order_id, "checkout_id": CHECKOUT, "cart_id": CART, "subject_id": SHOPPER.subject_id}
    return order_confirmed(1, placed_at=NOW, **whose)


# What the catalogue says may come in any order, any number of times.

FACTS: list[tuple[int, Any]] = [
    (1, ProductPublished(sku="tea", name="Tea", category="drinks")),
    (2, PriceChanged(sku="tea", currency="GBP", unit_minor=250)),
    (3, PriceChanged(sku="tea", currency="EUR", unit_minor=300)),
    (4, ProductWithdrawn(sku="tea")),
    (5, ProductPublished(sku="tea", name="Green tea", category="drinks", weight_grams=100)),
    (6, PriceChanged(sku="tea", currency="GBP", unit_minor=260)),
]


def learn(*facts: tuple[int, Any]) -> Product:
    memory = shop()
    for sequence, fact in facts:
        memory.execute(fact, sequence=sequence)
    product = memory.get(Product, "tea")
    return replace(product, version=0, sequence=0)


def test_every_order_of_arrival_leaves_the_same_product() -> None:
    expected = learn(*FACTS)
    assert (expected.name, expected.withdrawn, expected.catalog_sequence) == ("Green tea", False, 6)
    assert {code: price.unit_minor for code, price in expected.prices.items()} == {"GBP": 260, "EUR": 300}
    assert all(learn(*order) == expected for order in permutations(FACTS))


@given(st.lists(st.sampled_from(FACTS), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_of_facts_that_came_twice_or_not_at_all_the_newest_counts(arrived: list[tuple[int, Any]]) -> None:
    assert learn(*arrived) == learn(*sorted(set(arrived), key=lambda fact: fact[0]))


@pytest.mark.parametrize(("last", "sellable"), [(0, False), (1, False), (2, True), (4, False), (5, True), (6, True)])
def test_a_product_is_sold_once_described_and_priced_and_until_withdrawn(last: int, sellable: bool) -> None:
    memory = shop()
    for sequence, fact in FACTS[:last]:
        memory.execute(fact, sequence=sequence)
    if sellable:
        assert put(memory, tea=1).lines[0].price_sequence in {2, 6}
    else:
        with pytest.raises(RejectedError, match="product-unavailable"):
            put(memory, tea=1)


def test_a_price_counts_from_its_beginning_until_just_before_its_end() -> None:
    memory = shop(tea=250)
    hour = timedelta(hours=1)
    memory.execute(PriceChanged(sku="tea", currency="GBP", unit_minor=200, valid_from=NOW, valid_until=NOW + hour), sequence=3)
    product = memory.get(Product, "tea")
    prices = [product.price_in("GBP", NOW + offset) for offset in (-hour / 60, 0 * hour, hour * 0.99, hour)]
    assert [price and price.unit_minor for price in prices] == [None, 200, 200, None]


def test_what_the_catalogue_says_of_a_tenant_still_unknown_may_be_tried_again() -> None:
    for sequence, fact in FACTS:
        with pytest.raises(NotYetError, match="unknown-tenant"):
            Memory(HANDLERS).execute(fact, sequence=sequence)


# Lines.


def test_a_line_keeps_the_price_of_its_moment_until_it_is_put_again() -> None:
    memory = shop(tea=250, gin=1_000)
    assert put(memory, tea=3, gin=2).total_minor == 2_750
    memory.execute(PriceChanged(sku="tea", currency="GBP", unit_minor=300), sequence=3)
    cart = memory.get(Cart, CART)
    assert (cart.total_minor, [line.unit_minor for line in cart.lines]) == (2_750, [250, 1_000])
    cart = put(memory, tea=1)
    assert [(line.sku, line.quantity, line.unit_minor, line.total_minor) for line in cart.lines] == [
        ("tea", 1, 300, 300),
        ("gin", 2, 1_000, 2_000),
    ]
    cart = memory.execute(AddQuantity(cart_id=CART, caller=SHOPPER, sku="gin", quantity=5)).cart
    assert cart.total_minor == 7_300


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(1, 50)),
            st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 50)),
            st.tuples(st.just("remove"), st.sampled_from("abc"), st.just(0)),
            st.tuples(st.just("clear"), st.just("a"), st.just(0)),
        ),
        max_size=15,
    )
)
@settings(max_examples=60, deadline=None)
def test_a_cart_is_what_was_put_added_and_removed(steps: list[tuple[str, str, int]]) -> None:
    prices = {"a": 1, "b": 70, "c": 999}
    memory = shop(**prices)
    expected: dict[str, int] = {}
    for step, sku, quantity in steps:
        match step:
            case "put":
                memory.execute(PutLines(cart_id=CART, caller=SHOPPER, quantities={sku: quantity}))
                expected[sku] = quantity
            case "add":
                memory.execute(AddQuantity(cart_id=CART, caller=SHOPPER, sku=sku, quantity=quantity))
                expected[sku] = expected.get(sku, 0) + quantity
            case "clear":
                memory.execute(RemoveLines(cart_id=CART, caller=SHOPPER, sku=None))
                expected.clear()
            case _ if sku in expected:
                memory.execute(RemoveLines(cart_id=CART, caller=SHOPPER, sku=sku))
                del expected[sku]
            case _:
                with pytest.raises(NotFoundError, match="line-not-found"):
                    memory.execute(RemoveLines(cart_id=CART, caller=SHOPPER, sku=sku))
        cart = memory.get(Cart, CART)
        assert {line.sku: line.quantity for line in cart.lines} == expected
        assert cart.total_minor == sum(prices[name] * count for name, count in expected.items())


@pytest.mark.parametrize(
    ("sku", "quantity", "code"),
    [
        ("tea", 0, "bad-quantity"),
        ("tea", -1, "bad-quantity"),
        ("tea", 1_000_001, "bad-quantity"),
        ("gin", 1, "product-unavailable"),
        ("", 1, "bad-sku"),
        (" tea", 1, "bad-sku"),
        ("tea\n", 1, "bad-sku"),
        ("the\u0301", 1, "bad-sku"),
        ("tea\u3000", 1, "bad-sku"),
        ("t\ud800", 1, "bad-sku"),
        ("x" * 65, 1, "bad-sku"),
    ],
)
def test_what_cannot_be_sold_so_is_refused_and_nothing_changes(sku: str, quantity: int, code: str) -> None:
    memory = shop(tea=250)
    before = put(memory, tea=1)
    for command in (
        PutLines(cart_id=CART, caller=SHOPPER, quantities={"tea": 5, sku: quantity}),
        PutLines(cart_id=CART, caller=SHOPPER, quantities={sku: quantity}, replace_all=True),
    ):
        with pytest.raises(RejectedError, match=code):
            memory.execute(command)
    assert memory.get(Cart, CART) == before


def test_a_cart_has_a_most_of_lines_and_comes_to_no_more_than_an_event_can_say() -> None:
    memory = shop(tea=9_000_000_000, gin=1)
    cart = put(memory, tea=1_000_000)
    assert cart.total_minor == domain.MAX_TOTAL_MINOR
    with pytest.raises(RejectedError, match="total-too-large"):
        put(memory, gin=1)
    line = domain.priced_line(memory.get(Product, "tea"), "tea", 1, "GBP", NOW)
    many = [replace(line, sku=f"s{number}") for number in range(domain.MAX_LINES)]
    full = domain.replace_lines(cart, many)
    with pytest.raises(RejectedError, match="too-many-lines"):
        domain.put_line(full, line)
    with pytest.raises(RejectedError, match="duplicate-sku"):
        domain.replace_lines(cart, [line, line])


def test_another_shoppers_cart_is_not_there_and_staff_see_every_cart() -> None:
    memory = shop(tea=250)
    for command in (
        PutLines(cart_id=CART, caller=STRANGER, quantities={"tea": 1}),
        AddQuantity(cart_id=CART, caller=STRANGER, sku="tea", quantity=1),
        RemoveLines(cart_id=CART, caller=STRANGER, sku=None),
        RemoveLines(cart_id=CART, caller=STRANGER, sku="tea", if_match=99),
    ):
        with pytest.raises(NotFoundError, match="cart-not-found"):
            memory.execute(command)
    assert put(memory, STAFF, tea=1).total_minor == 250
    with pytest.raises(ConflictError, match="id-not-available"):
        memory.execute(CreateCart(cart_id=CART, caller=STRANGER, currency=None))
    assert memory.execute(CreateCart(cart_id=CART, caller=SHOPPER, currency="EUR")) == (memory.get(Cart, CART), False)


# Freezing.


def test_a_checkout_is_given_the_cart_at_the_prices_of_the_moment_once_however_often_it_asks() -> None:
    memory = shop(tea=250, gin=1_000)
    put(memory, tea=3, gin=2)
    memory.execute(PriceChanged(sku="tea", currency="GBP", unit_minor=1), sequence=3)
    freeze(memory)
    freeze(memory)
    [frozen] = memory.events(CartFrozen)
    cart = memory.get(Cart, CART)
    assert (frozen.version, frozen.total_minor, frozen.checkout_id) == (cart.version, 2_003, CHECKOUT)
    assert sum(line.total_minor for line in frozen.lines) - sum(each.amount_minor for each in frozen.discounts) == 2_003
    assert all(line.total_minor == line.unit_minor * line.quantity for line in frozen.lines)
    memory.assert_numbered()


def refusal(memory: Memory, **request: UUID) -> str:
    before = dict(memory.rows)
    freeze(memory, **request)
    assert memory.rows == before, "a refusal moves nothing"
    [refused] = memory.events(CartFreezeRefused)
    [published] = [each for each in memory.outbox if each.event == refused]
    assert (published.aggregate_id, published.sequence) == (str(request.get("checkout_id", CHECKOUT)), 1)
    return refused.reason


def test_a_cart_that_cannot_be_bought_says_why() -> None:
    empty = shop(tea=250)
    assert refusal(empty) == "cart-empty"
    gone = shop(tea=250, gin=1)
    put(gone, tea=1, gin=1)
    gone.execute(ProductWithdrawn(sku="gin"), sequence=9)
    assert refusal(gone) == "product-unavailable"
    taken = shop(tea=250)
    put(taken, tea=1)
    freeze(taken)
    assert refusal(taken, checkout_id=uuid4()) == "cart-unavailable"
    absent = Memory(HANDLERS)
    assert refusal(absent) == "cart-not-found"


def test_anothers_cart_is_refused_exactly_as_one_that_is_not_there() -> None:
    for state in ("empty", "full", "frozen"):
        memory = shop(tea=250)
        if state != "empty":
            put(memory, tea=1)
        if state == "frozen":
            freeze(memory, checkout_id=uuid4())
        assert refusal(memory, subject_id=STRANGER.subject_id) == "cart-not-found"


def test_a_frozen_cart_changes_for_nobody_and_says_whose_it_is() -> None:
    memory = shop(tea=250)
    put(memory, tea=1)
    freeze(memory)
    before = memory.get(Cart, CART)
    for command in (
        PutLines(cart_id=CART, caller=SHOPPER, quantities={"tea": 1}),
        PutLines(cart_id=CART, caller=STAFF, quantities={}, replace_all=True),
        AddQuantity(cart_id=CART, caller=SHOPPER, sku="tea", quantity=1),
        RemoveLines(cart_id=CART, caller=SHOPPER, sku="tea"),
    ):
        with pytest.raises(ConflictError, match="cart-not-open") as conflict:
            memory.execute(command)
        assert conflict.value.members == {"state": "frozen", "checkout_id": str(CHECKOUT)}
    with pytest.raises(StaleError):
        put(memory, tea=1, if_match=before.version - 1)
    assert memory.get(Cart, CART) == before


def test_only_its_own_checkout_gives_a_cart_back_and_an_order_keeps_it_for_ever() -> None:
    memory = shop(tea=250)
    put(memory, tea=1)
    freeze(memory)
    memory.execute(CheckoutFailed(checkout_id=uuid4(), cart_id=CART, reason="canceled"))
    assert memory.get(Cart, CART).state is CartState.FROZEN
    for _ in range(2):
        memory.execute(CheckoutFailed(checkout_id=CHECKOUT, cart_id=CART, reason="canceled"))
    assert (memory.get(Cart, CART).state, memory.get(Cart, CART).checkout_id) == (CartState.OPEN, None)
    put(memory, tea=2)
    freeze(memory, checkout_id=CHECKOUT)
    for _ in range(2):
        memory.execute(confirmed(UUID(int=7)))
        memory.execute(CheckoutFailed(checkout_id=CHECKOUT, cart_id=CART, reason="canceled"))
    cart = memory.get(Cart, CART)
    assert (cart.state, cart.order_id, cart.checkout_id) == (CartState.ORDERED, UUID(int=7), CHECKOUT)
    assert (len(memory.events(CartReopened)), len(memory.events(CartOrdered))) == (1, 1)
    memory.assert_numbered()


ATTEMPTS = [UUID(int=1_000 + attempt) for attempt in range(4)]


def _checkouts_of_one_cart(last: type[Any]) -> list[list[Any]]:
    """By checkout what its key tells, in order: each that is over has a successor, and the last holds the cart or was bought."""
    told: list[list[Any]] = [
        [CheckoutRequested(checkout_id=each, cart_id=CART, subject_id=SHOPPER.subject_id, attempt=attempt)]
        for attempt, each in enumerate(ATTEMPTS[1:], 1)
    ]
    for each, facts in zip(ATTEMPTS[1:-1], told, strict=False):
        facts.append(CheckoutFailed(checkout_id=each, cart_id=CART, reason="payment-declined"))
    if last is CheckoutFailed:
        told[-1].append(CheckoutFailed(checkout_id=ATTEMPTS[-1], cart_id=CART, reason="payment-declined"))
    return told


def _orders_of(told: list[list[Any]]) -> Iterator[list[Any]]:
    """Every order of arrival that keeps each key's own."""
    numbered = [(key, place) for key, facts in enumerate(told) for place in range(len(facts))]
    for order in permutations(numbered):
        if all(order.index((key, place)) < order.index((key, place + 1)) for key, place in numbered if (key, place + 1) in order):
            yield [told[key][place] for key, place in order]


@pytest.mark.parametrize(("last", "state"), [(CheckoutRequested, CartState.FROZEN), (CheckoutFailed, CartState.OPEN)])
def test_in_whatever_order_a_carts_checkouts_are_told_of_the_last_one_gets_it_and_is_never_refused(
    last: type[Any], state: CartState
) -> None:
    orders = list(_orders_of(_checkouts_of_one_cart(last)))
    assert len(orders) > 20
    for arrivals in orders:
        memory = shop(tea=250)
        put(memory, tea=1)
        for each in arrivals:
            memory.execute(each)
        assert ATTEMPTS[-1] not in {each.checkout_id for each in memory.events(CartFreezeRefused)}
        assert [each.checkout_id for each in memory.events(CartFrozen)][-1] == ATTEMPTS[-1]
        cart = memory.get(Cart, CART)
        assert (cart.state, cart.checkout_id) == (state, ATTEMPTS[-1] if state is CartState.FROZEN else None)
        frozen, reopened = memory.events(CartFrozen), memory.events(CartReopened)
        assert len(frozen) - len(reopened) == (state is CartState.FROZEN), "it is one checkout's at a time"
        own = [each for each in memory.outbox if each.aggregate_id == str(CART)]
        assert [each.sequence for each in own] == list(range(1, len(own) + 1))


# The machine.

COMMANDS: dict[str, Callable[[Cart], Cart]] = {
    "freeze": lambda cart: domain.freeze(cart, CHECKOUT)[0],
    "reopen": lambda cart: domain.reopen(cart, CHECKOUT)[0],
    "order": lambda cart: domain.order(cart, CHECKOUT)[0],
}


@pytest.mark.parametrize("state", CartState)
def test_the_table_is_the_only_way_from_state_to_state(state: CartState) -> None:
    cart = replace(domain.create(TENANT, CART, SHOPPER.subject_id, "GBP", NOW), state=state)
    for to in CartState:
        if to in TRANSITIONS[state]:
            assert domain.move(cart, to).state is to
        else:
            with pytest.raises(ConflictError, match="cart-state"):
                domain.move(cart, to)
    for name, command in COMMANDS.items():
        try:
            moved = command(cart)
        except CartwrightError:
            continue
        assert moved.state in TRANSITIONS[state], name


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(CartState)
    reached = {CartState.OPEN}
    for _ in CartState:
        reached |= {to for state in reached for to in TRANSITIONS[state]}
    assert reached == set(CartState)
