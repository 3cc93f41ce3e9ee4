"""What is seen of the provider's payments without our having asked for a change, and payments that nothing is heard of."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import structlog

from libs.common.decision import Message, Ref, World
from services.payments.domain.payment.attempt import Attempt, attempt_id
from services.payments.domain.payment.observing import observe
from services.payments.domain.payment.payment import Payment
from services.payments.domain.payment.planning import hand_over, is_look_due, look_again, plan
from services.payments.domain.provider.operation import OPEN, Operation, hurry
from services.payments.domain.provider.outcome import Declined, Succeeded
from services.payments.handlers.payments import save_payment
from services.payments.handlers.table import HANDLERS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveIntent:
    """Take note of where the provider's payment stood when somebody read it. Any order, any number of times."""

    payment_id: UUID
    seen: Succeeded | Declined
    by_api: bool = False
    """The process that saw it makes no calls: what is planned upon it is anybody's at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtPayment:
    """Nothing was heard of a payment for too long: find out whose turn it is."""

    payment_id: UUID


class Look(StrEnum):
    """What a look at a payment came to."""

    NOT_DUE = "not_due"
    UNDER_WAY = "under_way"
    """Its operation is there, and is somebody's business."""
    STRANDED = "stranded"
    """Its operation was lost, and is planned again under its key."""
    READ = "read"
    """The provider is to be read."""


def _newest(world: World, message: "Message[ObserveIntent] | Message[LookAtPayment]") -> Iterable[Ref]:
    """The operation that the payment waits for or, where it waits for none, its newest attempt."""
    payment = world.get(Payment, message.data.payment_id)
    if payment is None:
        return
    if payment.operation_id is not None:
        yield Ref(Operation, payment.operation_id)
    elif payment.attempt_count > 0:
        yield Ref(Attempt, attempt_id(payment.id, payment.attempt_count))


@HANDLERS.on(ObserveIntent, lambda m: [Ref(Payment, m.data.payment_id)], more=_newest)
def observe_intent(world: World, message: Message[ObserveIntent]) -> bool:
    """Answers whether it changed anything. A call that may be in flight is its own executor's to conclude upon."""
    payment = world.get(Payment, message.data.payment_id)
    if payment is None:
        log.warning("payment.not_ours", payment_id=str(message.data.payment_id), action="reconciliation reports it")
        return False
    if payment.operation_id is not None:
        operation = world.get(Operation, payment.operation_id)
        hurried = None if operation is None else hurry(operation, world.now)
        if hurried is not None:
            world.save(hurried)
        return hurried is not None
    attempt = world.get(Attempt, attempt_id(payment.id, payment.attempt_count)) if payment.attempt_count else None
    decision = observe(payment, attempt, message.data.seen, world.now)
    if decision is not None:
        save_payment(world, message, hand_over(decision, world.now) if message.data.by_api else decision)
    return decision is not None


@HANDLERS.on(LookAtPayment, lambda m: [Ref(Payment, m.data.payment_id)], more=_newest)
def look_at_payment(world: World, message: Message[LookAtPayment]) -> tuple[Look, str | None]:
    """Answers what it came to, and the provider's id of what is to be read. Nobody else looks before the next is due."""
    payment = world.get(Payment, message.data.payment_id)
    if payment is None or not is_look_due(payment, world.now):
        return Look.NOT_DUE, None
    later = world.save(look_again(payment, world.now))
    if later.operation_id is None:
        return Look.READ, later.intent_id
    operation = world.get(Operation, later.operation_id)
    if operation is None:
        log.warning("payment.stranded", payment_id=str(later.id), action="its lost operation is planned again under its key")
        world.save(plan(later, world.now))
        return Look.STRANDED, None
    if operation.state not in OPEN:
        log.error("payment.astray", payment_id=str(later.id), operation_id=str(operation.id), action="a person must look")
    return Look.UNDER_WAY, None
