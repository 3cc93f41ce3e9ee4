"""Which purchase a cancellation gives back: the same customer's, of the same code, the newest first, at the price paid."""

import pytest

from deploy.cli.replay.cancellations import Refunds, match
from deploy.cli.replay.rows import read_history
from tests.unit.deploy.rows import HEADER, row


def refunds(*rows: str, bought: set[str] | None = None) -> Refunds:
    history = read_history([f"{line}\r\n" for line in (HEADER, *rows)])
    return match(history, [it for it in history.purchases if bought is None or it.number in bought])


def given(found: Refunds) -> list[tuple[str, str, dict[str, int], int]]:
    return [(it.cancellation, it.purchase.number, it.quantities, it.amount_minor) for it in found.refunds]


def test_the_newest_purchase_gives_back_first_and_each_at_the_price_it_was_paid_at() -> None:
    found = refunds(
        row("1", quantity="5", price="1.00"),
        row("2", quantity="5", price="2.00"),
        row("C3", quantity="-7", price="9.99"),
        row("C4", quantity="-1", price="9.99"),
    )
    assert given(found) == [
        ("C3", "2", {"85123A.200": 5}, 1000),
        ("C3", "1", {"85123A.100": 2}, 200),
        ("C4", "1", {"85123A.100": 1}, 100),
    ]
    assert found.rows == {"refunded": 2}
    assert found.total_minor == 1300


def test_nothing_is_given_back_twice_or_before_it_was_bought_or_to_another_or_of_what_was_not_bought() -> None:
    assert refunds(row("1", quantity="2"), row("C2", quantity="-3")).rows == {"partly_refunded": 1}
    assert refunds(row("1", quantity="2"), row("C2", quantity="-2"), row("C3", quantity="-2")).rows == {
        "refunded": 1,
        "without_original": 1,
    }
    assert refunds(row("C1", quantity="-2"), row("2", quantity="2")).rows == {"without_original": 1}
    assert refunds(row("1"), row("C2", quantity="-2", customer="1")).rows == {"without_original": 1}
    assert refunds(row("1", customer=""), row("C2", quantity="-2")).rows == {"without_original": 1}
    assert given(refunds(row("1", quantity="2"), row("C2", quantity="-2"), bought=set())) == []


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"quantity": "-1", "customer": ""}, "without_customer"),
        ({"quantity": "3"}, "non_negative_quantity"),
        ({"quantity": "-1", "code": " ", "customer": ""}, "missing_code"),
        ({"quantity": "x", "code": ""}, "malformed"),
        ({"quantity": "-1", "customer": "nobody"}, "malformed"),
    ],
)
def test_a_row_that_gives_nothing_back_says_why(cells: dict[str, str], reason: str) -> None:
    assert refunds(row("1"), row("C2", **cells)).rows == {reason: 1}
