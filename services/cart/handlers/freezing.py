"""What checkouts do with carts: freeze them, give them back, and make orders of them."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from libs.common.contracts.cart import CartFreezeRefused, FreezeRefusal
from libs.common.contracts.checkout import (
    CheckoutCanceled,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutRequested,
    OrderConfirmed,
)
from libs.common.decision import Message, Ref, UnreadableError, World
from services.cart import domain
from services.cart.domain import Cart, CartState, Product, Promotion
from services.cart.handlers.promotions import offered, offers_ref, promotion_refs, readable
from services.cart.handlers.table import HANDLERS


def _of_cart(world: World, message: Message[CheckoutRequested]) -> Iterable[Ref]:
    cart = readable(world, Cart, message.data.cart_id)
    if cart is None:
        return []
    return [*(Ref(Product, line.sku, shared=True) for line in cart.lines), *promotion_refs(world, cart, counting=True)]


@HANDLERS.on(CheckoutRequested, lambda m: [Ref(Cart, m.data.cart_id), offers_ref(m)], more=_of_cart)
def freeze_cart(world: World, message: Message[CheckoutRequested]) -> None:
    """Freeze the cart for a checkout at the prices and discounts of this moment, or say why not."""
    request = message.data
    try:
        cart = world.get(Cart, request.cart_id)
    except UnreadableError:
        _refuse(world, request, "cart-unavailable")
        return
    if cart is not None and cart.checkout_id == request.checkout_id:
        return
    if cart is None:
        _refuse(world, request, "cart-not-found")
        return
    attempt = request.attempt or 0
    products = _for_sale(world, cart)
    unavailable = any(line.sku not in products for line in cart.lines)
    priced = domain.repriced(cart, products, world.now)
    reason = domain.freeze_refusal(priced, request.subject_id, unavailable, attempt)
    if reason is not None:
        _refuse(world, request, reason)
        return
    opened, given_back = domain.release(priced)
    if given_back:
        _count(world, priced, domain.promotion.give_back)
    promotions = offered(world, opened)
    given = domain.discounted(opened, promotions, world.now)
    until = domain.valid_until(given, products.values(), promotions)
    frozen, event = domain.freeze(given, request.checkout_id, attempt, until)
    _count(world, frozen, domain.promotion.take)
    world.save(frozen, *given_back, event)


def _count(world: World, cart: Cart, change: Callable[[Promotion], Promotion]) -> None:
    """Count the cart as one use more, or one less, of each promotion with a limit that it was given."""
    for each in cart.discounts:
        promotion = readable(world, Promotion, each.promotion) if each.is_counted else None
        if promotion is not None:
            world.save(change(promotion))


def _refuse(world: World, request: CheckoutRequested, reason: FreezeRefusal) -> None:
    """What the checkout may not see must not move either: the refusal is the first and only event of its own key."""
    refused = CartFreezeRefused(cart_id=request.cart_id, checkout_id=request.checkout_id, reason=reason)
    world.publish(refused, 1, by="checkout_id")


def _for_sale(world: World, cart: Cart) -> dict[str, Product]:
    """The cart's products that are sold in its currency at present."""
    found: dict[str, Product] = {}
    for line in cart.lines:
        try:
            product = world.get(Product, line.sku)
        except UnreadableError:
            continue
        if product is not None and product.price_in(cart.currency, world.now) is not None:
            found[line.sku] = product
    return found


def _cart_of_checkout(message: Message[Any]) -> list[Ref]:
    return [Ref(Cart, message.data.cart_id)]


def _counted(world: World, message: Message[Any]) -> Iterable[Ref]:
    """The promotions that the cart counts for, should it be given back."""
    cart = readable(world, Cart, message.data.cart_id)
    if cart is None or not _is_with(cart, message.data.checkout_id):
        return []
    return [Ref(Promotion, each.promotion) for each in cart.discounts if each.is_counted]


def _is_with(cart: Cart, checkout_id: UUID) -> bool:
    """Whether this checkout has it now."""
    return cart.state is CartState.FROZEN and cart.checkout_id == checkout_id


@HANDLERS.on(CheckoutFailed, _cart_of_checkout, _counted)
def reopen_cart(world: World, message: Message[CheckoutFailed]) -> None:
    """Give the cart back, if it is this checkout's."""
    _reopen(world, message.data.cart_id, message.data.checkout_id)


@HANDLERS.on(CheckoutCanceled, _cart_of_checkout, _counted)
def reopen_canceled_cart(world: World, message: Message[CheckoutCanceled]) -> None:
    """Give the cart back, if it is this checkout's."""
    _reopen(world, message.data.cart_id, message.data.checkout_id)


@HANDLERS.on(CheckoutExpired, _cart_of_checkout, _counted)
def reopen_expired_cart(world: World, message: Message[CheckoutExpired]) -> None:
    """Give the cart back, if it is this checkout's."""
    _reopen(world, message.data.cart_id, message.data.checkout_id)


def _reopen(world: World, cart_id: UUID, checkout_id: UUID) -> None:
    cart = world.get(Cart, cart_id)
    if cart is not None and _is_with(cart, checkout_id):
        _count(world, cart, domain.promotion.give_back)
        world.save(*domain.reopen(cart, checkout_id))


@HANDLERS.on(OrderConfirmed, lambda m: [Ref(Cart, m.data.cart_id)])
def order_cart(world: World, message: Message[OrderConfirmed]) -> None:
    """The cart has become an order."""
    cart = world.get(Cart, message.data.cart_id)
    if cart is not None and cart.state is CartState.FROZEN:
        world.save(*domain.order(cart, message.data.order_id))
