"""What payments says, and what the saga makes of it.

Only the payment that a checkout asked for can move it. Money that no live checkout waits for, of this or any other payment, is
asked to be let go of, on a record of its own: a checkout that has come to its end does not change any more.
"""

from collections.abc import Iterable
from typing import Any, Literal

from libs.common.contracts.checkout import FailureReason, OrderStatusTold, PaymentVoidRequested
from libs.common.contracts.payments import (
    OrderStatusAsked,
    PaymentActionRequired,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    PaymentVoided,
)
from libs.common.decision import Message, Ref, World
from libs.common.errors import NotFoundError
from libs.common.tenancy import tenant_ref
from services.checkout import domain
from services.checkout.domain import saga
from services.checkout.domain.card_testing import NO_ISSUERS_REFUSAL
from services.checkout.domain.order import Order, OrderCounter, OrderState
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock
from services.checkout.domain.stray import StrayMoney
from services.checkout.handlers import card_testing, stock
from services.checkout.handlers.checkouts import LETTING_GO, TIMER, confirm, let_go
from services.checkout.handlers.table import HANDLERS

ASKED = LETTING_GO | {CheckoutState.PAYING}
"""Where payments was asked for money and has not said what became of it."""


def _checkout(message: Message[Any]) -> list[Ref]:
    return [Ref(Checkout, message.data.checkout_id)]


def _concerned(world: World, message: Message[Any]) -> Checkout | None:
    """The live checkout that waits for this payment."""
    checkout = world.get(Checkout, message.data.checkout_id)
    waits = checkout is not None and not checkout.is_final and checkout.payment_id == message.data.payment_id
    return checkout if waits else None


def _held(checkout: Checkout | None) -> set[Ref]:
    """The stock that the checkout holds, or has sold."""
    return {Ref(Stock, allocation.sku) for allocation in checkout.allocations} if checkout else set()


def _if_authorized(world: World, message: Message[PaymentAuthorized]) -> Iterable[Ref]:
    checkout = _concerned(world, message)
    if checkout is None:
        return [Ref(StrayMoney, message.data.payment_id)]
    return [*_held(checkout), *card_testing.taken_back_for(checkout), Ref(OrderCounter, message.tenant_id)]


@HANDLERS.on(PaymentAuthorized, _checkout, more=_if_authorized)
def payment_authorized(world: World, message: Message[PaymentAuthorized]) -> None:
    """Confirm; or let go of money that nobody waits for."""
    checkout = _concerned(world, message)
    if checkout is None:
        _stray(world, message)
        return
    if checkout.state is CheckoutState.CANCELING or checkout.quote is None:
        return  # payments was asked to let go of it already
    if not saga.matches(checkout, message.data):
        let_go(world, *saga.void_mismatch(checkout))
        return
    confirm(world, checkout, checkout.quote)
    card_testing.note_held(world, checkout)


def _stray(world: World, message: Message[PaymentAuthorized] | Message[PaymentCaptured]) -> None:
    """Ask once for money to be let go of, or given back, that came for a checkout that is over or never asked for it."""
    told = message.data
    checkout = world.get(Checkout, told.checkout_id)
    is_its_order = checkout is not None and checkout.state is CheckoutState.CONFIRMED and checkout.payment_id == told.payment_id
    if checkout is None or is_its_order or world.get(StrayMoney, told.payment_id) is not None:
        return
    stray = world.save(_written_down(world, message))
    request = PaymentVoidRequested(checkout_id=checkout.id, payment_id=told.payment_id, reason="canceled")
    # Under the payment's own key: the checkout's numbers are counted by the checkout, which stays as it is.
    world.publish(request, stray.sequence, by="payment_id")


def _taken_unasked(world: World, message: Message[PaymentCaptured], live: Checkout) -> None:
    """Taken for a live checkout without an order: it will not be let go of any more, so payments owes it back."""
    if live.state not in LETTING_GO:
        # Nobody said that what was quoted was held: it was taken past us, and not as it should have been.
        let_go(world, *saga.void_mismatch(live))
    world.save(_written_down(world, message))
    world.remind(TIMER, live.id, world.now)


def _written_down(world: World, message: Message[PaymentAuthorized] | Message[PaymentCaptured]) -> StrayMoney:
    told = message.data
    return StrayMoney(
        tenant_id=world.tenant_id,
        id=told.payment_id,
        sequence=1,
        checkout_id=told.checkout_id,
        amount_minor=told.amount_minor,
        found_at=world.now,
    )


@HANDLERS.on(PaymentActionRequired, _checkout)
def payment_action_required(world: World, message: Message[PaymentActionRequired]) -> None:
    """Show that the payer has to do something; the checkout goes on waiting, as long as it may."""
    checkout = _concerned(world, message)
    if checkout is not None and checkout.state is CheckoutState.PAYING and not checkout.action_required:
        world.save(saga.wait_for_payer(checkout))


def _if_declined(world: World, message: Message[PaymentDeclined]) -> Iterable[Ref]:
    checkout = _concerned(world, message)
    return [*_held(checkout), *([] if message.data.code in NO_ISSUERS_REFUSAL else card_testing.counted_for(checkout))]


