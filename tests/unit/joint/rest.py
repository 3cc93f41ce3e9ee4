"""How a walk comes to rest: all that is under way is delivered, called, read and timed out, and nothing new is begun."""

from datetime import timedelta

from services.checkout.domain.saga import Checkout
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import Operation
from services.payments.domain.provider.outcome import DisputeStatus, IntentStatus, RefundStatus
from services.payments.handlers.refunds import AskForOrder
from tests.unit.joint.walk import Walk

ROUNDS, MOST_MESSAGES = 60, 2_000
PATIENCE_MINUTES = 17


def come_to_rest(walk: Walk) -> None:
    """Raises if it does not. Where a message was lost for good, what it told ends with the hold."""
    walk.house.note("--- from here on nothing is lost")
    walk.house.settings.loses = False
    walk.house.provider.come_late()
    _settle(walk)
    for payment in walk.house.payments.all(Payment):
        intent = walk.house.intent_of(payment)
        if payment.id in walk.house.bereft and intent is not None and intent.status is IntentStatus.AUTHORIZED:
            walk.house.provider.lapse(intent)
            walk.house.note("the hold lapses")
    _settle(walk)


def _settle(walk: Walk) -> None:
    for _ in range(ROUNDS):
        moved = _deliver_all(walk)
        moved |= _call_all(walk)
        moved |= _read_all(walk)
        if moved or walk.house.waiting():
            continue
        walk.house.now += timedelta(minutes=PATIENCE_MINUTES)
        walk.house.wake()
        moved = _ask_for_orders(walk) or any(not each.is_final for each in walk.house.checkout.all(Checkout))
        if not (moved or walk.house.waiting() or walk.house.open_operations()):
            return
    checkouts = [(each.state, each.reason) for each in walk.house.checkout.all(Checkout)]
    payments = [(each.state, each.order_standing) for each in walk.house.payments.all(Payment)]
    open_calls = [(each.kind, each.state, each.unknown_count) for each in walk.house.open_operations()]
    walk.house.fail(f"it never comes to rest: {checkouts} {payments} {open_calls}")


def _deliver_all(walk: Walk) -> bool:
    count = 0
    while waiting := walk.house.waiting():
        walk.house.deliver(walk.chance.choice(waiting))
        count += 1
        if count > MOST_MESSAGES:
            walk.house.fail("messages without end")
    return count > 0


def _call_all(walk: Walk) -> bool:
    opened = walk.house.open_operations()
    for operation in opened:
        walk.house.record(operation, walk.house.ask(operation))
        walk.house.claim(operation)
        walk.house.check_rows()
    return bool(opened)


def _read_all(walk: Walk) -> bool:
    provider, said = walk.house.provider, len(walk.house.payments.outbox)
    moved = False
    for payment in walk.house.payments.all(Payment):
        intent = walk.house.intent_of(payment)
        if intent is not None:
            moved |= walk.see_intent(payment, provider.seen(intent))
    for refund in list(provider.refunds.values()):
        is_pending = refund.status is RefundStatus.PENDING
        walk.see_refund(provider.move_refund(refund, RefundStatus.SUCCEEDED) if is_pending else refund)
    for dispute in list(provider.disputes.values()):
        if dispute.status is DisputeStatus.NEEDS_RESPONSE:
            provider.decide(dispute, is_won=walk.chance.random() < 0.5)
        walk.see_dispute(provider.disputes[dispute.provider_id])
    return moved or len(walk.house.payments.outbox) > said


def _ask_for_orders(walk: Walk) -> bool:
    """Whether it brought anything about. What the buyer's bank has taken back cannot be given back, and is asked for in vain."""
    house, operations = walk.house, len(walk.house.payments.all(Operation))
    for payment in house.payments.all(Payment):
        intent = house.intent_of(payment)
        if intent is not None and not intent.is_contested:
            house.try_to(house.payments, AskForOrder(payment_id=payment.id))
    _deliver_all(walk)
    return len(house.payments.all(Operation)) > operations
