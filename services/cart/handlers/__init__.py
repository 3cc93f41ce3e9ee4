"""Which command or event goes to which decision, and what is loaded for it."""

from services.cart.handlers import carts, catalogue, freezing, promotions
from services.cart.handlers.carts import (
    AddQuantity,
    ClaimCart,
    CreateCart,
    PutCoupon,
    PutLines,
    RemoveCoupon,
    RemoveLines,
    Written,
)
from services.cart.handlers.promotions import PutPromotion, RemovePromotion
from services.cart.handlers.table import HANDLERS

__all__ = [
    "HANDLERS",
    "AddQuantity",
    "ClaimCart",
    "CreateCart",
    "PutCoupon",
    "PutLines",
    "PutPromotion",
    "RemoveCoupon",
    "RemoveLines",
    "RemovePromotion",
    "Written",
    "carts",
    "catalogue",
    "freezing",
    "promotions",
]
