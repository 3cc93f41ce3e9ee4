"""Connections: how a tenant proves that an account, which the platform's key acts for, is its own."""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

LIFETIME: Final = timedelta(minutes=10)
"""For so long the provider's page may be answered."""


def new_state() -> str:
    """What only who began a connection knows, and the provider hands back to them."""
    return secrets.token_urlsafe(32)


def digest_of(state: str) -> bytes:
    """What is kept of it: whoever reads the table can complete nothing."""
    return hashlib.sha256(state.encode()).digest()
