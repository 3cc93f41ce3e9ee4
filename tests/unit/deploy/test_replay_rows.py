"""What a replay reads out of a retailer's file: which rows are bought, at which price, by whom."""

from pathlib import Path

import pytest

from deploy.cli.replay.rows import History, HistoryError, classify, read_history
from deploy.cli.replay.run import read_file
from deploy.cli.supply import DELIVERY, Offer, catalogue_facts, inventory_facts
from libs.common.clock import new_id
from tests.unit.deploy.rows import HEADER, row


def history(*rows: str, invoices: int | None = None, header: str = HEADER) -> History:
    return read_history([f"{line}\r\n" for line in (header, *rows)], invoices)


def reason(**cells: str) -> str | int:
    row = {"StockCode": "85123A", "Description": "", "Quantity": "1", "UnitPrice": "1.00", "CustomerID": ""} | cells
    found = classify(row)
    return found if isinstance(found, str) else found.unit_minor


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ("2.55", 255),
        ("0.125", 12),
        ("0.135", 14),
        ("0.005", "non_positive_price"),
        ("0.0051", 1),
        ("0.015", 2),
        ("1e1", 1000),
        (".5", 50),
        ("0", "non_positive_price"),
        ("-11062.06", "non_positive_price"),
        ("", "malformed"),
        ("NaN", "malformed"),
        ("Infinity", "malformed"),
        ("1_000", "malformed"),
        ("1,5", "malformed"),
        ("1e99", "malformed"),
    ],
)
def test_a_price_is_decimal_pounds_rounded_half_to_even_pennies(price: str, expected: object) -> None:
    assert reason(UnitPrice=price) == expected


def test_the_reason_of_a_row_is_the_first_that_applies() -> None:
    assert reason(StockCode="", UnitPrice="x", Quantity="0") == "malformed"
    assert reason(StockCode=" ", UnitPrice="0", Quantity="0") == "missing_code"
    assert reason(UnitPrice="0", Quantity="0") == "non_positive_price"
    assert reason(Quantity="-3") == "non_positive_quantity"
    assert reason(Quantity="1.5") == "malformed"
    assert reason(CustomerID="nobody") == "malformed"
    assert reason(StockCode="A\u0007B") == "malformed"
    assert reason(StockCode="BANK CHARGES") == 100


def test_rows_of_one_code_at_one_price_add_up_and_another_price_is_another_sku() -> None:
    read = history(row(quantity="6"), row(quantity="4"), row(price="1.00"), row(code="85123a", quantity="1"))
    (purchase,) = read.purchases
    assert purchase.quantities == {"85123A.255": 10, "85123A.100": 6, "85123a.255": 1}
    assert purchase.total_minor == 11 * 255 + 6 * 100
    assert purchase.shopper_ref == "customer:17850"


def test_a_line_never_grows_beyond_what_a_cart_takes() -> None:
    read = history(row(quantity="999999"), row(quantity="2"), row(quantity="1"), row(quantity="1000001"))
    assert read.purchases[0].quantities == {"85123A.255": 1_000_000}
    assert read.rows_skipped == {"malformed": 2}


def test_the_first_invoices_count_cancellations_and_gather_their_rows_from_the_whole_file() -> None:
    rows = [
        row("C1"),
        row("2", quantity="0"),
        row("3"),
        row("4"),
        row("3", code="POST"),
        row("C1", price="x"),
        row("4", price="x"),
    ]
    read = history(*rows, invoices=3)
    assert (read.invoices_read, [it.number for it in read.purchases]) == (3, ["3"])
    assert read.skipped == {"cancellation": 1, "no_purchasable_line": 1}
    assert read.rows_skipped == {"non_positive_quantity": 1}
    assert read.purchases[0].quantities == {"85123A.255": 6, "POST.255": 6}


def test_a_row_that_does_not_fit_the_header_is_malformed_and_costs_nothing_else() -> None:
    read = history("536365,85123A", row(customer=""), "", f"{row()},extra", row(number=""))
    assert read.rows_skipped == {"malformed": 3}
    assert (read.invoices_read, read.purchases[0].shopper_ref) == (1, "guest:536365")


