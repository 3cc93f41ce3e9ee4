"""What the checkout service reads from its environment."""

from libs.common.settings import Settings as Common
from services.checkout.domain.returning import origins_of


class Settings(Common):
    """The common settings, and how long a checkout may take."""

    checkout_ttl_seconds: int = 900
    """How long a checkout may take before it is given up."""
    shop_urls: str = ""
    """Where the shop's pages are, with spaces between several, beside the issuer's address: banks may lead buyers back there."""

    @property
    def own_origins(self) -> frozenset[str]:
        """Where every tenant has a shop: at the public address, and where else it is said to be."""
        return origins_of((self.issuer, *self.shop_urls.split()))
