"""The invariants, decided from facts alone: whichever source is corrupted, exactly that is found and nothing else."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from deploy.cli.invariants.check import Limits, judge
from deploy.cli.invariants.facts import Account, Books
from deploy.cli.invariants.run import Patience
from deploy.cli.invariants.violation import Violation
from libs.common.contracts.cart import CartFrozen
from libs.common.contracts.checkout import (
    CheckoutRequested,
    OrderConfirmed,
    OrderQuantity,
    OrderRefunded,
    OrderRefundFailed,
    PaymentRequested,
    RefundRequested,
)
from libs.common.contracts.fulfilment import FulfilmentLine, ReturnReceived, ShipmentDispatched
from libs.common.contracts.inventory import StockAdjusted
from libs.common.contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentUnknown, RefundSucceeded
from tests.shared.events import stock_counted
from tests.unit.deploy.shop import COUNTED, DELIVERED, LONG_AGO, NOW, SKU, UNIT, Shop, id_of


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Sold, failed, refunded with and without the goods, canceled, shipped and returned, under way, and still to be paid."""
    shop = Shop()
    counted = LONG_AGO - timedelta(days=1)
    shop.say(stock_counted(SKU, COUNTED, "shop"), counted, 1)
    shop.say(StockAdjusted(sku=SKU, location="shop", delta=DELIVERED, reason="delivery"), LONG_AGO + timedelta(hours=1), 2)
    for number, name in enumerate(("bought", "refunded", "kept", "returned"), 1):
        shop.buy(name, number)
    shop.refund("refunded", 1, restock=True)
    shop.refund("kept", 2, restock=False)
    lines = (FulfilmentLine(line_id="1", quantity=2),)
    shop.say(ShipmentDispatched(order_id=id_of("returned/order"), shipment_id="s", lines=lines))
    shop.say(ReturnReceived(order_id=id_of("returned/order"), return_id="r", lines=lines, restock=True))
    shop.put_back(2)
    shop.check_out("failed", 3)
    shop.fail("failed", 3)
    shop.check_out("off", 2)
    shop.confirm("off", 5, 2)
    shop.cancel("off", 2)
    shop.check_out("under-way", 4, NOW)
    shop.charges.append(shop.charge("under-way", 0, "requires_capture"))
    shop.check_out("unpaid", 1, NOW)
    shop.confirm("unpaid", 6, 1, NOW)
    shop.charges.append(shop.charge("unpaid", 0, "requires_capture"))
    shop.check_out("unshipped", 1, LONG_AGO, "on-shipment")
    shop.confirm("unshipped", 7, 1)
    shop.charges.append(shop.charge("unshipped", 0, "requires_capture"))
    yield shop
    for store in shop.stores:
        store.close()


def _found(books: Books, limits: Limits | None = None) -> list[tuple[str, str]]:
    return [(each.invariant, each.subject) for each in judge(books, limits or Limits()).violations]


def test_nothing_is_wrong_with_a_shop_in_which_everything_happens(shop: Shop) -> None:
    judgment = judge(shop.books(), Limits())
    assert judgment.violations == []
    sums = judgment.totals["GBP"]
    assert sums == {"captured_minor": 4 * 500, "refunded_minor": 750, "orders_minor": 4 * 500 + 2 * 250, "orders": 6}


@pytest.mark.parametrize("is_shelved", [True, False])
def test_goods_of_a_refund_that_failed_are_not_missed_when_the_next_one_puts_none_beside_them(
    shop: Shop, is_shelved: bool
) -> None:
    shop.buy("fickle", 8, quantity=3)
    about: dict[str, Any] = {"order_id": id_of("fickle/order"), "amount_minor": UNIT, "currency": "GBP"}
    line = OrderQuantity(line_id="1", quantity=1)
    for number in (1, 2):
        refund = id_of(f"fickle/refund-{number}")
        shop.say(OrderRefunded(refund_id=refund, refunded_minor=UNIT, lines=(line,), restock=True, **about))
        if number == 1:
            shop.say(OrderRefundFailed(refund_id=refund, refunded_minor=0, lines=(line,), code="lost", **about))
    if is_shelved:
        shop.put_back(1)
    assert _found(shop.books()) == ([] if is_shelved else [("stock-leak", SKU)])


