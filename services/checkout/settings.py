"""What the checkout service reads from its environment."""

from libs.common.settings import Settings as Common


class Settings(Common):
    """The common settings, and how long a checkout may take."""

    checkout_ttl_seconds: int = 900
    """How long a checkout may take before it is given up."""
    shop_urls: str = ""
    """Where the shop's pages are, with spaces between several, beside the issuer's address: banks may lead buyers back there."""
