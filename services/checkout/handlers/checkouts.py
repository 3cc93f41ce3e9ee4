"""A checkout: started, quoted, paid for or not. Every message is only a signal to the saga, which decides."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from libs.common.contracts import Event
from libs.common.contracts.cart import CartFreezeRefused, CartFrozen
from libs.common.decision import Message, Ref, UnreadableError, Viewer, World
from libs.common.errors import ConflictError, RejectedError
from libs.common.tenancy import Tenant, tenant_ref
from services.checkout import domain
from services.checkout.domain import saga
from services.checkout.domain.card_testing import Payer
from services.checkout.domain.claim import CartClaim, claim_id
from services.checkout.domain.order import OrderCounter
from services.checkout.domain.quote import Address, Quote
from services.checkout.domain.returning import back_to
from services.checkout.domain.saga import CaptureMode, Checkout, CheckoutState, Confirmation
from services.checkout.domain.stock import Bounds, Stock
from services.checkout.domain.stray import StrayMoney
from services.checkout.handlers import card_testing, drops, quoting, stock
from services.checkout.handlers.table import HANDLERS

TIMER = "checkout"
"""The one timer of a checkout, by its id: when it is to be given up, later when to ask again what payments has done."""

BUYING = "a purchase is its buyer's, whoever makes it for them, and its timeline tells of it"

LETTING_GO = frozenset({CheckoutState.CANCELING, CheckoutState.EXPIRING})
"""Where a checkout waits for payments to hold nothing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a checkout may take, and the origins where every tenant has a shop: as the service is configured."""

    seconds: int
    own_origins: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCheckout:
    """Buy a cart."""

    checkout_id: UUID
    cart_id: UUID
    subject_id: UUID
    method: str
    confirmation: Confirmation = "server"
    email: str | None
    body_digest: str
    ttl_seconds: int
    shipping_method: str | None = None
    shipping_address: Address | None = None
    billing_address: Address | None = None
    accept_price_changes: bool = False
    is_guest: bool = False
    payer: Payer | None = None
    return_url: str | None = None
    own_origins: frozenset[str] = frozenset()
    """Where every tenant has a shop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelCheckout:
    """Do not buy it after all."""

    checkout_id: UUID
    caller: Viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCheckout:
    """The payer is back from whatever they had to do, or says how they pay for what is reserved."""

    checkout_id: UUID
    caller: Viewer
    method: str = ""
    confirmation: Confirmation = "server"
    payer: Payer | None = None
    return_url: str | None = None
    own_origins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeCheckout:
    """Its time has come; for what, the checkout knows itself."""

    checkout_id: UUID


def _claim(message: Message[StartCheckout]) -> list[Ref]:
    claim = Ref(CartClaim, claim_id(message.data.cart_id, message.data.subject_id))
    return [
        claim,
        tenant_ref(message),
        *quoting.method_refs(message.data.shipping_method),
        *card_testing.to_try(message.data.payer),
    ]


def _claimed(world: World, message: Message[StartCheckout]) -> list[Ref]:
    claim = world.get(CartClaim, claim_id(message.data.cart_id, message.data.subject_id))
    return [Ref(Checkout, claim.checkout_id)] if claim else []


