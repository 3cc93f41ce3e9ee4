"""What may happen in a walk, one step each: on the way between the services, at the provider, and by people."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from libs.common.contracts.fulfilment import FulfilmentLine, ReturnReceived, ShipmentDelivered, ShipmentDispatched
from services.checkout.domain.refund import RefundWish
from services.checkout.handlers import CancelCheckout
from services.checkout.handlers.checkouts import WakeCheckout
from services.checkout.handlers.orders import CancelOrder
from services.checkout.handlers.refunds import RequestRefund
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.operation import Operation
from services.payments.domain.provider.outcome import (
    DisputeStatus,
    IntentStatus,
    RefundStatus,
    SeenRefund,
    Throttled,
    Unknown,
)
from services.payments.handlers.payments import CapturePayment, VoidPayment
from services.payments.handlers.refunds import AskForOrder
from services.payments.handlers.refunds import RequestRefund as RequestByStaff
from tests.unit.joint.provider import OPEN_TO_PAYER
from tests.unit.joint.walk import BUYER, STAFF, Answer, Walk

MINUTES = (1, 2, 16, 16, 60, 25 * 60)


def take(walk: Walk, quiet: int, count: int) -> None:
    """So many steps in which nothing goes wrong, as most purchases begin; then so many of any kind."""
    steps = [step for step, weight in WEIGHTS.items() for _ in range(weight)]
    steps += BY_HAND if walk.settings.by_hand else ()
    steps += (lapse,) if walk.settings.lapses else ()
    for number in range(quiet + count):
        walk.chance.choice(QUIET if number < quiet else steps)(walk)
        walk.house.check_rows()


# --- The network --------------------------------------------------------------------------------------------------


def deliver(walk: Walk) -> None:
    if waiting := walk.house.waiting():
        walk.house.deliver(walk.chance.choice(waiting))


def deliver_again(walk: Walk) -> None:
    """A message comes twice, the second time long after."""
    if walk.house.delivered:
        walk.house.hand(*walk.chance.choice(walk.house.delivered))


def answered(walk: Walk) -> None:
    _call(walk, "answered")


def in_one_go(walk: Walk) -> None:
    _call(walk, "in one go")


def gone_wrong(walk: Walk) -> None:
    _call(walk, walk.chance.choice(("lost before", "lost after", "stored", "stored", "throttled", "crash")))


def _call(walk: Walk, way: str) -> None:
    house = walk.house
    if not (opened := house.open_operations()):
        return
    operation = walk.chance.choice(opened)
    match way:
        case "answered" | "in one go":
            outcome = house.ask(operation)
            is_lost = walk.chance.random() < 0.2
            followed = house.follow(operation, outcome, is_lost=is_lost) if way == "in one go" else None
            house.record(operation, outcome, followed)
            walk.answers.append(Answer(operation, outcome, followed))
        case "lost before" | "lost after":
            if way == "lost after" and not _is_withheld(walk, operation):
                house.send(operation)
            house.record(operation, Unknown("timeout"))
        case "stored":
            if not _is_withheld(walk, operation) and operation.may_send(house.now):
                effect = walk.chance.choice(("before", "later", "later", "never"))
                house.provider.fail(operation, effect)
                house.note(f"the provider answers {operation.kind} with a 500; its effect: {effect}")
        case "throttled":
            house.record(operation, Throttled(1.0))
        case "crash":
            if not _is_withheld(walk, operation):
                walk.answers.append(Answer(operation, house.send(operation)))
                house.note(f"a crash after {operation.kind} was sent")
        case _:
            house.fail(f"there is no way {way!r}")
    house.claim(operation)


def _is_withheld(walk: Walk, operation: Operation) -> bool:
    return operation.kind == "confirm" and walk.house.payments.get(Payment, operation.payment_id).is_unwanted


def late_twin(walk: Walk) -> None:
    """An answer arrives when its call is over, or in other hands."""
    if not walk.answers:
        return
    answer = walk.chance.choice(walk.answers)
    stored = walk.house.payments.get(Operation, answer.operation.id)
    is_late = stored.tries != answer.operation.tries or stored.due_at is None
    if is_late and walk.house.record(answer.operation, answer.outcome, answer.followed):
        walk.house.fail("an answer that came late counted")


def effects_come_late(walk: Walk) -> None:
    walk.house.provider.come_late()


def time_passes(walk: Walk) -> None:
    walk.house.now += timedelta(minutes=walk.chance.choice(MINUTES))
    walk.house.wake()


def timer_fires_twice(walk: Walk) -> None:
    checkout, *_ = walk.anyone()
    walk.house.try_to(walk.house.checkout, WakeCheckout(checkout_id=checkout.id))


# --- What is seen -------------------------------------------------------------------------------------------------


def look(walk: Walk) -> None:
    _, payment, intent, _ = walk.anyone()
    if payment is not None and intent is not None:
        walk.seen.append((payment.id, walk.house.provider.seen(intent)))
        walk.see_intent(payment, walk.seen[-1][1])


def old_look(walk: Walk) -> None:
    if walk.seen:
        payment_id, seen = walk.chance.choice(walk.seen)
        walk.see_intent(walk.house.payments.get(Payment, payment_id), seen)


def see_a_refund(walk: Walk) -> None:
    if walk.house.provider.refunds:
        walk.see_refund(walk.chance.choice(list(walk.house.provider.refunds.values())))


def see_a_dispute(walk: Walk) -> None:
    if walk.house.provider.disputes:
        walk.see_dispute(walk.chance.choice(list(walk.house.provider.disputes.values())))


def look_for_orphans(walk: Walk) -> None:
    for payment in walk.house.payments.all(Payment):
        if walk.is_orphaned(payment):
            walk.house.try_to(walk.house.payments, AskForOrder(payment_id=payment.id))


# --- Buyers, staff and the warehouse --------------------------------------------------------------------------------


def buyer_cancels(walk: Walk) -> None:
    checkout, *_ = walk.anyone()
    if walk.chance.random() < 0.4:
        walk.house.try_to(walk.house.checkout, CancelCheckout(checkout_id=checkout.id, caller=BUYER))


def payer_acts(walk: Walk) -> None:
    """In their browser: a challenge, or the whole confirmation."""
    _, _, intent, _ = walk.anyone()
    able = OPEN_TO_PAYER if intent and intent.confirms_at_client else {IntentStatus.NEEDS_ACTION}
    if intent is not None and intent.status in able:
        walk.house.provider.charge(intent, is_held=walk.chance.random() < 0.7)
        walk.house.note(f"the payer acts: {intent.status}")


def order_is_called_off(walk: Walk) -> None:
    *_, order = walk.anyone()
    if order is not None and walk.chance.random() < 0.5:
        walk.house.try_to(walk.house.checkout, CancelOrder(order_id=order.id, caller=STAFF))


def order_is_refunded(walk: Walk) -> None:
    *_, order = walk.anyone()
    if order is None:
        return
    restock = walk.chance.random() < 0.5
    wish = walk.chance.choice(
        (
            RefundWish(amount_minor=None, quantities={}, restock=restock, reason="r"),
            RefundWish(amount_minor=walk.chance.randint(1, 400), quantities={}, restock=False, reason="r"),
            RefundWish(amount_minor=None, quantities={order.lines[0].line_id: 1}, restock=restock, reason="r"),
        )
    )
    command = RequestRefund(refund_id=walk.id(), order_id=order.id, caller=STAFF, wish=wish)
    walk.house.try_to(walk.house.checkout, command)


def goods_leave(walk: Walk) -> None:
    """One or more of an order that the warehouse still has in its list."""
    *_, order = walk.anyone()
    left = order.lines[0].quantity - walk.sent.get(order.id, 0) if order is not None else 0
    if order is None or not left:
        return
    count, shipment_id = walk.chance.randint(1, left), f"s{walk.sent.get(order.id, 0)}"
    lines = (FulfilmentLine(line_id=order.lines[0].line_id, quantity=count),)
    walk.sent[order.id] = walk.sent.get(order.id, 0) + count
    walk.house.publish(ShipmentDispatched(order_id=order.id, shipment_id=shipment_id, lines=lines), str(order.id))
    if walk.chance.random() < 0.5:
        walk.house.publish(ShipmentDelivered(order_id=order.id, shipment_id=shipment_id), str(order.id))


def goods_come_back(walk: Walk) -> None:
    *_, order = walk.anyone()
    outside = walk.sent.get(order.id, 0) - walk.back.get(order.id, 0) if order is not None else 0
    if order is None or not outside:
        return
    walk.back[order.id] = walk.back.get(order.id, 0) + 1
    lines = (FulfilmentLine(line_id=order.lines[0].line_id, quantity=1),)
    return_id, restock = f"r{walk.back[order.id]}", walk.chance.random() < 0.5
    walk.house.publish(ReturnReceived(order_id=order.id, return_id=return_id, lines=lines, restock=restock), str(order.id))


# --- By hand, at our API and at the provider's dashboard --------------------------------------------------------------


def capture_by_hand(walk: Walk) -> None:
    _, payment, _, _ = walk.anyone()
    if payment is not None:
        amount_minor, final = walk.chance.choice((None, 100, 300)), walk.chance.random() < 0.5
        walk.house.try_to(walk.house.payments, CapturePayment(payment_id=payment.id, amount_minor=amount_minor, final=final))


def void_by_hand(walk: Walk) -> None:
    _, payment, _, _ = walk.anyone()
    if payment is not None and walk.chance.random() < 0.5:
        walk.house.try_to(walk.house.payments, VoidPayment(payment_id=payment.id, reason="requested"))


def refund_by_hand(walk: Walk) -> None:
    _, payment, _, _ = walk.anyone()
    if payment is not None:
        amount_minor = walk.chance.choice((None, 100))
        command = RequestByStaff(payment_id=payment.id, refund_id=walk.id(), amount_minor=amount_minor, reason="r")
        walk.house.try_to(walk.house.payments, command)


def capture_at_dashboard(walk: Walk) -> None:
    _, _, intent, _ = walk.anyone()
    if intent is not None and intent.status is IntentStatus.AUTHORIZED and walk.chance.random() < 0.3:
        amount_minor = walk.chance.choice((intent.held_minor, min(100, intent.held_minor)))
        walk.house.provider.capture(intent, amount_minor, final=True)
        walk.house.note(f"somebody captures {amount_minor} at the dashboard")


def cancel_at_dashboard(walk: Walk) -> None:
    _, _, intent, _ = walk.anyone()
    able = intent is not None and intent.status is not IntentStatus.CAPTURED and not intent.received_minor
    if intent is not None and able and walk.chance.random() < 0.2:
        walk.house.provider.lapse(intent)
        walk.house.note("somebody cancels at the dashboard")


def refund_at_dashboard(walk: Walk) -> None:
    _, _, intent, _ = walk.anyone()
    provider = walk.house.provider
    if intent is not None and not intent.is_contested and provider.left_minor(intent) >= 50 and walk.chance.random() < 0.3:
        provider.refund(intent, 50, RefundStatus.SUCCEEDED, {})
        walk.house.note("somebody refunds 50 at the dashboard")


BY_HAND: Sequence[Callable[[Walk], None]] = (
    capture_by_hand,
    void_by_hand,
    refund_by_hand,
    capture_at_dashboard,
    cancel_at_dashboard,
    refund_at_dashboard,
)


# --- At the provider's ------------------------------------------------------------------------------------------------


def lapse(walk: Walk) -> None:
    """A hold ends before its time."""
    _, _, intent, _ = walk.anyone()
    if intent is not None and intent.status is IntentStatus.AUTHORIZED and walk.chance.random() < 0.3:
        walk.house.provider.lapse(intent)
        walk.house.note("the hold lapses")


def refund_moves(walk: Walk) -> None:
    """One that was pending ends; one that had succeeded may still fail."""
    moving = [each for each in walk.house.provider.refunds.values() if each.status in {"pending", "succeeded"}]
    if not moving:
        return
    refund = walk.chance.choice(moving)
    ends = (RefundStatus.SUCCEEDED, RefundStatus.FAILED) if refund.status is RefundStatus.PENDING else (RefundStatus.FAILED,)
    if not (refund.status is RefundStatus.SUCCEEDED and (walk.chance.random() < 0.7 or _is_contested(walk, refund))):
        moved = walk.house.provider.move_refund(refund, walk.chance.choice(ends))
        walk.house.note(f"a refund of {moved.amount_minor} is {moved.status}")


def _is_contested(walk: Walk, refund: SeenRefund) -> bool:
    return walk.house.provider.intents[refund.intent_id or ""].is_contested


def dispute_opens(walk: Walk) -> None:
    _, _, intent, _ = walk.anyone()
    provider = walk.house.provider
    if intent is not None and not intent.is_contested and provider.left_minor(intent) > 0 and walk.chance.random() < 0.2:
        dispute = provider.contest(intent)
        walk.house.note(f"the buyer's bank takes {dispute.amount_minor} back")


def dispute_ends(walk: Walk) -> None:
    opened = [each for each in walk.house.provider.disputes.values() if each.status is DisputeStatus.NEEDS_RESPONSE]
    if opened:
        is_won = walk.chance.random() < 0.5
        walk.house.provider.decide(walk.chance.choice(opened), is_won=is_won)
        walk.house.note(f"a dispute is {'won' if is_won else 'lost'}")


QUIET: Sequence[Callable[[Walk], None]] = (deliver, deliver, answered, in_one_go, payer_acts)
WEIGHTS: Mapping[Callable[[Walk], None], int] = {
    deliver: 8,
    answered: 3,
    in_one_go: 2,
    gone_wrong: 3,
    deliver_again: 1,
    late_twin: 1,
    effects_come_late: 1,
    time_passes: 1,
    timer_fires_twice: 1,
    look: 1,
    old_look: 1,
    see_a_refund: 1,
    see_a_dispute: 1,
    look_for_orphans: 1,
    buyer_cancels: 1,
    payer_acts: 1,
    order_is_called_off: 1,
    order_is_refunded: 3,
    goods_leave: 1,
    goods_come_back: 1,
    refund_moves: 1,
    dispute_opens: 1,
    dispute_ends: 1,
}
