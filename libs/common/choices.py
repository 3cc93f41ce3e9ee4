"""What tenants have chosen that every process which answers customers goes by: how much one may ask, and which pages may.

From `tenant.v1`, as each process follows it. Nearly all have chosen nothing of it, and nothing is kept of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

ORIGIN = re.compile(r"https://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?|http://(?:localhost|127\.0\.0\.1)(?::\d{1,5})?")
"""Where a page may come from: a host over TLS, or for trials this machine. Never `*`, and no path."""
MOST_ORIGINS = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a tenant lets be asked for in its shop, a second and of one process. None: what the platform allows."""

    subject_per_second: int | None = None
    checkouts_per_minute: int | None = None
    """Of one shopper."""
    tenant_per_second: int | None = None


NO_LIMITS = Limits()
NAMES = tuple(each.name for each in fields(Limits))


class Choices:
    """Of two words of one tenant the later counts, whenever it is heard."""

    def __init__(self) -> None:
        self._versions: dict[UUID, int] = {}
        self._limits: dict[UUID, Limits] = {}
        self._origins: dict[UUID, frozenset[str]] = {}
        self._named: dict[str, int] = {}
        """How many tenants name an origin."""

    def learn(self, tenant_id: UUID, version: int, settings: Mapping[str, Any], *, is_open: bool) -> None:
        """Take one state of a tenant, unless a later one is known. One that is not open lets no page in."""
        if version < self._versions.get(tenant_id, 0):
            return
        self._versions[tenant_id] = version
        limits = _limits(settings.get("limits"))
        self._limits.pop(tenant_id, None)
        if limits != NO_LIMITS:
            self._limits[tenant_id] = limits
        self._name(tenant_id, _origins(settings.get("allowed_origins")) if is_open else frozenset())

    def limits(self, tenant_id: UUID) -> Limits:
        """How much is let be asked for in this tenant's shop."""
        return self._limits.get(tenant_id, NO_LIMITS)

    def lets_in(self, tenant_id: UUID, origin: str) -> bool:
        """Whether this tenant's shop has pages there."""
        return origin in self._origins.get(tenant_id, ())

    def is_anybodys(self, origin: str) -> bool:
        """Whether any tenant's shop has. A browser asks this before it sends a token, so nobody knows yet whose it is."""
        return origin in self._named

    def _name(self, tenant_id: UUID, origins: frozenset[str]) -> None:
        for origin in self._origins.pop(tenant_id, frozenset()):
            self._named[origin] -= 1
            if not self._named[origin]:
                del self._named[origin]
        if origins:
            self._origins[tenant_id] = origins
        for origin in origins:
            self._named[origin] = self._named.get(origin, 0) + 1


def _limits(chosen: Any) -> Limits:
    """What can be read of it: what cannot is as if it had not been chosen."""
    found = chosen if isinstance(chosen, Mapping) else {}
    return Limits(**{name: found[name] for name in NAMES if isinstance(found.get(name), int) and found[name] > 0})


def _origins(chosen: Any) -> frozenset[str]:
    found = chosen if isinstance(chosen, list) else []
    return frozenset(each for each in found[:MOST_ORIGINS] if isinstance(each, str) and ORIGIN.fullmatch(each))