def test_a_quoted_cell_may_hold_commas_and_line_ends() -> None:
    read = read_history([f"{HEADER}\n", '1,A,"A ""fine"", red\n', 'thing",1,2010-12-01,1.00,,UK\n'])
    assert read.products["A.100"].name == 'A "fine", red thing'


def test_a_product_without_a_description_is_named_by_its_code_until_a_row_names_it() -> None:
    assert history(row(name="")).products["85123A.255"].name == "85123A"
    assert history(row(name=""), row(name="HEART"), row(name="?")).products["85123A.255"].name == "HEART"


def test_missing_columns_are_named() -> None:
    with pytest.raises(HistoryError, match="missing from the first line: Quantity, CustomerID"):
        history(header="InvoiceNo,StockCode,Description,InvoiceDate,UnitPrice")
    with pytest.raises(HistoryError, match="InvoiceNo"):
        read_history([])


@pytest.mark.parametrize(
    "broken",
    [
        row(name='"HEART'),
        row(name='"HEART" red'),
        row(name="HE\0ART"),
        row(name="HE\udcffART"),  # a byte that is no UTF-8, as such a file is opened
        row(name="x" * 200_000),
        row(name="x" * 200_000 + '"'),
        row()[:-20],
        row() + ",,,",
        '"',
        "\0",
        "\ufffe",
        '"' + "\n" * 300,
    ],
)
def test_a_row_that_is_broken_is_one_malformed_row_and_those_after_it_are_read(broken: str) -> None:
    read = history(row(), broken, row("536366", name='"A ""fine"" thing"'), row("536367"))
    assert read.rows_skipped == {"malformed": 1}
    assert [purchase.number for purchase in read.purchases] == ["536365", "536366", "536367"]


def test_a_file_of_another_encoding_loses_the_rows_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    rows = [HEADER, row(), row("536366", name="ÉTAGÈRE"), row("536367")]
    file.write_bytes("\n".join(rows).encode("latin-1"))
    read = read_file(file, None)
    assert (read.rows_skipped, [purchase.number for purchase in read.purchases]) == ({"malformed": 1}, ["536365", "536367"])


@pytest.mark.parametrize("code", ["A/1", "A+B", "Ä-1", "茶葉", "00042", "R&D", "50%", "#7", "wh?t", "a.b..c", "A B"])
def test_a_code_is_any_that_may_be_a_sku(code: str) -> None:
    assert history(row(code=code)).purchases[0].quantities == {f"{code}.255": 6}


def test_stock_is_counted_once_and_delivered_after_that() -> None:
    offer = Offer("A.100", "A", "gifts", 100, wanted=5)
    level = {"on_hand": DELIVERY - 7, "reserved": 2, "sold": 5}
    tenant = new_id()
    assert [it.type for it in inventory_facts(tenant, offer, None)] == ["stock.counted"]
    assert list(inventory_facts(tenant, offer, level)) == []
    (delivery,) = inventory_facts(tenant, Offer("A.100", "A", "gifts", 100, wanted=DELIVERY), level)
    assert (delivery.type, delivery.sequence) == ("stock.adjusted", 2)


def test_a_product_that_the_shop_shows_is_not_published_again() -> None:
    offer = Offer("A.100", "A", "gifts", 100, wanted=5)
    shown = {"unit_minor": 100, "withdrawn": False, "sequence": 2}
    tenant = new_id()
    assert [it.sequence for it in catalogue_facts(tenant, "GBP", offer, None)] == [1, 2]
    assert list(catalogue_facts(tenant, "GBP", offer, shown)) == []
    assert [it.sequence for it in catalogue_facts(tenant, "GBP", offer, shown | {"withdrawn": True})] == [3, 4]


def test_publishing_the_same_fact_again_repeats_its_id_and_key() -> None:
    offer = Offer("A.100", "A", "gifts", 100, wanted=5)
    tenant = new_id()
    first, again = (next(iter(catalogue_facts(tenant, "GBP", offer, None))).record() for _ in range(2))
    assert dict(first.headers)["ce_id"] == dict(again.headers)["ce_id"]
    assert first.key == f"{tenant}:A.100".encode()
