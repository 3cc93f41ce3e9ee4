"""What a replay says of itself: gross, refunded and net, which four accounts of the money must agree on to the penny."""

from dataclasses import dataclass, field
from typing import Any

from deploy.cli.replay.buying import Bought
from deploy.cli.replay.cancellations import READINGS, Refunds
from deploy.cli.replay.refunding import Refunded
from deploy.cli.replay.rows import CURRENCY, SKIPPED_INVOICES, SKIPPED_ROWS, History
from deploy.cli.settlement import Settlement
from libs.common.money import format_minor


@dataclass(slots=True)
class Account:
    """The money of a run as one side tells it: captured and given back, in minor units by checkout id."""

    gross: dict[str, int] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)

    @property
    def gross_minor(self) -> int:
        """All that was taken."""
        return sum(self.gross.values())

    @property
    def refunded_minor(self) -> int:
        """All that went back."""
        return sum(self.refunded.values())

    def as_json(self) -> dict[str, int]:
        """The three sums."""
        gross, refunded = self.gross_minor, self.refunded_minor
        return {"gross_minor": gross, "refunded_minor": refunded, "net_minor": gross - refunded}


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run."""

    history: History
    bought: Bought
    settlement: Settlement
    refunds: Refunds
    refunded: Refunded
    orders: dict[str, list[int]]
    """Totals of confirmed orders by checkout id; one entry an order."""
    accounts: dict[str, Account]
    """By who tells of it: `file`, `orders`, `provider`, `ledger`."""
    known_before: frozenset[str] = frozenset()
    """Checkouts that had their order before this run."""

    @property
    def new_orders(self) -> int:
        """How many of the bought invoices this run bought."""
        return len(self.bought.confirmed.keys() - self.known_before)

    def discrepancies(self) -> list[str]:
        """Everything that keeps the run from being reconciled, each in one line."""
        found = [f"{count} invoices not bought: {reason}" for reason, count in self.bought.failures.items()]
        found += [f"{count} refunds not made: {reason}" for reason, count in self.refunded.failures.items()]
        bought, captured = self.bought.confirmed, self.settlement.captured
        for checkout_id, purchase in bought.items():
            for who, amounts in (("orders", self.orders), ("captures", captured)):
                if amounts.get(checkout_id, []) != [purchase.total_minor]:
                    found.append(f"invoice {purchase.number} is {purchase.total_minor}, its {who} {amounts.get(checkout_id, [])}")
        found += [f"captured without an order: checkout {it}" for it in captured.keys() - bought.keys()]
        found += [f"ordered, yet not bought: checkout {it}" for it in self.orders.keys() - bought.keys()]
        found += [f"money still held: checkout {it}" for it in self.settlement.pending]
        return found + self._disagreements()

    def _disagreements(self) -> list[str]:
        """Where somebody's account of a checkout is not the file's."""
        file = self.accounts["file"]
        return [
            f"checkout {checkout_id}: {what} is {ours.get(checkout_id, 0)} by the file and {amounts.get(checkout_id, 0)} by {who}"
            for who, account in self.accounts.items()
            for what, ours, amounts in (
                ("what was taken", file.gross, account.gross),
                ("what went back", file.refunded, account.refunded),
            )
            for checkout_id in sorted(ours.keys() | amounts.keys())
            if ours.get(checkout_id, 0) != amounts.get(checkout_id, 0)
        ]

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
            "orders_total_minor": sum(sum(totals) for totals in self.orders.values()),
            "cancellation_rows": {reading: self.refunds.rows[reading] for reading in READINGS},
            "refunds": len(self.refunds.refunds),
            "new_refunds": self.refunded.new,
            "accounts": {who: account.as_json() for who, account in self.accounts.items()},
            "reconciled": not self.discrepancies(),
            "orders_per_second": round(self.new_orders / self.bought.seconds, 1) if self.new_orders else None,
        }

    def as_text(self) -> str:
        """Return the same for a person."""
        told = self.as_json()
        skipped, rows, cancellations = (_counts(told[name]) for name in ("skipped", "rows_skipped", "cancellation_rows"))
        rate = f" at {told['orders_per_second']} orders/s" if told["orders_per_second"] else ""
        return "\n".join(
            [
                f"{told['invoices_read']} invoices read; skipped: {skipped}; rows left out: {rows}",
                f"{told['bought']} bought, {told['new_orders']} of them now{rate}; {told['declined']} declined",
                f"{told['refunds']} refunds, {told['new_refunds']} of them now; rows of cancellations: {cancellations}",
                f"  {'':<12} {'taken':>20} {'given back':>20} {'net':>20}",
                *(f"  {who:<12} {_sums(account)}" for who, account in told["accounts"].items()),
                "reconciled to the penny" if told["reconciled"] else "NOT reconciled",
            ]
        )


def _sums(account: dict[str, int]) -> str:
    return " ".join(f"{format_minor(amount, CURRENCY):>20}" for amount in account.values())


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.items() if count) or "none"
