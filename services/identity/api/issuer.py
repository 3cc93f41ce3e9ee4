"""The issuer of this process: grants as tokens, signed with the key that the database says."""

from pydantic import BaseModel

from libs.common.clock import new_id, now
from services.identity.api.keyring import KeyRing
from services.identity.api.raised import Raised
from services.identity.api.tokens import RefreshToken, RefreshTokens
from services.identity.domain.access import LIFETIME, Grant


class TokenAnswer(BaseModel):
    """What the token endpoint (RFC 6749 §5.1) and a new session answer."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a type, not a secret
    expires_in: int = int(LIFETIME.total_seconds())
    scope: str | None = None
    refresh_token: str | None = None
    subject_id: str | None = None


class Issuer:
    """Signs what this service grants. `address` is the `iss` of its tokens."""

    def __init__(self, ring: KeyRing, raised: Raised, *, address: str) -> None:
        self.address = address
        self.ring = ring
        self.raised = raised

    @property
    def refresh_tokens(self) -> RefreshTokens:
        """What makes shoppers' refresh tokens, and knows them again."""
        return self.ring.refresh_tokens

    async def answer(
        self,
        grant: Grant,
        *,
        scope: str | None = None,
        refresh_token: RefreshToken | None = None,
        subject_id: str | None = None,
        known_ms: int | None = None,
    ) -> TokenAnswer:
        """A new access token with what goes along with it.

        `known_ms` is the epoch that was known when it was read what may be granted: what was taken away since ends this token.
        """
        mint, at = await self.ring.mint(), now()
        after_ms = self.raised.above(grant, at)
        return TokenAnswer(
            access_token=mint.mint(grant, new_id(), at, after_ms=after_ms if known_ms is None else min(after_ms, known_ms)),
            scope=scope,
            refresh_token=refresh_token.text if refresh_token else None,
            subject_id=subject_id,
        )
