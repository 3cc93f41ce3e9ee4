"""The issuer of this process: signs tokens with keys it keeps in memory, and reads again when they may have changed."""

import os
import time
from collections.abc import Sequence

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel

from libs.common.certificates import RootKey
from libs.common.clock import PLATFORM, new_id, now
from libs.common.database import TRANSIENT
from libs.common.errors import CartwrightError, ConflictError, UnavailableError
from libs.common.keys import Keys
from libs.common.messaging.shell import Shell
from libs.common.settings import SettingsError
from services.identity import repository
from services.identity.api.raised import Raised
from services.identity.api.tokens import NONCE_BYTES, RefreshToken, RefreshTokens, TokenMint, jwk_of, seal, unseal
from services.identity.domain.access import LIFETIME, Grant
from services.identity.domain.signing_key import KeyState, SigningKey
from services.identity.handlers import AddSigningKey

REREAD_SECONDS = 30
"""How soon this process signs with a key that another made active."""
JWKS_REREAD_SECONDS = 2
"""Whoever asks for the keys may have met an unknown one, so they are read again; but not for every asker."""

NOT_READ: tuple[type[BaseException], ...] = (CartwrightError, *TRANSIENT)

log = structlog.get_logger(__name__)


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

    def __init__(self, shell: Shell, keys: Keys, raised: Raised, root: RootKey, *, address: str, master_key: bytes) -> None:
        self.address = address
        self.refresh_tokens = RefreshTokens(master_key)
        self._shell = shell
        self._keys = keys
        self._raised = raised
        self._root = root
        self._certificates: dict[str, str] = {}
        """By key: made when they are first told."""
        self._master_key = master_key
        self._mint: TokenMint | None = None
        self._jwks: list[dict[str, str]] = []
        self._read_at = 0.0

    async def start(self) -> None:
        """Have a key to sign with, making the first if there is none."""
        if not await self._read():
            try:
                await self._make_first_key()
            except ConflictError:
                log.info("signing_key.made_elsewhere", action="using the one that another process made first")
            await self._read()

    async def jwks(self) -> list[dict[str, str]]:
        """Every public key that a token may be checked with, and the root key's word for it."""
        await self._refresh(JWKS_REREAD_SECONDS)
        return self._jwks

    async def answer(
        self, grant: Grant, *, scope: str | None = None, refresh_token: RefreshToken | None = None, subject_id: str | None = None
    ) -> TokenAnswer:
        """A new access token with what goes along with it."""
        await self._refresh(REREAD_SECONDS)
        if self._mint is None:
            raise UnavailableError("keys-unavailable", "no signing key is active yet; try again shortly")
        at = now()
        return TokenAnswer(
            access_token=self._mint.mint(grant, new_id(), at, after_ms=self._raised.above(grant, at)),
            scope=scope,
            refresh_token=refresh_token.text if refresh_token else None,
            subject_id=subject_id,
        )

    async def _refresh(self, seconds: float) -> None:
        """Read the keys unless they were read this recently. Failing leaves those we have."""
        if time.monotonic() - self._read_at < seconds:
            return
        try:
            await self._read()
        except NOT_READ as error:
            log.warning("signing_keys.not_read", error=str(error), action="going on with the known keys")

    async def _read(self) -> bool:
        """Read every key; answers whether there is one to sign with."""
        self._read_at = time.monotonic()
        async with self._shell.database.transaction([PLATFORM]) as connection:
            stored = await repository.signing_keys(connection)
        self._jwks = [{**key.jwk, "certificate": self._certified(key.jwk)} for key in stored]
        for jwk in self._jwks:
            self._keys.learn(jwk, jwk["certificate"])
        self._activate(stored)
        return self._mint is not None

    def _certified(self, jwk: dict[str, str]) -> str:
        kid = jwk["kid"]
        if kid not in self._certificates:
            self._certificates[kid] = self._root.certify(jwk, now())
        return self._certificates[kid]

    def _activate(self, stored: Sequence[SigningKey]) -> None:
        active = next((key for key in stored if key.state is KeyState.ACTIVE), None)
        if active is None or (self._mint is not None and self._mint.kid == active.kid):
            return
        try:
            private_key = unseal(active.sealed_private_key, active.kid, self._master_key)
        except InvalidTag as error:
            message = "CARTWRIGHT_MASTER_KEY is not the key that the signing keys in this database were sealed with"
            raise SettingsError(message) from error
        self._mint = TokenMint(self.address, active.kid, private_key)

    async def _make_first_key(self) -> None:
        private_key = ec.generate_private_key(ec.SECP256R1())
        jwk = jwk_of(private_key)
        kid = jwk["kid"]
        sealed = seal(private_key, kid, self._master_key, os.urandom(NONCE_BYTES))
        command = AddSigningKey(kid=kid, jwk=jwk, sealed_private_key=sealed, not_before=now(), certificate=self._certified(jwk))
        await self._shell.execute(self._shell.command(command, PLATFORM, actor=""))
        log.info("signing_key.made", kid=kid)
