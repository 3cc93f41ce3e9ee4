"""One random walk through a house: what buyers, staff, the warehouse, the provider and the network do to it, step by step.

The same seed walks the same way. Its story is told in words.
"""

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID, uuid5

from libs.common.decision import Viewer
from services.checkout.domain.order import Order
from services.checkout.domain.saga import Checkout
from services.checkout.handlers import StartCheckout
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import Operation
from services.payments.domain.provider.outcome import (
    Declined,
    Outcome,
    SeenDispute,
    SeenRefund,
    Succeeded,
)
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.observations import ObserveIntent
from services.payments.handlers.outcomes import Followed
from services.payments.handlers.refunds import ObserveRefund
from tests.shared.events import cart_frozen_for, frozen_line
from tests.unit.joint.house import House, Settings
from tests.unit.joint.provider import Intent, Provider
from tests.unit.memory import NOW

STAFF = Viewer(subject_id=UUID(int=77), sees_all=True)
BUYER = Viewer(subject_id=UUID(int=1), sees_all=False)
WAYS = ("answers", "answers", "answers", "answers", "declines", "challenges", "uncapturable")
UNIT_MINOR = 333
ORPHAN_AGE = timedelta(minutes=15)


@dataclass
class Answer:
    """What one try came to, should it arrive once more and late."""

    operation: Operation
    outcome: Outcome
    followed: Followed | None = None


@dataclass
class Walk:
    """A house, and what the walk remembers of what it did there."""

    seed: int
    settings: Settings
    house: House = field(init=False)
    chance: random.Random = field(init=False)
    checkouts: list[UUID] = field(default_factory=list)
    risen: set[UUID] = field(default_factory=set)
    """Checkouts whose prices rose, and whose buyers did not say that they would pay them."""
    answers: list[Answer] = field(default_factory=list)
    seen: list[tuple[UUID, Succeeded | Declined]] = field(default_factory=list)
    sent: dict[UUID, int] = field(default_factory=dict)
    """Goods of each order that have left the house."""
    back: dict[UUID, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        provider = Provider(self.chance, self.chance.choice(WAYS), self.settings.settles_in, NOW)
        self.house = House(self.settings, self.chance, provider)
        self.house.open_up()
        for _ in range(self.chance.choice((1, 1, 2))):
            self.begin()

    def begin(self) -> None:
        """Somebody buys a cart."""
        method = self.chance.choice(("pm_card_visa", "pm_card_visa", "pm_card_visa", ""))
        rises, accepts = self.chance.random() < 0.15, self.chance.random() < 0.5
        number = len(self.checkouts)
        command = StartCheckout(
            checkout_id=uuid5(UUID(int=self.seed + 1), str(number)),
            cart_id=UUID(int=1_000 + number),
            subject_id=BUYER.subject_id,
            method=method,
            confirmation="server" if method else "client",
            email=None,
            body_digest="b",
            ttl_seconds=900,
            accept_price_changes=accepts,
        )
        checkout: Checkout = self.house.checkout.execute(command, now=self.house.now)
        self.checkouts.append(checkout.id)
        if rises and not accepts:
            self.risen.add(checkout.id)
        was_minor = UNIT_MINOR - 33 if rises else None
        line = frozen_line("tea", self.chance.randint(1, 3), UNIT_MINOR, price_was_minor=was_minor)
        until = self.house.now + timedelta(minutes=self.chance.choice((1, 30))) if self.chance.random() < 0.2 else None
        if until is not None:
            self.house.valid_until[checkout.id] = until
        frozen = replace(cart_frozen_for(checkout, line), prices_valid_until=until)
        self.house.publish(frozen, str(checkout.cart_id))
        self.house.send_out()

    def anyone(self) -> tuple[Checkout, Payment | None, Intent | None, Order | None]:
        """A checkout, and what there is of it yet."""
        checkout = self.house.checkout.get(Checkout, self.chance.choice(self.checkouts))
        payment = self.house.payment_of(checkout)
        return checkout, payment, self.house.intent_of(payment), self.house.order_of(checkout.id)

    def id(self) -> UUID:
        return UUID(int=self.chance.getrandbits(128), version=4)

    def see_intent(self, payment: Payment, seen: Succeeded | Declined) -> bool:
        """Somebody has read it, and tells."""
        changed = bool(self.house.payments.execute(ObserveIntent(payment_id=payment.id, seen=seen), now=self.house.now))
        self.house.note(f"the provider is read: {seen.status if isinstance(seen, Succeeded) else seen}")
        self.house.send_out()
        return changed

    def see_refund(self, seen: SeenRefund) -> None:
        payment = self.payment_with(seen.intent_id)
        if payment is not None:
            self.house.try_to(self.house.payments, ObserveRefund(payment_id=payment.id, seen=seen))

    def see_dispute(self, seen: SeenDispute) -> None:
        payment = self.payment_with(seen.intent_id)
        if payment is not None:
            self.house.try_to(self.house.payments, ObserveDispute(payment_id=payment.id, seen=seen))

    def payment_with(self, intent_id: str | None) -> Payment | None:
        return next((each for each in self.house.payments.all(Payment) if each.intent_id == intent_id), None)

    def is_orphaned(self, payment: Payment) -> bool:
        """Whether the job would ask for its order: it was captured long ago, and of no order was heard."""
        since = max(payment.operation_at or payment.created_at, payment.order_asked_at or payment.created_at)
        return payment.captured_minor > 0 and self.house.now - since > ORPHAN_AGE
