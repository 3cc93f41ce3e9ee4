"""What the provider tells of disputes."""

from dataclasses import dataclass
from uuid import UUID

from libs.common.decision import Message, Ref, World
from libs.common.errors import NotFoundError
from services.payments.domain.money.dispute import Dispute, dispute_id, observe
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.outcome import SeenDispute
from services.payments.handlers.ledger import post
from services.payments.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveDispute:
    """Take note of where the provider says that a dispute stands, and of the money it has moved."""

    payment_id: UUID
    seen: SeenDispute


@HANDLERS.on(
    ObserveDispute,
    lambda m: [
        Ref(Payment, m.data.payment_id, shared=True),
        Ref(Dispute, dispute_id(m.data.payment_id, m.data.seen.provider_id)),
    ],
)
def observe_dispute(world: World, message: Message[ObserveDispute]) -> bool:
    """Answers whether anything of it was new."""
    seen = message.data.seen
    payment = world.get(Payment, message.data.payment_id)
    if payment is None:
        raise NotFoundError("payment-not-found", f"the provider tells of a dispute of an unknown payment: {seen.provider_id}")
    known = world.get(Dispute, dispute_id(payment.id, seen.provider_id))
    decision = observe(payment, known, seen)
    if decision is None:
        return False
    world.save(decision.dispute, *decision.events)
    post(world, decision.entries)
    return True