def test_events_that_come_twice_or_in_any_order_say_the_same(shop: Shop) -> None:
    shop.events = [*reversed(shop.events), *shop.events]
    assert _found(shop.books()) == []


def _lost_capture(shop: Shop) -> tuple[str, str]:
    shop.charges = [replace(each, captured_minor=0) if each.id == "pi_bought" else each for each in shop.charges]
    return "capture-lost", str(id_of("bought/order"))


def _untold_capture(shop: Shop) -> tuple[str, str]:
    shop.mute(PaymentCaptured, "bought")
    return "capture-untold", "pi_bought"


def _unpaid(shop: Shop) -> tuple[str, str]:
    shop.mute(PaymentCaptured, "bought")
    shop.charges = [each for each in shop.charges if each.id != "pi_bought"]
    return "order-without-capture", str(id_of("bought/order"))


def _shipped_and_unpaid(shop: Shop) -> tuple[str, str]:
    lines = (FulfilmentLine(line_id="1", quantity=1),)
    shop.say(ShipmentDispatched(order_id=id_of("unshipped/order"), shipment_id="late", lines=lines))
    return "order-without-capture", str(id_of("unshipped/order"))


def _another_amount(shop: Shop) -> tuple[str, str]:
    shop.charges = [replace(each, captured_minor=499) if each.id == "pi_bought" else each for each in shop.charges]
    return "capture-differs", str(id_of("bought/order"))


def _second_charge(shop: Shop) -> tuple[str, str]:
    shop.charges.append(replace(shop.charge("bought", 500, id_="pi_again"), payment_id=None))
    return "second-charge", str(id_of("bought"))


def _second_hold(shop: Shop) -> tuple[str, str]:
    shop.charges.append(shop.charge("bought", 0, "requires_capture", id_="pi_again"))
    return "second-charge", str(id_of("bought"))


def _missing_order(shop: Shop) -> tuple[str, str]:
    shop.buy("vanished", 8)
    shop.mute(OrderConfirmed, "vanished")
    shop.level = replace(shop.level, sold=shop.level.sold - 2, reserved=shop.level.reserved + 2)  # as if it were still held
    return "capture-without-order", "pi_vanished"


def _money_of_a_failed_checkout(shop: Shop) -> tuple[str, str]:
    shop.charges.append(shop.charge("failed", 0, "requires_capture"))
    return "money-held", "pi_failed"


def _kept_money_of_a_canceled_order(shop: Shop) -> tuple[str, str]:
    shop.capture("off", 2)
    return "capture-without-order", "pi_off"


def _gap(shop: Shop) -> tuple[str, str]:
    shop.buy("skipped-to", 10)
    return "order-number-gap", "8 to 9"


def _same_number(shop: Shop) -> tuple[str, str]:
    shop.buy("twin", 7)
    return "order-number-twice", "7"


def _missing_goods(shop: Shop) -> tuple[str, str]:
    shop.level = replace(shop.level, on_hand=shop.level.on_hand - 1)
    return "stock-leak", SKU


def _goods_not_sold(shop: Shop) -> tuple[str, str]:
    shop.level = replace(shop.level, on_hand=shop.level.on_hand + 1, sold=shop.level.sold - 1)
    return "stock-leak", SKU


def _goods_held_by_nobody(shop: Shop) -> tuple[str, str]:
    shop.level = replace(shop.level, on_hand=shop.level.on_hand - 1, reserved=shop.level.reserved + 1)
    return "stock-leak", SKU


def _goods_put_back_twice(shop: Shop) -> tuple[str, str]:
    shop.put_back(1)
    return "stock-leak", SKU


