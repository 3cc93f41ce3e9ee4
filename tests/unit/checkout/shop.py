"""A tenant's shop in memory, and what its carts and payments say of a checkout."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from libs.common.contracts.cart import CartFreezeRefused, CartFrozen
from libs.common.contracts.payments import (
    PaymentAuthorized,
    PaymentDeclined,
    PaymentExpired,
    PaymentVoided,
)
from libs.common.decision import Viewer
from services.checkout.domain.saga import TRANSITIONS, Checkout, CheckoutState
from services.checkout.handlers import HANDLERS, CancelCheckout, StartCheckout
from services.checkout.handlers.checkouts import TIMER, WakeCheckout
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, stock_counted, tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

S = CheckoutState
PRICES = {"tea": 250, "gin": 1_999}
SUBJECT = UUID(int=1)
CART = UUID(int=100)


def shop(**stock: int) -> Memory:
    """A tenant with this much of each product."""
    memory = Memory(HANDLERS)
    memory.execute(tenant_updated(TENANT))
    for sku, quantity in stock.items():
        memory.execute(stock_counted(sku, quantity), sequence=1)
    return memory


def start(
    memory: Memory, cart_id: UUID = CART, subject_id: UUID = SUBJECT, body: str = "body", *, now: datetime = NOW
) -> Checkout:
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=cart_id,
        subject_id=subject_id,
        method="pm_card_visa",
        email=None,
        body_digest=body,
        ttl_seconds=900,
    )
    checkout: Checkout = memory.execute(command, now=now)
    return checkout


def wake(memory: Memory, checkout: Checkout) -> str:
    """Its timer fires when it is due."""
    outcome: str = memory.execute(WakeCheckout(checkout_id=checkout.id), now=memory.timers[TIMER, checkout.id])
    return outcome


def cancel(memory: Memory, checkout: Checkout) -> Checkout:
    caller = Viewer(subject_id=checkout.subject_id, sees_all=False)
    canceled: Checkout = memory.execute(CancelCheckout(checkout_id=checkout.id, caller=caller))
    return canceled


def frozen(checkout: Checkout, lines: list[tuple[str, int]], discount: int = 0) -> CartFrozen:
    frozen_lines = [frozen_line(sku, count, PRICES[sku]) for sku, count in lines]
    return cart_frozen_for(checkout, *frozen_lines, discount_minor=discount)


def authorized(checkout: Checkout, *, off_by: int = 0, currency: str = "GBP") -> PaymentAuthorized:
    return payment_authorized(checkout, amount_minor=(checkout.total_minor or 0) + off_by, currency=currency)


def declined(checkout: Checkout, code: str = "card_declined") -> PaymentDeclined:
    return PaymentDeclined(payment_id=checkout.payment_id, checkout_id=checkout.id, code=code)


def voided(checkout: Checkout) -> PaymentVoided:
    return PaymentVoided(payment_id=checkout.payment_id, checkout_id=checkout.id)


def lapsed(checkout: Checkout) -> PaymentExpired:
    return PaymentExpired(payment_id=checkout.payment_id, checkout_id=checkout.id)


def refused(checkout: Checkout) -> CartFreezeRefused:
    return CartFreezeRefused(cart_id=checkout.cart_id, checkout_id=checkout.id, reason="cart-empty")


def after(memory: Memory, checkout: Checkout, *events: Any) -> Checkout:
    """The checkout once these have come."""
    for event in events:
        memory.execute(event)
    return memory.get(Checkout, checkout.id)


def paying(memory: Memory, *lines: tuple[str, int]) -> Checkout:
    checkout = start(memory, cart_id=uuid4())
    return after(memory, checkout, frozen(checkout, list(lines) or [("tea", 2)]))


def reachable(state: CheckoutState) -> set[CheckoutState]:
    reached = {state}
    for _ in S:
        reached |= {to for known in reached for to in TRANSITIONS[known]}
    return reached
