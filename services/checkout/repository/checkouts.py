"""Tenants, checkouts and claims on carts."""

from libs.common.database import Rows
from libs.common.tenancy import Tenant
from services.checkout import tables
from services.checkout.domain.saga import CartClaim, Checkout
from services.checkout.domain.stray import StrayMoney

TENANTS = Rows(tables.TENANT, Tenant)
CLAIMS = Rows(tables.CART_CLAIM, CartClaim)
CHECKOUTS = Rows(tables.CHECKOUT, Checkout)
STRAYS = Rows(tables.STRAY_MONEY, StrayMoney)
