"""A guest who turns out to be somebody takes their cart along, and nobody else's."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from libs.common.errors import ConflictError, NotFoundError
from services.cart import domain
from services.cart.domain import Cart, CartState

NOW = datetime(2026, 11, 1, tzinfo=UTC)
GUEST, SHOPPER, STRANGER = (uuid4() for _ in range(3))


def cart() -> Cart:
    return domain.create(uuid4(), uuid4(), GUEST, "GBP", NOW)


def test_the_guests_cart_becomes_the_shoppers_and_stays_so_however_often_it_is_claimed() -> None:
    claimed = domain.claim(cart(), SHOPPER, GUEST)
    assert claimed.subject_id == SHOPPER
    assert domain.claim(claimed, SHOPPER, GUEST) is claimed
    assert domain.claim(claimed, SHOPPER, None) is claimed


def test_what_is_anybody_elses_or_not_there_is_absent_also_to_its_former_owner() -> None:
    claimed = domain.claim(cart(), SHOPPER, GUEST)
    for found, claimer, former in (
        (cart(), STRANGER, None),
        (cart(), STRANGER, SHOPPER),
        (None, SHOPPER, GUEST),
        (claimed, GUEST, None),
    ):
        with pytest.raises(NotFoundError, match="cart-not-found"):
            domain.claim(found, claimer, former)


@pytest.mark.parametrize("state", [state for state in CartState if state is not CartState.OPEN])
def test_a_cart_that_cannot_change_is_not_claimed(state: CartState) -> None:
    with pytest.raises(ConflictError, match="cart-not-open"):
        domain.claim(replace(cart(), state=state), SHOPPER, GUEST)