def _stuck_checkout(shop: Shop) -> tuple[str, str]:
    shop.check_out("stuck", 1)
    return "checkout-stuck", str(id_of("stuck"))


def _unknown_payment(shop: Shop) -> tuple[str, str]:
    shop.say(PaymentUnknown(payment_id=id_of("under-way/payment"), checkout_id=id_of("under-way")))
    return "payment-unknown", str(id_of("under-way/payment"))


def _stuck_refund(shop: Shop) -> tuple[str, str]:
    about = {"refund_id": id_of("slow"), "order_id": id_of("bought/order"), "checkout_id": id_of("bought")}
    payment_id, weeks_ago = id_of("bought/payment"), NOW - timedelta(weeks=2)
    shop.say(RefundRequested(payment_id=payment_id, amount_minor=1, currency="GBP", reason="", **about), weeks_ago)
    return "refund-stuck", str(id_of("slow"))


def _refund_by_another_door(shop: Shop) -> tuple[str, str]:
    shop.charges = [replace(each, refunded_minor=100) if each.id == "pi_bought" else each for each in shop.charges]
    return "refund-differs", "pi_bought"


CORRUPTIONS: list[Callable[[Shop], tuple[str, str]]] = [
    _lost_capture,
    _untold_capture,
    _unpaid,
    _shipped_and_unpaid,
    _another_amount,
    _second_charge,
    _second_hold,
    _missing_order,
    _money_of_a_failed_checkout,
    _kept_money_of_a_canceled_order,
    _gap,
    _same_number,
    _missing_goods,
    _goods_not_sold,
    _goods_held_by_nobody,
    _goods_put_back_twice,
    _stuck_checkout,
    _unknown_payment,
    _stuck_refund,
    _refund_by_another_door,
]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__.strip("_"))
def test_each_corrupted_source_gives_exactly_its_violation(shop: Shop, corrupt: Callable[[Shop], tuple[str, str]]) -> None:
    expected = corrupt(shop)
    for page in (1, 3, 1_000):
        assert _found(shop.books(page)) == [expected], f"{page} purchases at once"


def test_a_second_order_of_one_checkout_is_found(shop: Shop) -> None:
    [first] = [each for each in shop.events if isinstance(each[0], OrderConfirmed) and each[0].checkout_id == id_of("bought")]
    assert isinstance(first[0], OrderConfirmed)
    shop.say(replace(first[0], order_id=id_of("again"), number=8))
    shop.level = replace(shop.level, sold=shop.level.sold + 2, on_hand=shop.level.on_hand - 2)
    assert _found(shop.books()) == [("second-order", str(id_of("bought")))]
    shop.charges = [each for each in shop.charges if each.id != "pi_bought"]
    found = _found(shop.books())
    assert ("capture-lost", str(id_of("bought/order"))) in found
    shop.events.reverse()
    assert _found(shop.books()) == found, "whichever of them is read first"


def test_an_order_whose_money_went_back_unasked_is_found_and_one_that_was_called_off_is_not(shop: Shop) -> None:
    about: dict[str, Any] = {"order_id": id_of("bought/order"), "payment_id": id_of("bought/payment")}
    about["checkout_id"] = id_of("bought")
    given: dict[str, Any] = {"refund_id": id_of("unasked"), "amount_minor": 500, "currency": "GBP", "refunded_minor": 500}
    shop.say(RefundSucceeded(cause="no-order", **given, **about))
    assert ("refund-unasked", str(id_of("bought/order"))) in _found(shop.books())
    shop.say(RefundSucceeded(**given, **about))
    assert ("refund-unasked", str(id_of("bought/order"))) not in _found(shop.books())


@pytest.mark.parametrize("code", ["sales", "provider_balance", "refunds"])
def test_an_account_that_has_lost_something_unbalances_the_ledger(shop: Shop, code: str) -> None:
    books = shop.books()
    broken = [replace(each, credited_minor=each.credited_minor + 1) if each.code == code else each for each in books.accounts]
    assert _found(replace(books, accounts=broken)) == [("ledger-unbalanced", "GBP")]


