"""A cart whose checkout came to nothing is its shopper's again, whatever that nothing is called, and no other's."""

from typing import Any
from uuid import UUID

import pytest

from libs.common.contracts.cart import CartFrozen, CartReopened
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.contracts.checkout import CheckoutCanceled, CheckoutExpired, CheckoutFailed, CheckoutRequested, TenantProvisioned
from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Viewer
from services.cart.domain import Cart, CartState
from services.cart.handlers import HANDLERS, AddQuantity, CreateCart
from tests.shared.events import tenant_updated
from tests.unit.memory import TENANT, Memory

SHOPPER = Viewer(subject_id=UUID(int=1), sees_all=False)
CART, CHECKOUT, OTHER = UUID(int=100), UUID(int=200), UUID(int=201)
ENDINGS: list[Any] = [(CheckoutFailed, "payment-declined"), (CheckoutCanceled, "canceled"), (CheckoutExpired, "timed-out")]


@pytest.fixture
def memory() -> Memory:
    """A cart with tea, frozen for a checkout."""
    memory = Memory(HANDLERS)
    memory.execute(tenant_updated(TENANT))
    memory.execute(ProductPublished(sku="tea", name="Tea", category="drinks"), sequence=1)
    memory.execute(PriceChanged(sku="tea", currency="GBP", unit_minor=250), sequence=2)
    memory.execute(CreateCart(cart_id=CART, caller=SHOPPER, currency=None))
    for _ in range(2):
        memory.execute(AddQuantity(cart_id=CART, caller=SHOPPER, sku="tea", quantity=2))
    memory.execute(CheckoutRequested(checkout_id=CHECKOUT, cart_id=CART, subject_id=SHOPPER.subject_id))
    return memory


@pytest.mark.parametrize(("ending", "reason"), ENDINGS)
def test_each_ending_of_its_own_checkout_opens_it_once_and_none_of_anothers(memory: Memory, ending: Any, reason: Any) -> None:
    frozen = memory.get(Cart, CART)
    assert (frozen.state, frozen.lines[0].quantity, len(memory.events(CartFrozen))) == (CartState.FROZEN, 4, 1)
    memory.execute(ending(checkout_id=OTHER, cart_id=CART, reason=reason))
    memory.execute(ending(checkout_id=CHECKOUT, cart_id=OTHER, reason=reason))
    assert memory.get(Cart, CART) == frozen
    for _ in range(2):
        memory.execute(ending(checkout_id=CHECKOUT, cart_id=CART, reason=reason))
    opened = memory.get(Cart, CART)
    assert (opened.state, opened.checkout_id, opened.lines) == (CartState.OPEN, None, frozen.lines)
    assert [told.cart_id for told in memory.events(CartReopened)] == [CART]
    memory.assert_numbered()


def test_a_tenant_is_known_by_its_newest_state_and_each_new_one_is_answered() -> None:
    memory = Memory(HANDLERS)
    for version in (2, 1, 2, 3):
        update: TenantUpdated = tenant_updated(TENANT, version=version)
        memory.execute(update, sequence=version)
    told = [published.event for published in memory.outbox if published.event.TYPE == TenantProvisioned.TYPE]
    assert [(each.tenant_version, each.service) for each in told] == [(2, "cart"), (3, "cart")]  # type: ignore[attr-defined] # cart's own of that name
