"""Secrets of this service's own, which no tenant has and nobody is told. They are here only sealed."""

from dataclasses import dataclass
from typing import ClassVar

from libs.common.decision import Aggregate

REFRESH_TOKENS = "refresh-tokens"
"""What refresh tokens are derived with. It stays when the master key changes, and so do everybody's sessions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSecret(Aggregate):
    """One secret, sealed with the master key and bound to its name."""

    KEY: ClassVar[str] = "name"
    name: str
    sealed: bytes
