"""Which command or event goes to which decision of the saga, and what is loaded for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.common.contracts.cart import CartFreezeRefused, CartFrozen
from libs.common.contracts.checkout import FailureReason, TenantProvisioned
from libs.common.contracts.identity import TenantUpdated
from libs.common.contracts.inventory import StockAdjusted, StockCounted
from libs.common.contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentVoided
from libs.common.errors import ConflictError, NotYetError
from libs.common.messaging.decision import Handlers, Message, Ref, World
from libs.common.tenancy import Tenant, project_tenant, tenant_ref
from services.checkout.domain import saga
from services.checkout.domain import stock as shelf
from services.checkout.domain.saga import CartClaim, Checkout, CheckoutState, Order, OrderCounter
from services.checkout.domain.stock import Allocation, Stock

HANDLERS = Handlers()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCheckout:
    """Buy a cart."""

    checkout_id: UUID
    cart_id: UUID
    subject_id: UUID
    method: str
    email: str | None
    body_digest: str
    ttl_seconds: int


def _claim(message: Message[StartCheckout]) -> list[Ref]:
    return [Ref(CartClaim, saga.claim_id(message.data.cart_id, message.data.subject_id))]


def _claimed(world: World, message: Message[StartCheckout]) -> list[Ref]:
    claim = world.get(CartClaim, saga.claim_id(message.data.cart_id, message.data.subject_id))
    return [Ref(Checkout, claim.checkout_id)] if claim else []


@HANDLERS.on(StartCheckout, _claim, more=_claimed)
def start_checkout(world: World, message: Message[StartCheckout]) -> Checkout:
    """Start a checkout, or answer the one that this caller already has for this cart."""
    command = message.data
    key = saga.claim_id(command.cart_id, command.subject_id)
    claim = world.get(CartClaim, key)
    existing = world.get(Checkout, claim.checkout_id) if claim else None
    if existing is not None and (not existing.is_final or existing.state is CheckoutState.CONFIRMED):
        if existing.body_digest != command.body_digest:
            detail = "this cart already has a checkout, begun with another request"
            raise ConflictError("checkout-exists", detail, checkout_id=str(existing.id))
        return existing
    checkout = saga.new_checkout(
        tenant_id=world.tenant_id,
        checkout_id=command.checkout_id,
        subject_id=command.subject_id,
        cart_id=command.cart_id,
        method=command.method,
        email=command.email,
        body_digest=command.body_digest,
        now=world.now,
        expires_at=world.now + timedelta(seconds=command.ttl_seconds),
    )
    version, sequence = (claim.version, claim.sequence) if claim else (0, 0)
    world.save(CartClaim(tenant_id=world.tenant_id, id=key, checkout_id=checkout.id, version=version, sequence=sequence))
    return world.save(*saga.start(checkout))


def _checkout(message: Message[Any]) -> list[Ref]:
    return [Ref(Checkout, message.data.checkout_id)]


def _lines(_: World, message: Message[CartFrozen]) -> Iterable[Ref]:
    return {Ref(Stock, line.sku) for line in message.data.lines}


@HANDLERS.on(CartFrozen, _checkout, more=_lines)
def cart_frozen(world: World, message: Message[CartFrozen]) -> None:
    """Quote, reserve all or nothing, and ask for the money."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state is not CheckoutState.STARTED:
        return
    quote = saga.quote(message.data)
    allocations: list[Allocation] = []
    reserved: list[Stock] = []
    for sku, quantity in sorted(saga.demand(quote.lines).items()):
        held = shelf.reserve(world.get(Stock, sku), quantity)
        if held is None:
            world.save(*saga.fail(checkout, "out-of-stock"))
            return
        reserved.append(held[0])
        allocations.extend(held[1])
    for stock in reserved:
        world.save(stock)
    world.save(*saga.begin_payment(checkout, quote, allocations))