@HANDLERS.on(StartCheckout, _claim, more=_claimed, unaudited=BUYING)
def start_checkout(world: World, message: Message[StartCheckout]) -> Checkout:
    """Start a checkout, or answer the one that this caller already has for this cart."""
    command = message.data
    key = claim_id(command.cart_id, command.subject_id)
    claim = world.get(CartClaim, key)
    existing = world.get(Checkout, claim.checkout_id) if claim else None
    stands = existing is not None and (not existing.is_final or existing.state is CheckoutState.CONFIRMED)
    if stands and existing is not None and existing.body_digest == command.body_digest:
        corrected = saga.correct_email(existing, command.email)
        return existing if corrected == existing else world.save(corrected)
    quoting.demand_deliverable(world, command.shipping_method, command.shipping_address)
    _demand_may_pay_later(world, command)
    if stands and existing is not None:
        detail = "this cart already has a checkout, begun with another request"
        raise ConflictError("checkout-exists", detail, checkout_id=str(existing.id))
    if command.method or command.confirmation == "client":
        card_testing.demand_may_try(world, command.payer)
    checkout = saga.new_checkout(
        tenant_id=world.tenant_id,
        checkout_id=command.checkout_id,
        subject_id=command.subject_id,
        cart_id=command.cart_id,
        method=command.method,
        confirmation=command.confirmation,
        email=command.email,
        shipping_method=command.shipping_method,
        shipping_address=command.shipping_address,
        billing_address=command.billing_address,
        accept_price_changes=command.accept_price_changes,
        body_digest=command.body_digest,
        now=world.now,
        expires_at=world.now + timedelta(seconds=command.ttl_seconds),
    )
    version, sequence = (claim.version, claim.sequence) if claim else (0, 0)
    mine = CartClaim(tenant_id=world.tenant_id, id=key, checkout_id=checkout.id, version=version, sequence=sequence)
    attempt = world.save(mine).version  # a claim changes for nothing but the next checkout
    world.remind(TIMER, checkout.id, checkout.expires_at)
    return world.save(*saga.start(_paid_by(world, checkout, command), attempt))


def _paid_by(world: World, checkout: Checkout, command: StartCheckout | ResumeCheckout) -> Checkout:
    """With where its payer is and comes back to, and whether cards were refused before: one, or so many that proof is asked."""
    payer, tenant = command.payer, world.get(Tenant, world.tenant_id)
    return replace(
        checkout,
        return_url=back_to(command.return_url, checkout.id, tenant.settings if tenant else {}, command.own_origins),
        origin=payer.origin if payer else None,
        is_watched=card_testing.is_watched(world, payer),
        is_challenged=card_testing.is_challenged(world, payer),
    )


def _pay_later(world: World) -> Mapping[str, Any]:
    """What the tenant says of those who pay later."""
    tenant = world.get(Tenant, world.tenant_id)
    chosen: Mapping[str, Any] = (tenant.settings.get("pay_later") if tenant else None) or {}
    return chosen


def _demand_may_pay_later(world: World, command: StartCheckout) -> None:
    """A guest may come again as another, and as often as they like. Raises RejectedError."""
    is_later = not command.method and command.confirmation != "client"
    if is_later and command.is_guest and _pay_later(world).get("guests") is not True:
        raise RejectedError("pay-later-refused", "guests say how they pay when they check out: send a method or confirm")


def _buyers(checkout: Checkout) -> list[str]:
    """By what its buyer would be known who comes again as somebody else."""
    address = checkout.shipping_address
    texts = (checkout.email, "/".join(filter(None, astuple(address))) if address else None)
    return [str(checkout.subject_id), *(hashlib.sha256(text.casefold().encode()).hexdigest() for text in texts if text)]


def _bounds(world: World) -> Bounds:
    chosen, usual = _pay_later(world), Bounds()
    return Bounds(
        share_percent=chosen.get("share_percent", usual.share_percent),
        per_buyer=chosen.get("reservations_per_buyer", usual.per_buyer),
    )


def _checkout(message: Message[Any]) -> list[Ref]:
    return [Ref(Checkout, message.data.checkout_id)]


def _to_quote(world: World, message: Message[CartFrozen]) -> Iterable[Ref]:
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state is not CheckoutState.STARTED:
        return []
    counter = [Ref(OrderCounter, message.tenant_id)] if domain.quote.may_be_free(message.data) else []
    places = drops.places(world, checkout, message.data)
    return [*quoting.terms_refs(world, checkout), *{Ref(Stock, line.sku) for line in message.data.lines}, *places, *counter]


