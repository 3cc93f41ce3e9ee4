"""An order history in CSV, read into what can be bought. No I/O: rows come in, purchases and counts come out.

The rules are those of the contracts, "Replay and demo" and its small print.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from deploy.cli.replay.csv_records import records
from libs.common.contracts.external import CONTROLS, is_sku
from libs.common.json_text import is_keepable
from libs.common.money import parse_minor

CURRENCY: Final = "GBP"
COLUMNS: Final = ("InvoiceNo", "StockCode", "Description", "Quantity", "UnitPrice", "CustomerID")
MAX_QUANTITY: Final = 1_000_000
_MAX_MINOR: Final = 9_000_000_000_000_000
_MAX_NAME: Final = 200

_CONTROLS: Final = re.compile(f"[{CONTROLS}]+")
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER: Final = re.compile(r"([+-]?\d{1,18})(\.0*)?", re.ASCII)

SkippedRow: TypeAlias = Literal["malformed", "missing_code", "non_positive_price", "non_positive_quantity"]
SKIPPED_ROWS: Final[tuple[SkippedRow, ...]] = (
    "malformed",
    "missing_code",
    "non_positive_price",
    "non_positive_quantity",
)
SkippedInvoice: TypeAlias = Literal["cancellation", "no_purchasable_line"]
SKIPPED_INVOICES: Final[tuple[SkippedInvoice, ...]] = ("cancellation", "no_purchasable_line")


class HistoryError(Exception):
    """The file is no order history at all; the message is one line that says what to change."""


@dataclass(frozen=True, slots=True)
class Row:
    """One purchasable row. `name` may be empty: the retailer did not always write one."""

    sku: str
    code: str
    name: str
    unit_minor: int
    quantity: int
    customer: int | None


@dataclass(slots=True)
class Purchase:
    """One invoice as it will be bought: by whom, and how many of which SKU."""

    number: str
    customer: int | None = None
    quantities: dict[str, int] = field(default_factory=dict)
    total_minor: int = 0

    @property
    def shopper_ref(self) -> str:
        """Whom the invoice belongs to: a customer for ever, or a guest of this invoice alone."""
        return f"guest:{self.number}" if self.customer is None else f"customer:{self.customer}"


@dataclass(slots=True)
class Cancellation:
    """One cancellation invoice, its rows as they stand in the file; None where cells do not fit the header."""

    number: str
    rows: list[Mapping[str, str] | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Product:
    """One code at one price."""

    sku: str
    name: str
    unit_minor: int


@dataclass(slots=True)
class History:
    """The first invoices of a file: what to buy, which products that takes, and what was left out and why."""

    invoices: list[Purchase | Cancellation] = field(default_factory=list)
    """All of them, in the order of their first rows."""
    purchases: list[Purchase] = field(default_factory=list)
    """Those with something to buy."""
    products: dict[str, Product] = field(default_factory=dict)
    skipped: Counter[SkippedInvoice] = field(default_factory=Counter)
    rows_skipped: Counter[SkippedRow] = field(default_factory=Counter)

    @property
    def invoices_read(self) -> int:
        """How many there are, cancellations included."""
        return len(self.invoices)

    def wanted(self) -> Counter[str]:
        """How many of each SKU all purchases take together."""
        wanted: Counter[str] = Counter()
        for purchase in self.purchases:
            wanted.update(purchase.quantities)
        return wanted


def read_history(lines: Iterable[str], invoices: int | None = None) -> History:
    """Read the first `invoices` invoices of a CSV, all of it without a number.

    Rows of one invoice need not stand together, and one that cannot be read costs no other. Raises HistoryError when it is no
    CSV of this shape.
    """
    history = History()
    found: dict[str, Purchase | Cancellation] = {}
    for number, cells in _cells(lines):
        if number and number not in found:
            if len(found) == invoices:
                continue
            found[number] = Cancellation(number) if number.startswith("C") else Purchase(number)
        # A row that names no invoice belongs to none, and is malformed.
        invoice = found[number] if number else Purchase(number)
        if isinstance(invoice, Purchase):
            _take(history, invoice, cells)
        else:
            invoice.rows.append(cells)
    history.invoices = list(found.values())
    history.purchases = [it for it in history.invoices if isinstance(it, Purchase) and it.quantities]
    history.skipped["cancellation"] = sum(isinstance(it, Cancellation) for it in history.invoices)
    history.skipped["no_purchasable_line"] = len(found) - history.skipped["cancellation"] - len(history.purchases)
    return history


def classify(cells: Mapping[str, str]) -> Row | SkippedRow:
    """Return a row that can be bought, or the first reason why this one cannot."""
    code = cells["StockCode"].strip()
    try:
        unit_minor = _minor(cells["UnitPrice"])
        quantity = integer(cells["Quantity"])
        customer = integer(cells["CustomerID"]) if cells["CustomerID"].strip() else None
    except ValueError:
        return "malformed"
    sku = f"{code}.{max(unit_minor, 0)}"
    if code and not is_sku(sku):
        return "malformed"
    if not code:
        return "missing_code"
    if unit_minor <= 0:
        return "non_positive_price"
    if quantity <= 0:
        return "non_positive_quantity"
    # A name is one line: whatever the retailer broke it with is a space.
    name = _CONTROLS.sub(" ", cells["Description"]).strip()[:_MAX_NAME]
    return Row(sku, code, name, unit_minor, quantity, customer)


def _take(history: History, purchase: Purchase, cells: Mapping[str, str] | None) -> None:
    row = "malformed" if cells is None else classify(cells)
    # No line may hold more than the limit; the row that would go beyond it is one that cannot be ordered.
    if isinstance(row, Row) and purchase.quantities.get(row.sku, 0) + row.quantity > MAX_QUANTITY:
        row = "malformed"
    if not isinstance(row, Row):
        history.rows_skipped[row] += 1
        return
    purchase.quantities[row.sku] = purchase.quantities.get(row.sku, 0) + row.quantity
    purchase.total_minor += row.unit_minor * row.quantity
    purchase.customer = row.customer if purchase.customer is None else purchase.customer
    known = history.products.get(row.sku)
    if known is None or (row.name and known.name == row.code):
        history.products[row.sku] = Product(row.sku, row.name or row.code, row.unit_minor)


def _cells(lines: Iterable[str]) -> Iterator[tuple[str, Mapping[str, str] | None]]:
    """Yield each row's invoice number and cells; None in the place of cells that do not fit the header."""
    rows = records(lines)
    _, first = next(rows, ("", None))
    header = [name.strip() for name in first or ()]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise HistoryError(f"these columns are missing from the first line: {', '.join(missing)}")
    at = header.index("InvoiceNo")
    for text, cells in rows:
        told = text.split(",") if cells is None else cells
        number = told[at].strip() if at < len(told) and is_keepable(told[at]) else ""
        fits = cells is not None and len(cells) == len(header) and number
        yield number, dict(zip(header, told, strict=True)) if fits else None


def _minor(text: str) -> int:
    """Read decimal pounds as pennies, half to even."""
    if not _DECIMAL.fullmatch(text.strip()):
        raise ValueError(text)
    amount_minor = parse_minor(text.strip(), CURRENCY)
    if abs(amount_minor) > _MAX_MINOR:
        raise ValueError(text)
    return amount_minor


def integer(text: str) -> int:
    """Read an integer, also as a spreadsheet writes it (`17850.0`). Raises ValueError."""
    whole = _INTEGER.fullmatch(text.strip())
    if whole is None:
        raise ValueError(text)
    return int(whole[1])