@HANDLERS.on(PaymentDeclined, lambda m: [*_checkout(m), tenant_ref(m)], more=_if_declined)
def payment_declined(world: World, message: Message[PaymentDeclined]) -> None:
    """Nothing is held: give the stock back and end. A card that its issuer refused is counted."""
    checkout = _concerned(world, message)
    if checkout is None:
        return
    if message.data.code in NO_ISSUERS_REFUSAL:
        _end(world, checkout, "payment-failed")
        return
    card_testing.note_declined(world, checkout)
    _end(world, checkout, "payment-declined")


def _if_gone(world: World, message: Message[Any]) -> Iterable[Ref]:
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.payment_id != message.data.payment_id:
        return []
    order = [Ref(Order, checkout.order_id)] if checkout.state is CheckoutState.CONFIRMED else []
    return [*order, *_held(checkout)]


@HANDLERS.on(PaymentVoided, _checkout, more=_if_gone)
def payment_voided(world: World, message: Message[PaymentVoided]) -> None:
    """Nothing is held any more: end as was decided when that was asked for; an order that counted on it is off."""
    _gone(world, message)


@HANDLERS.on(PaymentExpired, _checkout, more=_if_gone)
def payment_expired(world: World, message: Message[PaymentExpired]) -> None:
    """The hold lapsed: as if it had been let go of."""
    _gone(world, message)


def _gone(world: World, message: Message[PaymentVoided] | Message[PaymentExpired]) -> None:
    live = _concerned(world, message)
    if live is not None:
        _end(world, live, None)
        return
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state is not CheckoutState.CONFIRMED or checkout.payment_id != message.data.payment_id:
        return
    order = world.get(Order, checkout.order_id)
    if order is None:
        return
    if order.state is OrderState.CONFIRMED and not order.captured_minor:
        canceled, event, goods = domain.order.cancel(order, "payment-capture-failed")
        stock.restock_all(world, goods)
        world.save(domain.order.let_go(canceled), event)
    elif (let_go_of := domain.order.let_go(order)) != order:
        world.save(let_go_of)


def _end(world: World, checkout: Checkout, refused: FailureReason | None) -> None:
    stock.release_all(world, checkout.allocations)
    world.save(*saga.without_money(checkout, refused))


def _if_none(world: World, message: Message[OrderStatusAsked]) -> Iterable[Ref]:
    return [] if _stands_on(world, message) else [Ref(Checkout, message.data.checkout_id, shared=True)]


def _stands_on(world: World, message: Message[OrderStatusAsked]) -> Order | None:
    """The order that stands, or stood, on this payment."""
    order = world.get(Order, message.data.order_id)
    return order if order is not None and order.payment_id == message.data.payment_id else None


@HANDLERS.on(OrderStatusAsked, lambda m: [Ref(Order, m.data.order_id, shared=True)], more=_if_none)
def order_status_asked(world: World, message: Message[OrderStatusAsked]) -> None:
    """Tell whether an order stands on this money, for payments has heard of none. While it may yet become one, say nothing.

    Raises NotFoundError where this tenant does not have the checkout: a row was lost, and a person must see this.
    """
    asked, order = message.data, _stands_on(world, message)
    if order is None:
        checkout = world.get(Checkout, asked.checkout_id)
        if checkout is None:
            raise NotFoundError("checkout-not-found", f"payments asks for the order of an unknown checkout {asked.checkout_id}")
        is_its_own = checkout.payment_id == asked.payment_id
        if is_its_own and not checkout.is_final:
            return
        if is_its_own and checkout.state is CheckoutState.CONFIRMED:
            raise NotFoundError("order-not-found", f"checkout {checkout.id} became an order that is not there")
    status: Literal["confirmed", "canceled", "none"] = "none"
    if order is not None:
        status = "confirmed" if order.state is OrderState.CONFIRMED else "canceled"
    told = OrderStatusTold(
        question_id=asked.question_id,
        payment_id=asked.payment_id,
        checkout_id=asked.checkout_id,
        order_id=asked.order_id,
        status=status,
    )
    world.publish(told, 1)


def _if_no_order(world: World, message: Message[PaymentCaptured]) -> Iterable[Ref]:
    order = world.get(Order, message.data.order_id)
    if order is not None and order.payment_id == message.data.payment_id:
        return []
    return [Ref(Checkout, message.data.checkout_id), Ref(StrayMoney, message.data.payment_id)]


@HANDLERS.on(PaymentCaptured, lambda m: [Ref(Order, m.data.order_id)], more=_if_no_order)
def payment_captured(world: World, message: Message[PaymentCaptured]) -> None:
    """The order's money is ours. Money that was taken without an order is to be given back."""
    order = world.get(Order, message.data.order_id)
    if order is None or order.payment_id != message.data.payment_id:
        live = _concerned(world, message)
        if live is None:
            _stray(world, message)
        elif live.state in ASKED and world.get(StrayMoney, message.data.payment_id) is None:
            _taken_unasked(world, message, live)
        return
    if order.captured_minor < message.data.captured_minor:
        world.save(domain.order.capture(order, message.data.captured_minor))
