"""Who is calling, and what they may: access tokens verified here, in every service, by nobody else's word.

ES256 `at+jwt` (RFC 9068) alone. Two gates: the token's scope and the role's permissions must both allow a route.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt

from libs.common.clock import PLATFORM
from libs.common.errors import DeniedError, UnauthenticatedError, UnavailableError
from libs.common.jwk import ALGORITHM
from libs.common.keys import Keys

TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type, not a secret
LEEWAY_SECONDS = 5
MAX_LIFETIME_SECONDS = 900
CACHED_TOKENS = 20_000

PERMISSIONS = frozenset(
    [
        "carts:read",
        "carts:write",
        "products:read",
        "checkouts:read",
        "checkouts:write",
        "orders:read",
        "orders:write",
        "orders:refund",
        "stock:read",
        "payments:read",
        "payments:capture",
        "payments:void",
        "payments:resolve",
        "refunds:write",
        "disputes:read",
        "ledger:read",
        "provider-accounts:write",
        "settings:read",
        "settings:write",
        "webhooks:write",
        "sessions:issue",
        "members:manage",
        "roles:manage",
        "clients:manage",
        "audit:read",
        "parked:read",
        "parked:repair",
        "tenants:manage",
        "ops:read",
        "ops:repair",
    ]
)
PLATFORM_PERMISSIONS = frozenset(["tenants:manage", "ops:read", "ops:repair"])
"""What no tenant's client may ever do, whatever its row or its token says."""
SHOPPER = "shopper"
GUEST = "guest"
"""Beside `shopper`, of somebody whom the tenant does not know. It allows nothing by itself."""
CLIENT = "client"
PLATFORM_OPERATOR = "platform-operator"
ROLES: Mapping[str, frozenset[str]] = {
    SHOPPER: frozenset(
        ["carts:read", "carts:write", "products:read", "checkouts:read", "checkouts:write", "orders:read", "payments:read"]
    ),
    CLIENT: PERMISSIONS - PLATFORM_PERMISSIONS,
    PLATFORM_OPERATOR: frozenset(["tenants:manage", "clients:manage", "audit:read", "ops:read", "ops:repair"]),
}
"""The built-in roles. A token's scope narrows what its roles allow, never widens it.

A platform operator has no tenant, and whoever has one is none: a role that does not go with the token's tenant allows nothing.
"""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever a valid token speaks for."""

    subject: UUID
    client_id: str
    tenant_id: UUID
    """The nil UUID for platform operators, who have no tenant."""
    permissions: frozenset[str]
    roles: tuple[str, ...]
    session_id: str = ""
    """The session that its token is of; empty for a machine's."""

    @property
    def is_shopper(self) -> bool:
        """Shoppers see what is theirs; everybody else what is their tenant's."""
        return SHOPPER in self.roles

    @property
    def is_guest(self) -> bool:
        """A shopper whom nobody knows, and who may come again as another at any time."""
        return GUEST in self.roles

    @property
    def is_platform_operator(self) -> bool:
        """Whether this is an operator of the platform, who has no tenant."""
        return self.tenant_id == PLATFORM and PLATFORM_OPERATOR in self.roles

    def demand(self, permission: str, *, of_platform: bool = False) -> None:
        """Raise DeniedError unless both gates let this through, and, `of_platform`, this is one of its operators."""
        if of_platform and not self.is_platform_operator:
            raise DeniedError("platform-only", "this is for operators of the platform")
        if permission not in self.permissions:
            raise DeniedError("permission-missing", f"this needs the permission {permission}", permission=permission)


class InvalidTokenError(UnauthenticatedError):
    """A token that is not believed, and why, in one of few words."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__("invalid-token", f"the access token is refused: {why}")
        self.reason = reason


REASONS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.InvalidSignatureError: "bad-signature",
    jwt.InvalidIssuerError: "other-issuer",
    jwt.InvalidAudienceError: "other-audience",
}
"""The words for what the library finds; anything else is `malformed`."""


class Verifier:
    """Turns a bearer token into a principal of this service, or refuses it."""

    def __init__(self, keys: Keys, *, issuer: str, audience: str) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._seen: dict[str, tuple[float, str, Principal]] = {}
        """Tokens that verified, until they end or their key is forgotten: a signature does not change its mind."""

    async def verify(self, token: str) -> Principal:
        """Check everything a token says. Raises UnauthenticatedError with what is wrong."""
        seen = self._seen.get(token)
        if seen is not None and time.time() < seen[0] and seen[1] in self.keys:
            return seen[2]
        principal, expires_at, kid = await self._check(token)
        if len(self._seen) >= CACHED_TOKENS:
            self._seen.clear()
        self._seen[token] = (expires_at, kid, principal)
        return principal

    async def _check(self, token: str) -> tuple[Principal, float, str]:
        try:
            header = jwt.get_unverified_header(token)
            if str(header.get("typ")).lower() != TOKEN_TYPE or header.get("alg") != ALGORITHM or "crit" in header:
                raise InvalidTokenError("not-an-access-token", "it is not an ES256 access token (typ at+jwt)")
            kid = str(header.get("kid"))
            key = await self.keys.get(kid)
            if key is None:
                if not self.keys:
                    raise UnavailableError("keys-unavailable", "no signing key is known yet; try again shortly", retry_after=1)
                raise InvalidTokenError("unknown-key", "nobody knows its key")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "iat", "sub", "client_id", "jti"]},
            )
            if claims["exp"] - claims["iat"] > MAX_LIFETIME_SECONDS:
                raise InvalidTokenError("too-long", "it lives too long")
            return _principal(claims), float(claims["exp"]), kid
        except jwt.ExpiredSignatureError as error:
            raise InvalidTokenError("expired", "it has expired; get a new one") from error
        except (jwt.InvalidTokenError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidTokenError(REASONS.get(type(error), "malformed"), str(error)) from error


def _principal(claims: Mapping[str, Any]) -> Principal:
    tenant_id = UUID(claims["tid"]) if "tid" in claims else PLATFORM
    if "tid" in claims and tenant_id == PLATFORM:
        raise InvalidTokenError("no-tenant", "it names a tenant that is none")
    roles = tuple(role for role in claims.get("roles", ()) if (role == PLATFORM_OPERATOR) == (tenant_id == PLATFORM))
    allowed: frozenset[str] = frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))
    return Principal(
        subject=UUID(claims["sub"]),
        client_id=str(claims["client_id"]),
        tenant_id=tenant_id,
        permissions=allowed & frozenset(str(claims.get("scope", "")).split()),
        roles=roles,
        session_id=str(claims.get("sid", "")),
    )


def bearer(authorization: str | None) -> str:
    """The token of an `Authorization` header."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthenticatedError("token-missing", "send `Authorization: Bearer <access token>`")
    return token.strip()


def scope_of(permissions: Iterable[str]) -> str:
    """Permissions as a `scope` claim."""
    return " ".join(sorted(permissions))