def test_a_balanced_ledger_that_the_provider_contradicts_is_found(shop: Shop) -> None:
    books = shop.books()
    assert _found(replace(books, provider_net_minor={"GBP": 1})) == [("ledger-differs", "GBP")]
    assert _found(replace(books, accounts=[])) == [("ledger-differs", "GBP")]
    fees = [
        Account(code="provider_fees", currency="GBP", debited_minor=30, credited_minor=0),
        *(
            replace(each, credited_minor=each.credited_minor + (30 if each.code == "provider_balance" else 0))
            for each in books.accounts
        ),
    ]
    assert _found(replace(books, accounts=fees)) == [], "what the provider keeps for itself is booked when it tells"


def test_what_is_on_its_way_is_wrong_only_beyond_its_limit(shop: Shop) -> None:
    strict = Limits(checkout=-1, capture=-1, unknown=-1, refund=-1, orphan=-1)
    assert _found(shop.books(), strict) == [
        ("checkout-stuck", str(id_of("under-way"))),
        ("order-without-capture", str(id_of("unpaid/order"))),
    ]


def test_where_the_topics_keep_no_more_only_what_began_within_them_is_judged(shop: Shop) -> None:
    books = shop.books()
    for kind in (CheckoutRequested, CartFrozen, PaymentRequested, OrderConfirmed, PaymentCaptured):
        shop.mute(kind, "bought")
    shop.mute(PaymentAuthorized, "bought")
    cut = replace(shop.books(), stock=books.stock)
    assert {invariant for invariant, _ in _found(cut)} == {"capture-without-order", "order-number-gap", "stock-leak"}
    assert _found(replace(cut, is_whole=False)) == []


def test_a_tenant_whose_provider_shows_us_no_list_is_judged_by_all_else(shop: Shop) -> None:
    shop.check_out("stuck", 1)
    books = replace(shop.books(), is_listed=False, provider_net_minor={})
    assert _found(books) == [("checkout-stuck", str(id_of("stuck")))]


def test_a_product_that_nobody_counts_has_no_books_to_be_wrong(shop: Shop) -> None:
    shop.level = replace(shop.level, on_hand=0, reserved=0, sold=0, is_tracked=False)
    assert _found(shop.books()) == []


def test_ten_times_the_orders_are_judged_in_the_same_memory_and_a_statement_more_only_for_more_pages(shop: Shop) -> None:
    def judged(orders: int) -> tuple[int, int]:
        shop.events, shop.charges = [], []
        for number in range(orders):
            shop.buy(f"many-{number}", number + 1)
        books = replace(shop.books(page=50), stock={}, accounts=[], provider_net_minor={})
        shop.events, shop.charges = [], []
        statements = count()
        shop.stores[-1].traced(lambda _: next(statements))
        tracemalloc.start()
        judgment = judge(books, Limits())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (judgment.violations, judgment.checkouts, judgment.totals["GBP"]["orders"]) == ([], orders, orders)
        return peak, next(statements)

    (few_bytes, few_statements), (many_bytes, many_statements) = judged(200), judged(2_000)
    assert many_bytes < 1.5 * few_bytes
    assert many_statements < 10 * few_statements


def test_only_what_was_wrong_in_every_look_for_long_enough_is_believed() -> None:
    passing, lasting = (Violation(tenant="t", invariant="i", subject=subject, detail="") for subject in ("passing", "lasting"))
    patience = Patience(10)
    assert patience.lasting([passing, lasting], 0) == []
    assert patience.lasting([lasting], 6) == []
    assert patience.lasting([passing, replace(lasting, detail="still")], 10) == [replace(lasting, detail="still")]
    assert patience.lasting([passing], 15) == []
    assert patience.lasting([passing], 20) == [passing]
