"""The services. This is the one list of them."""

from typing import Final

SERVICES: Final = ("identity", "cart", "checkout", "payments")
"""In the order of their ports."""