@HANDLERS.on(CartFrozen, lambda m: [*_checkout(m), tenant_ref(m), *drops.guarding(m.data)], more=_to_quote)
def cart_frozen(world: World, message: Message[CartFrozen]) -> None:
    """Quote, reserve all or nothing, and ask for the money, if there is any to ask for."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state is not CheckoutState.STARTED:
        return
    try:
        quote = domain.quote.quote(message.data, quoting.terms(world, checkout))
        refused = _refused_at(world, checkout, message.data, quote)
        if refused is not None:
            world.save(*refused)
            return
        demand = domain.quote.demand(quote.lines)
        is_within = checkout.is_payable or stock.may_hold_all(world, demand, _buyers(checkout), _bounds(world))
        allocations = stock.reserve_all(world, demand) if is_within else None
    except (domain.quote.UnquotableError, UnreadableError):  # terms or stock that nobody can read: nothing can be agreed on
        world.save(*saga.fail(checkout, "cart-unavailable"))
        return
    if allocations is None:
        world.save(*saga.fail(checkout, "out-of-stock" if is_within else saga.RESERVATION_LIMIT))
        return
    drops.use_all(world, checkout, message.data)
    reserved = saga.reserve(checkout, quote, allocations)
    if reserved.expires_at != checkout.expires_at:
        world.remind(TIMER, reserved.id, reserved.expires_at)
    if reserved.is_payable:
        _go_on(world, reserved, quote)
        return
    stock.hold_all(world, reserved.id, allocations, reserved.expires_at, _buyers(reserved))
    world.save(reserved)


def _refused_at(world: World, checkout: Checkout, frozen: CartFrozen, quote: Quote) -> tuple[Checkout, Event] | None:
    """The end of a checkout whose cart nobody may be asked to pay at these prices, if so."""
    if not quote.lines:
        return saga.fail(checkout, "cart-empty")  # else it would be an order of nothing, for nothing
    queued = drops.to_queue_for(world, checkout, frozen)
    if queued is not None:
        return saga.turn_away(checkout, queued)
    if frozen.prices_valid_until is not None and frozen.prices_valid_until <= world.now:
        return saga.expire(checkout)  # heard of too late: nobody may be charged these prices any more
    if domain.quote.has_risen(frozen) and not checkout.accept_price_changes:
        return saga.tell_prices(checkout, quote)
    return None


def _go_on(world: World, reserved: Checkout, quote: Quote) -> Checkout:
    """Ask for the money; where none is owed, the order happens."""
    if reserved.is_free:
        return confirm(world, reserved, quote)
    return world.save(*saga.begin_payment(reserved, quote, _capture_mode(world)))


def confirm(world: World, checkout: Checkout, quote: Quote) -> Checkout:
    """Sell what is held, and make the order. Its stock and the counter must be among the refs."""
    counter = world.get(OrderCounter, world.tenant_id) or OrderCounter(tenant_id=world.tenant_id)
    counter = world.save(domain.order.count_order(counter))
    stock.sell_all(world, checkout.allocations)
    confirmed, order, event = saga.confirm(checkout, quote, counter.last_number, world.now)
    world.save(order, event)
    return world.save(confirmed)


def _capture_mode(world: World) -> CaptureMode:
    """When the tenant wants the money taken."""
    tenant = world.get(Tenant, world.tenant_id)
    return "on-shipment" if tenant is not None and tenant.settings.get("capture") == "on-shipment" else "on-confirmation"


@HANDLERS.on(CartFreezeRefused, _checkout)
def cart_freeze_refused(world: World, message: Message[CartFreezeRefused]) -> None:
    """No cart, no order."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is not None and checkout.state is CheckoutState.STARTED:
        world.save(*saga.fail(checkout, message.data.reason))


# --- What a caller wants of one that is under way --------------------------------------------------------------------


