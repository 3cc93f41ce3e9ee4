"""A shop as the invariant checker sees it, whose every fact is as it must be until a test says otherwise."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from deploy.cli.invariants.facts import Account, Books, Charge, Level
from deploy.cli.invariants.store import COMMON, Store
from libs.common.contracts import Event
from libs.common.contracts.checkout import (
    CheckoutFailed,
    CheckoutRequested,
    OrderCanceled,
    OrderLine,
    OrderQuantity,
    OrderRefunded,
    RefundRequested,
)
from libs.common.contracts.payments import PaymentAuthorized, PaymentCaptured, RefundSucceeded
from tests.shared.events import cart_frozen, frozen_line, order_confirmed, payment_requested

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=5)
NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
UNIT = 250
SKU = "MUG"
COUNTED = 100
DELIVERED = 20

FULL = Level(on_hand=COUNTED + DELIVERED, reserved=0, sold=0, backordered=0, is_tracked=True)


def id_of(name: str) -> UUID:
    return uuid5(NAMESPACE, name)


@dataclass
class Shop:
    """A shop whose every fact is as it must be, until a test says otherwise."""

    events: list[tuple[Event, datetime, int]] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    level: Level = FULL
    captured_minor: int = 0
    refunded_minor: int = 0
    stores: list[Store] = field(default_factory=list)
    """To be closed."""

    def say(self, event: Event, at: datetime = LONG_AGO, sequence: int = 1) -> None:
        self.events.append((event, at, sequence))

    def mute(self, kind: type[Event], name: str) -> None:
        """As if an event of this purchase had been lost."""
        kept = [
            each for each in self.events if not (isinstance(each[0], kind) and getattr(each[0], "checkout_id", 0) == id_of(name))
        ]
        assert len(kept) == len(self.events) - 1
        self.events = kept

    def check_out(self, name: str, quantity: int, at: datetime = LONG_AGO, capture: str = "on-confirmation") -> None:
        line = frozen_line(SKU, quantity, UNIT)
        self.say(CheckoutRequested(checkout_id=id_of(name), cart_id=id_of("cart"), subject_id=id_of("subject")), at)
        self.say(
            cart_frozen(line, version=1, cart_id=id_of("cart"), checkout_id=id_of(name), subject_id=id_of("subject")),
            at,
        )
        self.say(
            payment_requested(
                "card",
                checkout_id=id_of(name),
                payment_id=id_of(f"{name}/payment"),
                order_id=id_of(f"{name}/order"),
                subject_id=id_of("subject"),
                amount_minor=quantity * UNIT,
                capture=capture,
                quote_hash="",
            ),
            at,
        )
        self.level = replace(self.level, on_hand=self.level.on_hand - quantity, reserved=self.level.reserved + quantity)

    def fail(self, name: str, quantity: int) -> None:
        self.say(CheckoutFailed(checkout_id=id_of(name), cart_id=id_of("cart"), reason="payment-declined"))
        self.level = replace(self.level, on_hand=self.level.on_hand + quantity, reserved=self.level.reserved - quantity)

    def confirm(self, name: str, number: int, quantity: int, at: datetime = LONG_AGO) -> None:
        total = quantity * UNIT
        payment = {"payment_id": id_of(f"{name}/payment"), "checkout_id": id_of(name)}
        self.say(PaymentAuthorized(amount_minor=total, currency="GBP", expires_at=None, **payment), at)
        line = OrderLine(line_id="1", sku=SKU, name=SKU, quantity=quantity, unit_minor=UNIT, total_minor=total)
        self.say(
            order_confirmed(
                total,
                order_id=id_of(f"{name}/order"),
                number=number,
                cart_id=id_of("cart"),
                subject_id=id_of("subject"),
                lines=(line,),
                placed_at=at,
                **payment,
            ),
            at,
        )
        self.level = replace(self.level, reserved=self.level.reserved - quantity, sold=self.level.sold + quantity)

    def capture(self, name: str, quantity: int) -> None:
        total = quantity * UNIT
        payment = {"payment_id": id_of(f"{name}/payment"), "checkout_id": id_of(name), "order_id": id_of(f"{name}/order")}
        self.say(PaymentCaptured(amount_minor=total, captured_minor=total, **payment))
        self.charges.append(self.charge(name, total))
        self.captured_minor += total

    def charge(self, name: str, captured_minor: int, status: str = "succeeded", id_: str = "") -> Charge:
        return Charge(
            id=id_ or f"pi_{name}",
            checkout_id=id_of(name),
            payment_id=id_of(f"{name}/payment"),
            status=status,
            captured_minor=captured_minor,
            refunded_minor=0,
            currency="GBP",
            created_at=LONG_AGO,
        )

    def buy(self, name: str, number: int, quantity: int = 2) -> None:
        self.check_out(name, quantity)
        self.confirm(name, number, quantity)
        self.capture(name, quantity)

    def refund(self, name: str, quantity: int, *, restock: bool) -> None:
        amount = quantity * UNIT
        about = {
            "refund_id": id_of(f"{name}/refund"),
            "order_id": id_of(f"{name}/order"),
            "amount_minor": amount,
            "currency": "GBP",
        }
        payment = {"payment_id": id_of(f"{name}/payment"), "checkout_id": id_of(name)}
        self.say(RefundRequested(reason="", **about, **payment))  # type: ignore[arg-type]
        self.say(RefundSucceeded(refunded_minor=amount, **about, **payment))  # type: ignore[arg-type]
        line = OrderQuantity(line_id="1", quantity=quantity)
        self.say(OrderRefunded(refunded_minor=amount, lines=(line,), restock=restock, **about))  # type: ignore[arg-type]
        self.charges = [
            replace(each, refunded_minor=amount) if each.checkout_id == id_of(name) else each for each in self.charges
        ]
        self.refunded_minor += amount
        if restock:
            self.put_back(quantity)

    def put_back(self, quantity: int) -> None:
        self.level = replace(self.level, on_hand=self.level.on_hand + quantity, sold=self.level.sold - quantity)

    def cancel(self, name: str, quantity: int) -> None:
        payment: dict[str, Any] = {"payment_id": id_of(f"{name}/payment"), "checkout_id": id_of(name)}
        self.say(OrderCanceled(order_id=id_of(f"{name}/order"), cart_id=id_of("cart"), reason="canceled", **payment))
        self.charges = [each for each in self.charges if each.checkout_id != id_of(name)]
        self.put_back(quantity)

    def books(self, page: int = 3) -> Books:
        """As the checker has them, who judges so many purchases at once."""
        store, tenant = Store(), id_of("shop")
        self.stores.append(store)
        for event, at, sequence in self.events:
            store.take(event, tenant, at, sequence)
        for charge in self.charges:
            store.list_charge(COMMON, tenant, charge, None)
            store.list_refund(f"re_{charge.id}", charge.id, charge.refunded_minor, "succeeded")
        sides = [("provider_balance", self.captured_minor, self.refunded_minor), ("sales", 0, self.captured_minor)]
        accounts = [*sides, ("refunds", self.refunded_minor, 0)]
        return Books(
            tenant="shop",
            at=NOW,
            noted=store.of(tenant, page=page),
            provider_net_minor={"GBP": self.captured_minor - self.refunded_minor},
            stock={SKU: self.level},
            accounts=[Account(code=code, currency="GBP", debited_minor=d, credited_minor=c) for code, d, c in accounts],
        )
