"""What a replay says of itself: three totals that must agree, from the file, from our orders, from the provider."""

from dataclasses import dataclass, field
from typing import Any

from deploy.cli.replay.buying import Bought
from deploy.cli.replay.rows import CURRENCY, SKIPPED_INVOICES, SKIPPED_ROWS, History
from deploy.cli.settlement import Settlement
from libs.common.money import format_minor


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run."""

    history: History
    bought: Bought
    settlement: Settlement
    orders: dict[str, list[int]] = field(default_factory=dict)
    """Totals of confirmed orders by checkout id; one entry an order."""
    known_before: frozenset[str] = frozenset()
    """Checkouts that had their order before this run."""

    @property
    def orders_total_minor(self) -> int:
        """What our own orders come to."""
        return sum(sum(totals) for totals in self.orders.values())

    @property
    def new_orders(self) -> int:
        """How many of the bought invoices this run bought."""
        return len(self.bought.confirmed.keys() - self.known_before)

    def discrepancies(self) -> list[str]:
        """Everything that keeps the run from being reconciled, each in one line."""
        found = [f"{count} invoices not bought: {reason}" for reason, count in self.bought.failures.items()]
        bought = self.bought.confirmed
        for checkout_id, purchase in bought.items():
            wanted = [purchase.total_minor]
            if self.orders.get(checkout_id, []) != wanted:
                found.append(f"invoice {purchase.number} is {wanted}, its orders {self.orders.get(checkout_id, [])}")
            if self.settlement.captured.get(checkout_id, []) != wanted:
                captured = self.settlement.captured.get(checkout_id, [])
                found.append(f"invoice {purchase.number} is {wanted}, its captures {captured}")
        found += [f"captured without an order: checkout {it}" for it in self.settlement.captured.keys() - bought.keys()]
        found += [f"ordered, yet not bought: checkout {it}" for it in self.orders.keys() - bought.keys()]
        return found + [f"money still held: checkout {it}" for it in self.settlement.pending]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "invoices_read": self.history.invoices_read,
            "bought": len(self.bought.confirmed),
            "declined": self.bought.declined,
            "skipped": {reason: self.history.skipped[reason] for reason in SKIPPED_INVOICES},
            "rows_skipped": {reason: self.history.rows_skipped[reason] for reason in SKIPPED_ROWS},
            "new_orders": self.new_orders,
            "invoice_total_minor": self.bought.total_minor,
            "captured_total_minor": self.settlement.captured_total_minor,
            "orders_total_minor": self.orders_total_minor,
            "reconciled": not self.discrepancies(),
            "orders_per_second": round(self.new_orders / self.bought.seconds, 1) if self.new_orders else None,
        }

    def as_text(self) -> str:
        """Return the same for a person."""
        told = self.as_json()
        skipped = _counts(told["skipped"])
        rows = _counts(told["rows_skipped"])
        rate = f" at {told['orders_per_second']} orders/s" if told["orders_per_second"] else ""
        totals = (
            ("the file says", told["invoice_total_minor"]),
            ("our orders say", told["orders_total_minor"]),
            ("the provider captured", told["captured_total_minor"]),
        )
        return "\n".join(
            [
                f"{told['invoices_read']} invoices read; skipped: {skipped}; rows left out: {rows}",
                f"{told['bought']} bought, {told['new_orders']} of them now{rate}; {told['declined']} declined",
                *(f"  {who:<22} {format_minor(amount, CURRENCY):>20}" for who, amount in totals),
                "reconciled to the penny" if told["reconciled"] else "NOT reconciled",
            ]
        )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.items() if count) or "none"