def _unpaid(world: World, message: Message[Any]) -> Iterable[Ref]:
    """The stock that the checkout holds without paying for it yet."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state is not CheckoutState.RESERVED:
        return []
    return {Ref(Stock, allocation.sku) for allocation in checkout.allocations}


def _end_early(world: World, checkout: Checkout, ended: tuple[Checkout, Event]) -> Checkout:
    """End or begin to, and give up what was held unpaid."""
    if checkout.state is CheckoutState.RESERVED:
        stock.give_up_all(world, checkout.id, checkout.allocations)
    return let_go(world, *ended)


@HANDLERS.on(CancelCheckout, _checkout, more=_unpaid)
def cancel_checkout(world: World, message: Message[CancelCheckout]) -> Checkout:
    """Cancel it, at once or as soon as payments holds nothing; one that is being canceled already is answered as it is."""
    checkout = message.data.caller.demand(Checkout, world.get(Checkout, message.data.checkout_id))
    if checkout.state is CheckoutState.CANCELING:
        return checkout
    return _end_early(world, checkout, saga.cancel(checkout))


def _to_go_on(world: World, message: Message[ResumeCheckout]) -> Iterable[Ref]:
    checkout = world.get(Checkout, message.data.checkout_id)
    is_order = checkout is not None and checkout.state is CheckoutState.RESERVED and checkout.is_free
    return [*_unpaid(world, message), *([Ref(OrderCounter, message.tenant_id)] if is_order else [])]


@HANDLERS.on(
    ResumeCheckout,
    lambda m: [*_checkout(m), tenant_ref(m), *card_testing.to_try(m.data.payer)],
    more=_to_go_on,
    unaudited=BUYING,
)
def resume_checkout(world: World, message: Message[ResumeCheckout]) -> Checkout:
    """Answers the checkout if it can still end well: what the payer did, payments alone can say, and it looks by itself."""
    checkout = message.data.caller.demand(Checkout, world.get(Checkout, message.data.checkout_id))
    saga.demand_unfinished(checkout)
    if checkout.state is CheckoutState.RESERVED and checkout.quote is not None:
        chosen = saga.choose_payment(checkout, message.data.method, message.data.confirmation)
        if chosen.is_payable and not chosen.is_free:
            card_testing.demand_may_try(world, message.data.payer)
        return _pay(world, _paid_by(world, chosen, message.data), checkout.quote)
    return checkout


def _pay(world: World, checkout: Checkout, quote: Quote) -> Checkout:
    """Ask for the money for what is held, unless it has expired; of what was swept meanwhile there may be none left."""
    if not checkout.is_payable and not checkout.is_free:
        raise RejectedError("payment-required", "say how this is to be paid")
    if checkout.expires_at <= world.now:
        return _end_early(world, checkout, saga.expire(checkout))
    allocations = stock.keep_all(world, checkout.id, checkout.allocations)
    if allocations is None:
        return world.save(*saga.fail(checkout, "out-of-stock"))
    return _go_on(world, replace(checkout, allocations=tuple(allocations)), quote)


def let_go(world: World, checkout: Checkout, event: Event) -> Checkout:
    """Save a checkout that ends or wants to, and look again should payments not answer."""
    if not checkout.is_final:
        world.remind(TIMER, checkout.id, world.now + saga.PATIENCE)
    return world.save(checkout, event)


# --- Time ------------------------------------------------------------------------------------------------------------


def _to_end(world: World, message: Message[WakeCheckout]) -> Iterable[Ref]:
    """What an end would give back; and whether the money that payments was to let go of turned out to be taken."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.state not in LETTING_GO:
        return _unpaid(world, message)
    return [Ref(StrayMoney, checkout.payment_id), *{Ref(Stock, allocation.sku) for allocation in checkout.allocations}]


@HANDLERS.on(WakeCheckout, _checkout, more=_to_end)
def wake_checkout(world: World, message: Message[WakeCheckout]) -> str:
    """Give up what took too long; ask again, and tell, where payments has not answered. Never conclude anything from silence."""
    checkout = world.get(Checkout, message.data.checkout_id)
    if checkout is None or checkout.is_final:
        return "over"
    if checkout.state in LETTING_GO:
        return _ask_again(world, checkout)
    if world.now < checkout.expires_at:
        world.remind(TIMER, checkout.id, checkout.expires_at)
        return "early"
    return str(_end_early(world, checkout, saga.expire(checkout)).state)


def _ask_again(world: World, checkout: Checkout) -> str:
    if world.get(StrayMoney, checkout.payment_id) is not None:
        stock.release_all(world, checkout.allocations)
        world.save(*saga.without_money(checkout))
        return "taken"
    log.warning(
        "checkout.waits_for_payments",
        checkout_id=str(checkout.id),
        payment_id=str(checkout.payment_id),
        state=str(checkout.state),
        action="its stock stays reserved and payments is asked again; if this goes on, resolve the payment",
    )
    let_go(world, checkout, saga.void(checkout, saga.told(checkout.reason or "timed-out")))
    return "overdue"