@HANDLERS.on(CartFreezeRefused, _checkout)
def cart_freeze_refused(world: World, message: Message[CartFreezeRefused]) -> None:
    """No cart, no order."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is not None and checkout.state is CheckoutState.STARTED:
        world.save(*saga.fail(checkout, message.data.reason))


def _held(world: World, message: Message[Any]) -> Iterable[Ref]:
    """The stock that the checkout holds."""
    checkout = world.get(Checkout, message.data.checkout_id)
    return {Ref(Stock, allocation.sku) for allocation in checkout.allocations} if checkout else set()


def _to_confirm(world: World, message: Message[PaymentAuthorized]) -> Iterable[Ref]:
    return [*_held(world, message), Ref(OrderCounter, message.tenant_id)]


@HANDLERS.on(PaymentAuthorized, _checkout, more=_to_confirm)
def payment_authorized(world: World, message: Message[PaymentAuthorized]) -> None:
    """Confirm; or let go of money that nobody waits for."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state is CheckoutState.CONFIRMED or checkout.quote is None:
        return
    if checkout.state not in {CheckoutState.PAYING, CheckoutState.EXPIRING}:
        world.save(checkout, saga.void(checkout, "canceled"))
        return
    if not saga.matches(checkout, message.data):
        world.save(*saga.void_mismatch(checkout))
        return
    counter = world.get(OrderCounter, world.tenant_id) or OrderCounter(tenant_id=world.tenant_id)
    counter = world.save(saga.count_order(counter))
    for allocation in checkout.allocations:
        world.save(shelf.sell(_stock(world, allocation), allocation))
    confirmed, order, event = saga.confirm(checkout, checkout.quote, counter.last_number, world.now)
    world.save(confirmed)
    world.save(order, event)


def _stock(world: World, allocation: Allocation) -> Stock:
    stock = world.get(Stock, allocation.sku)
    if stock is None:
        raise ConflictError("stock-missing", f"{allocation.sku} was reserved and is not there")
    return stock


def _fail_and_release(world: World, checkout: Checkout, reason: FailureReason) -> None:
    for allocation in checkout.allocations:
        world.save(shelf.release(_stock(world, allocation), allocation))
    world.save(*saga.fail(checkout, reason))


@HANDLERS.on(PaymentDeclined, _checkout, more=_held)
def payment_declined(world: World, message: Message[PaymentDeclined]) -> None:
    """Nothing is held: give the stock back and end."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is not None and not checkout.is_final:
        refused = message.data.code in saga.NO_ISSUERS_REFUSAL
        _fail_and_release(world, checkout, "payment-failed" if refused else "payment-declined")


@HANDLERS.on(PaymentVoided, _checkout, more=_held)
def payment_voided(world: World, message: Message[PaymentVoided]) -> None:
    """What was held is let go of: end as was decided when that was asked for."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is not None and not checkout.is_final:
        _fail_and_release(world, checkout, "amount-mismatch" if checkout.reason == "amount-mismatch" else "payment-failed")


@HANDLERS.on(PaymentCaptured, lambda m: [Ref(Order, m.data.order_id)])
def payment_captured(world: World, message: Message[PaymentCaptured]) -> None:
    """The order's money is ours."""
    order = world.get(Order, message.data.order_id)
    if order is not None and order.captured_minor < message.data.captured_minor:
        world.save(saga.capture(order, message.data.captured_minor))


def _stocked(world: World, sku: str) -> Stock:
    if world.get(Tenant, world.tenant_id) is None:
        raise NotYetError("unknown-tenant", f"tenant {world.tenant_id} is not known here yet")
    return world.get(Stock, sku) or Stock(tenant_id=world.tenant_id, sku=sku)


@HANDLERS.on(StockCounted, lambda m: [Ref(Stock, m.data.sku), tenant_ref(m)])
def stock_counted(world: World, message: Message[StockCounted]) -> None:
    """Take a count."""
    fact = message.data
    world.save(shelf.count(_stocked(world, fact.sku), fact.location, fact.quantity, message.sequence))


@HANDLERS.on(StockAdjusted, lambda m: [Ref(Stock, m.data.sku), tenant_ref(m)], is_delta=True)
def stock_adjusted(world: World, message: Message[StockAdjusted]) -> None:
    """Take an adjustment."""
    fact = message.data
    world.save(shelf.adjust(_stocked(world, fact.sku), fact.location, fact.delta, message.sequence))


@HANDLERS.on_discard(StockAdjusted, lambda m: [Ref(Stock, m.data.sku), tenant_ref(m)])
def stock_adjustment_discarded(world: World, message: Message[StockAdjusted]) -> None:
    """An operator says that this one will never be applied: those behind it need not wait for it."""
    world.save(shelf.skip(_stocked(world, message.data.sku), message.sequence))


@HANDLERS.on(TenantUpdated, lambda m: [Ref(Tenant, m.data.tenant_id)])
def update_tenant(world: World, message: Message[TenantUpdated]) -> None:
    """Know the tenant, and say so."""
    project_tenant(
        world,
        message,
        lambda tenant_id, version: TenantProvisioned(tenant_id=tenant_id, service="checkout", tenant_version=version),
    )
