"""Who is calling, and what they may: access tokens verified here, in every service, by nobody else's word.

ES256 `at+jwt` (RFC 9068) alone. What a token may is its scope: identity decided it when it issued the token, of what was asked
for, the client's scopes and the member's roles. A route asks for one permission and looks there. What a kind of caller can
never do is held here besides, whatever a scope says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt

from libs.common import clock
from libs.common.clock import PLATFORM
from libs.common.errors import DeniedError, UnauthenticatedError, UnavailableError
from libs.common.jwk import ALGORITHM
from libs.common.keys import Keys
from libs.common.revocations import Issued, Revocations, mark

TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type, not a secret
LEEWAY_SECONDS = 5
MAX_LIFETIME_SECONDS = 900
CACHED_TOKENS = 20_000
KNOWN_HEADERS = 100

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
        "drops:manage",
        "promotions:write",
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
        "exports:read",
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
MEMBER = "member"
"""Somebody of a tenant's staff. The names of their roles stand behind it, for people to read."""
PLATFORM_OPERATOR = "platform-operator"
PLATFORM_READER = "platform-reader"
"""A platform operator who looks at what one tenant did, and has a token for that tenant alone."""
ROLES: Mapping[str, frozenset[str]] = {
    SHOPPER: frozenset(
        ["carts:read", "carts:write", "products:read", "checkouts:read", "checkouts:write", "orders:read", "payments:read"]
    ),
    CLIENT: PERMISSIONS - PLATFORM_PERMISSIONS,
    MEMBER: PERMISSIONS - PLATFORM_PERMISSIONS,
    PLATFORM_OPERATOR: frozenset(["tenants:manage", "clients:manage", "audit:read", "ops:read", "ops:repair"]),
    PLATFORM_READER: frozenset(["checkouts:read", "orders:read", "stock:read", "payments:read", "ledger:read"]),
}
"""The kinds of callers, and what each may at most. A token's scope says what it may of that; other roles say nothing here.

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
    former_subject: UUID | None = None
    """The guest that a shopper was until they were known: what was the guest's is theirs to claim."""

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
        """Raise DeniedError unless the token may, and, `of_platform`, this is one of its operators."""
        if of_platform and not self.is_platform_operator:
            raise DeniedError("platform-only", "this is for operators of the platform")
        if permission not in self.permissions:
            raise DeniedError("permission-missing", f"this needs the permission {permission}", permission=permission)


class InvalidTokenError(UnauthenticatedError):
    """A token that is not believed, and why, in one of few words."""

    def __init__(self, reason: str, why: str, *, of: Principal | None = None) -> None:
        """`of`: whom it was issued to, if it is genuine."""
        super().__init__("invalid-token", f"the access token is refused: {why}")
        self.reason = reason
        self.of = of


REASONS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.InvalidSignatureError: "bad-signature",
    jwt.InvalidIssuerError: "other-issuer",
    jwt.InvalidAudienceError: "other-audience",
}
"""The words for what the library finds; anything else is `malformed`."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token came to: nothing in it changes its mind, but its end, its key's and what is revoked are looked at again."""

    principal: Principal
    expires_at: float
    kid: str
    issued: Issued


class _Judge(jwt.PyJWT):
    """What a token says of its time is held to the time that everything goes by here, and not to this machine's."""

    def _validate_iat(self, payload: dict[str, Any], now: float, leeway: float) -> None:  # noqa: ARG002
        super()._validate_iat(payload, clock.now().timestamp(), leeway)

    def _validate_nbf(self, payload: dict[str, Any], now: float, leeway: float) -> None:  # noqa: ARG002
        super()._validate_nbf(payload, clock.now().timestamp(), leeway)

    def _validate_exp(self, payload: dict[str, Any], now: float, leeway: float) -> None:  # noqa: ARG002
        super()._validate_exp(payload, clock.now().timestamp(), leeway)


JUDGE = _Judge()


class Verifier:
    """Turns a bearer token into a principal of this service, or refuses it."""

    def __init__(self, keys: Keys, revocations: Revocations, *, issuer: str, audience: str | None) -> None:
        """`audience` None: whomever a token is for, which is nobody's question but the issuer's."""
        self.keys = keys
        self.revocations = revocations
        self._issuer = issuer
        self._audience = audience
        self._seen: dict[str, Verified] = {}
        """Tokens that verified."""
        self._headers: dict[str, str] = {}
        """Headers of tokens that verified, with their key ids: all tokens of one key have the same."""

    async def verify(self, token: str) -> Principal:
        """Check everything a token says. Raises UnauthenticatedError with what is wrong."""
        seen = self._seen.get(token)
        if seen is None or clock.now().timestamp() >= seen.expires_at or seen.kid not in self.keys:
            seen = await self._check(token)
            if len(self._seen) >= CACHED_TOKENS:
                self._seen.clear()
            self._seen[token] = seen
        if self.revocations.refuse(seen.issued):
            raise InvalidTokenError("revoked", "it was revoked; get a new one, if you may", of=seen.principal)
        return seen.principal

    async def _check(self, token: str) -> Verified:
        try:
            header = token.partition(".")[0]
            kid = self._headers.get(header) or _kid(token)
            key = await self.keys.get(kid)
            if key is None:
                if not self.keys:
                    raise UnavailableError("keys-unavailable", "no signing key is known yet; try again shortly", retry_after=1)
                raise InvalidTokenError("unknown-key", "nobody knows its key")
            claims = JUDGE.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["iss", "aud", "exp", "iat", "sub", "client_id", "jti"],
                    "verify_aud": self._audience is not None,
                },
            )
            if claims["exp"] - claims["iat"] > MAX_LIFETIME_SECONDS:
                raise InvalidTokenError("too-long", "it lives too long")
            verified = Verified(_principal(claims), float(claims["exp"]), kid, _issued(claims))
        except jwt.ExpiredSignatureError as error:
            raise InvalidTokenError("expired", "it has expired; get a new one") from error
        except (jwt.InvalidTokenError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidTokenError(REASONS.get(type(error), "malformed"), str(error)) from error
        if len(self._headers) >= KNOWN_HEADERS:
            self._headers.clear()
        self._headers[header] = kid
        self.revocations.demand_known(verified.issued)
        return verified


def _kid(token: str) -> str:
    """The key id of what says that it is an access token."""
    header = jwt.get_unverified_header(token)
    if str(header.get("typ")).lower() != TOKEN_TYPE or header.get("alg") != ALGORITHM or "crit" in header:
        raise InvalidTokenError("not-an-access-token", "it is not an ES256 access token (typ at+jwt)")
    return str(header.get("kid"))


def _issued(claims: Mapping[str, Any]) -> Issued:
    """When, to the millisecond if it says so (`iat` counts seconds), and to whom. What has no session is one of its own."""
    at_ms = claims.get("iat_ms", claims["iat"] * 1_000)
    if not isinstance(at_ms, int | float):
        raise InvalidTokenError("malformed", "iat_ms is no number")
    session = claims.get("sid", claims["jti"])
    named = {"tenant": claims.get("tid"), "subject": claims["sub"], "session": session, "client": claims["client_id"]}
    return Issued(int(at_ms), tuple(mark(kind, name) for kind, name in named.items() if name is not None))


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
        former_subject=UUID(claims["former_sub"]) if "former_sub" in claims else None,
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
