"""Tenants, checkouts, claims on carts, and refused cards."""

from datetime import timedelta

from libs.common.database import Connection, Rows
from libs.common.tenancy import Tenant
from services.checkout import tables
from services.checkout.domain.card_testing import Declines
from services.checkout.domain.claim import CartClaim
from services.checkout.domain.saga import Checkout
from services.checkout.domain.stray import StrayMoney

TENANTS = Rows(tables.TENANT, Tenant)
CLAIMS = Rows(tables.CART_CLAIM, CartClaim)
CHECKOUTS = Rows(tables.CHECKOUT, Checkout)
STRAYS = Rows(tables.STRAY_MONEY, StrayMoney)
DECLINES = Rows(tables.DECLINES, Declines)

FORGET = "SELECT declines_forget($1, $2)"


async def forget_declines(connection: Connection, older_than: timedelta, how_many: int) -> int:
    """Forget whose last refused card is longer ago than that, of all tenants; answers how many."""
    return int(await connection.fetchval(FORGET, older_than, how_many))
