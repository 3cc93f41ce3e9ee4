"""Cancellation invoices, matched with what was bought: same customer, same stock code, the newest first.

Pure. A row gives back so many of a code, at the price that was paid for them. The price it says itself does not matter,
for the retailer wrote some of them as discounts and corrections.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from deploy.cli.replay.rows import History, Purchase, integer

Reading: TypeAlias = Literal[
    "refunded", "partly_refunded", "malformed", "missing_code", "non_negative_quantity", "without_customer", "without_original"
]
READINGS: Final[tuple[Reading, ...]] = (
    "refunded",
    "partly_refunded",
    "malformed",
    "missing_code",
    "non_negative_quantity",
    "without_customer",
    "without_original",
)
"""What becomes of a row of a cancellation; of the reasons against it the first that applies."""


@dataclass(slots=True)
class Refund:
    """What one cancellation gives back of one purchase."""

    cancellation: str
    purchase: Purchase
    quantities: dict[str, int] = field(default_factory=dict)
    amount_minor: int = 0

    @property
    def reason(self) -> str:
        """What the refund says of itself; by it a later run finds that it was made."""
        return f"invoice {self.cancellation}"


@dataclass(slots=True)
class Refunds:
    """All refunds of a file, in its order, and what became of each row of its cancellations."""

    refunds: list[Refund] = field(default_factory=list)
    rows: Counter[Reading] = field(default_factory=Counter)

    @property
    def total_minor(self) -> int:
        """What they come to."""
        return sum(refund.amount_minor for refund in self.refunds)


@dataclass(slots=True)
class _Lot:
    """What is left of one line of a purchase."""

    purchase: Purchase
    sku: str
    unit_minor: int
    quantity: int


def match(history: History, bought: Iterable[Purchase]) -> Refunds:
    """Match every cancellation with the bought purchases that stand before it in the file."""
    numbers, found = {purchase.number for purchase in bought}, Refunds()
    lots: dict[tuple[int, str], list[_Lot]] = defaultdict(list)
    for invoice in history.invoices:
        if isinstance(invoice, Purchase):
            if invoice.number in numbers and invoice.customer is not None:
                _shelve(lots, history, invoice, invoice.customer)
            continue
        refunds: dict[str, Refund] = {}
        for cells in invoice.rows:
            found.rows[_give_back(lots, cells, invoice.number, refunds)] += 1
        found.refunds.extend(refunds.values())
    return found


def _shelve(lots: dict[tuple[int, str], list[_Lot]], history: History, purchase: Purchase, customer: int) -> None:
    for sku, quantity in purchase.quantities.items():
        code = sku.rpartition(".")[0]
        lots[customer, code].append(_Lot(purchase, sku, history.products[sku].unit_minor, quantity))


def _give_back(
    lots: Mapping[tuple[int, str], list[_Lot]], cells: Mapping[str, str] | None, number: str, refunds: dict[str, Refund]
) -> Reading:
    row = _read(cells)
    if isinstance(row, str):
        return row
    customer, code, left = row
    wanted = left
    for lot in reversed(lots.get((customer, code), ())):
        taken = min(left, lot.quantity)
        if taken:
            lot.quantity -= taken
            left -= taken
            refund = refunds.setdefault(lot.purchase.number, Refund(number, lot.purchase))
            refund.quantities[lot.sku] = refund.quantities.get(lot.sku, 0) + taken
            refund.amount_minor += taken * lot.unit_minor
    if left == wanted:
        return "without_original"
    return "partly_refunded" if left else "refunded"


def _read(cells: Mapping[str, str] | None) -> tuple[int, str, int] | Reading:
    """The customer, the code and how many of it come back; or why the row gives nothing back."""
    if cells is None:
        return "malformed"
    try:
        quantity = integer(cells["Quantity"])
        customer = integer(cells["CustomerID"]) if cells["CustomerID"].strip() else None
    except ValueError:
        return "malformed"
    code = cells["StockCode"].strip()
    if not code:
        return "missing_code"
    if quantity >= 0:
        return "non_negative_quantity"
    if customer is None:
        return "without_customer"
    return customer, code, -quantity
