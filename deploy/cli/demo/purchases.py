"""The demo's shop: eight products, and ten baskets bought at the same time by four customers and two guests."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from deploy.cli.api import Observed
from deploy.cli.shop import Shop
from deploy.cli.supply import Offer

CURRENCY: Final = "GBP"
_VISA: Final = "pm_card_visa"
_DECLINED_CARD: Final = "pm_card_chargeDeclined"
_WAIT_SECONDS: Final = 10
_PATIENCE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Basket:
    """What somebody buys in one go."""

    shopper: str
    quantities: dict[str, int]
    card: str = _VISA


@dataclass(slots=True)
class Purchase:
    """A basket that was bought: its checkout as it ended, and the requests that took."""

    checkout: dict[str, Any]
    requests: list[Observed] = field(default_factory=list)

    @property
    def is_confirmed(self) -> bool:
        """Whether it became an order."""
        return bool(self.checkout["state"] == "confirmed")

    @property
    def is_declined(self) -> bool:
        """Whether the issuer said no."""
        return self.checkout.get("reason") == "payment-declined"


_PRODUCTS: Final = (
    ("TEA-EARL-GREY", "Earl Grey, 100 g", "tea", 675),
    ("TEA-SENCHA", "Sencha, 100 g", "tea", 890),
    ("CUP-PORCELAIN", "Porcelain cup", "tableware", 1250),
    ("POT-CAST-IRON", "Cast-iron pot", "tableware", 5900),
    ("SPOON-BRASS", "Brass spoon", "tableware", 450),
    ("BISCUITS-GINGER", "Ginger biscuits", "food", 325),
    ("HONEY-HEATHER", "Heather honey", "food", 780),
    ("GIFT-BOX", "Gift box", "wrapping", 299),
)

BASKETS: Final = (
    Basket("ada", {"TEA-EARL-GREY": 2, "CUP-PORCELAIN": 4, "SPOON-BRASS": 4}),
    Basket("ada", {"BISCUITS-GINGER": 6}),
    Basket("ben", {"POT-CAST-IRON": 1, "TEA-SENCHA": 3}),
    Basket("ben", {"HONEY-HEATHER": 1, "GIFT-BOX": 1}),
    Basket("cleo", {"TEA-SENCHA": 1, "CUP-PORCELAIN": 2}),
    Basket("cleo", {"POT-CAST-IRON": 2}, _DECLINED_CARD),
    Basket("dora", {"GIFT-BOX": 25, "BISCUITS-GINGER": 25}),
    Basket("dora", {"TEA-EARL-GREY": 1}),
    Basket("", {"SPOON-BRASS": 12}),
    Basket("", {"HONEY-HEATHER": 3, "TEA-EARL-GREY": 1, "GIFT-BOX": 1}),
)
"""No name is a guest."""


def offers() -> list[Offer]:
    """Return the products, and how many of each the baskets take."""
    wanted: Counter[str] = Counter()
    for basket in BASKETS:
        wanted.update(basket.quantities)
    return [Offer(sku, name, category, unit_minor, wanted[sku]) for sku, name, category, unit_minor in _PRODUCTS]


async def buy_all(shop: Shop, say: Callable[[str], None]) -> list[Purchase]:
    """Buy every basket at the same time."""
    purchases = await asyncio.gather(*(_buy(shop, basket) for basket in BASKETS))
    say(f"{len(purchases)} baskets bought at the same time")
    return purchases


async def _buy(shop: Shop, basket: Basket) -> Purchase:
    requests: list[Observed] = []
    ref = f"customer:{basket.shopper}" if basket.shopper else f"guest:{uuid4()}"
    shopper = shop.shopper(ref, guest=not basket.shopper, api=shop.api.observed_by(requests.append))
    cart_id = await shopper.new_cart()
    for sku, quantity in basket.quantities.items():
        await shopper.put_line(cart_id, sku, quantity)
    checkout = await shopper.check_out(cart_id, key=str(uuid4()), method=basket.card, wait_seconds=_WAIT_SECONDS)
    checkout = await shopper.outcome(checkout, patience_seconds=_PATIENCE_SECONDS)
    return Purchase(checkout, requests)
