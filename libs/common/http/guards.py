"""What a route demands of its caller, declared beside it: a permission, a sight of its object, and when it is done at all."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from fastapi import Response

from libs.common.auth import Principal
from libs.common.clock import PLATFORM
from libs.common.errors import DeniedError

Sees = Callable[[Any], Awaitable[object]]
"""Given the call (`routes.Call`), which is made of a guard among other things."""
F = TypeVar("F", bound=Callable[..., Awaitable[Response]])


class Facing(Enum):
    """Whom a route is there for."""

    CUSTOMERS = "customers"
    """It is reached through the gateway."""
    OPERATORS = "operators"
    """It is not: it lies at the operators' door."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a route demands of its caller before anything else happens."""

    permission: str | None
    instead: str | None = None
    """Another permission that will do: one that others hold than those who hold the first."""
    idempotent: bool = False
    sees: Sees | None = None
    """Raises NotFoundError when the object of the path is not for the caller: 404 goes before 422."""
    costly: bool = False
    """Whether it is counted how often it is asked for: by whom, or from where if nobody proves who they are."""
    buys: bool = False
    """Whether it begins a purchase, of which one shopper may begin fewer than of anything else."""
    platform_only: bool = False
    """Whether all but the platform's operators are turned away, whatever their permissions."""
    tenant_only: bool = False
    """Whether the platform's operators are turned away, whatever their permissions: they have none of these."""
    goes_on: bool = False
    """Whether it is done for a tenant that may begin nothing new: it ends what was begun, or takes a right away. Reading is."""
    streams: bool = False
    """Whether its answer is sent as it comes to be, for as long as that takes."""

    def demand_a_tenants(self, caller: Principal) -> None:
        """Raise DeniedError for an operator of the platform where there is nothing of theirs."""
        if self.tenant_only and caller.tenant_id == PLATFORM:
            raise DeniedError("tenant-only", "this is a tenant's, and done by its own")


def guard(
    permission: str,
    *,
    instead: str | None = None,
    idempotent: bool = False,
    sees: Sees | None = None,
    costly: bool = False,
    platform_only: bool = False,
    tenant_only: bool = False,
    goes_on: bool = False,
    streams: bool = False,
    buys: bool = False,
) -> Callable[[F], F]:
    """Declare the permission a route needs, whether it needs an Idempotency-Key, and who sees the object of its path."""
    rule = Guard(permission, instead, idempotent, sees, costly, buys, platform_only, tenant_only, goes_on, streams)
    return _declare(rule)


def public(endpoint: F) -> F:
    """Declare that a route is for anybody: whose tenant it concerns, it finds out by itself."""
    return _declare(Guard(permission=None, goes_on=True))(endpoint)


def for_strangers(endpoint: F) -> F:
    """Declare that a route is for anybody, and that it is counted how often an address asks."""
    return _declare(Guard(permission=None, costly=True, goes_on=True))(endpoint)


def _declare(rule: Guard) -> Callable[[F], F]:
    def declare(endpoint: F) -> F:
        endpoint.guard = rule  # type: ignore[attr-defined]
        return endpoint

    return declare
