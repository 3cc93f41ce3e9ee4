"""Who buys a cart: of one cart and one subject there is one checkout that is not over."""

from dataclasses import dataclass
from uuid import UUID, uuid5

from libs.common.decision import Aggregate


@dataclass(frozen=True, kw_only=True, slots=True)
class CartClaim(Aggregate):
    """Which checkout has one subject's claim on one cart: the lock that makes two checkouts of a cart one."""

    id: UUID
    checkout_id: UUID


def claim_id(cart_id: UUID, subject_id: UUID) -> UUID:
    """A subject's claim on a cart. Somebody else's claim on the same cart is another, and will find no cart."""
    return uuid5(cart_id, str(subject_id))
