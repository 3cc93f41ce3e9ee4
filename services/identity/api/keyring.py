"""The keys of one API process: read from the database, by which all of them agree on which one signs; and kept up.

Each process looks every two seconds and does what is due, and the database lets one of them do it (ADR 0033). What nobody
has read for a minute is not signed with: so it is known when the last token of a retired key was made.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from libs.common.certificates import RootKey
from libs.common.clock import PLATFORM, now
from libs.common.database import PASSING, TRANSIENT
from libs.common.decision import Message
from libs.common.errors import CartwrightError, ConflictError, UnavailableError
from libs.common.keys import Keys
from libs.common.messaging.shell import Shell
from libs.common.sealing import SealError
from libs.common.settings import SettingsError
from services.identity import handlers, repository
from services.identity.api.seals import Seals
from services.identity.api.tokens import RefreshTokens, TokenMint, jwk_of
from services.identity.domain import signing_key
from services.identity.domain.service_secret import REFRESH_TOKENS
from services.identity.domain.signing_key import KeyState, SigningKey

REREAD_SECONDS = 2.0
"""How soon this process signs with a key that another made active."""
STALE_SECONDS = 60.0
"""How long it signs with what it knows while it cannot read."""
LONGEST_CACHED_SECONDS = 300

Said = Callable[[Any], Message[Any]]
"""Makes a message of a command, which tells who said so."""

NOT_READ: tuple[type[BaseException], ...] = (CartwrightError, SealError, OSError, TimeoutError, *TRANSIENT, *PASSING)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """For how long a key is published before it signs, and how long it signs."""

    lead: timedelta
    period: timedelta


class KeyRing:
    """What this process signs with, and what it says of all keys."""

    def __init__(
        self,
        shell: Shell,
        keys: Keys,
        root: RootKey,
        seals: Seals,
        terms: Terms,
        *,
        issuer: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.secret: bytes
        """What this service derives tokens with that must outlive the master key; there once it is started."""
        self.refresh_tokens: RefreshTokens
        self._shell = shell
        self._keys = keys
        self._root = root
        self._seals = seals
        self._terms = terms
        self._issuer = issuer
        self._clock = clock
        self._stored: Sequence[SigningKey] = ()
        self._mint: TokenMint | None = None
        self._jwks: list[dict[str, str]] = []
        self._certificates: dict[str, str] = {}
        """By key: made when they are first told."""
        self._asked_at = self._known_at = float("-inf")

    async def start(self) -> None:
        """Have keys to sign with, making the first if there are none."""
        try:
            await self._read()
            if self._mint is None:
                await self._unless_done(self._add(KeyState.ACTIVE, timedelta()))
                await self._read()
            self.secret = await self._kept_secret()
            self.refresh_tokens = RefreshTokens(self.secret)
        except SealError as error:
            message = "CARTWRIGHT_MASTER_KEY is not the key that the signing keys in this database were sealed with"
            raise SettingsError(message) from error
        await self.keep_up()

    async def keep(self) -> None:
        """Read, and do what is due, for ever."""
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            try:
                await self._read()
                await self.keep_up()
            except (*NOT_READ, asyncpg.PostgresError) as error:
                log.warning("signing_keys.not_kept", error=str(error), action="going on with the known keys; trying again")
            except Exception:
                # Whatever it is, a process that keeps its keys no more would never sign with another.
                log.exception("signing_keys.not_kept", action="going on with the known keys; tell us of it")

    async def keep_up(self) -> None:
        """Publish the next key if there is none, sign with it if it is time, and end what is over."""
        at = now()
        if signing_key.in_state(self._stored, KeyState.NEXT) is None:
            await self._unless_done(self._add(KeyState.NEXT, self._terms.lead))
        elif signing_key.is_due(self._stored, at, self._terms.period):
            await self._unless_done(self.rotate())
        over = signing_key.over(self._stored, at)
        for key in over:
            await self._execute(handlers.signing_keys.EndSigningKey(kid=key.kid, root=self._root))
        if over:
            await self._read()

    async def rotate(self, said: Said | None = None) -> tuple[str, str]:
        """Sign with the next key, of this process's own accord unless somebody said so.

        Answers which signed before, and which does now. Raises ConflictError if it is too new.
        """
        active, following = await self._standing()
        signing_key.demand_known(following, now())
        command = handlers.signing_keys.RotateSigningKey(
            active_kid=active.kid,
            next_kid=following.kid,
            following=self._new(),
            known_at=now() + self._terms.lead,
            root=self._root,
        )
        await self._execute(command, said)
        await self._read()
        log.info("signing_key.rotated", kid=following.kid, before=active.kid)
        return active.kid, following.kid

    async def revoke(self, kid: str, said: Said | None = None) -> None:
        """Believe a key no more, whatever it is for. Raises NotFoundError; ConflictError when that has been done."""
        _, following = await self._standing()
        signing_key.find(self._stored, kid)
        command = handlers.signing_keys.RevokeSigningKey(
            kid=kid, next_kid=following.kid, following=self._new(), known_at=now() + self._terms.lead, root=self._root
        )
        await self._execute(command, said)
        await self._read()
        log.warning("signing_key.revoked", kid=kid, action="its tokens are refused; whoever has one asks for another")

    async def reseal(self, said: Said | None = None) -> tuple[int, int]:
        """Seal everything with the master key in force. Answers how much was, and how much could not be opened."""
        async with self._shell.database.transaction([PLATFORM]) as connection:
            keys = await repository.signing_keys(connection)
            secrets = await repository.SERVICE_SECRETS.page(connection, PLATFORM, after=None, limit=100)
        stored: list[tuple[str, bytes, Any]] = [
            *((key.kid, key.sealed_private_key, handlers.signing_keys.ResealSigningKey) for key in keys),
            *((secret.name, secret.sealed, handlers.signing_keys.ResealSecret) for secret in secrets),
        ]
        resealed = failed = 0
        for name, was, command in stored:
            try:
                anew = self._seals.resealed(was, name) if was else None
            except SealError as error:
                failed += 1
                log.error("secret.not_resealed", name=name, error=str(error), action="give the master key it was sealed with")  # noqa: TRY400 - no traceback tells more
                continue
            if anew is not None:
                await self._execute(command(name, was, anew), said)
                resealed += 1
        return resealed, failed

    async def known(self) -> Sequence[SigningKey]:
        """Every key there ever was, the oldest first."""
        await self._read()
        return self._stored

    async def mint(self) -> TokenMint:
        """What signs at this moment. Raises UnavailableError when nobody can say what does."""
        mint = self._mint
        age = self._clock() - self._known_at
        if age > 2 * REREAD_SECONDS or mint is None or mint.kid not in self._keys:
            await self._refresh()
            mint, age = self._mint, self._clock() - self._known_at
        if mint is None or mint.kid not in self._keys or age > STALE_SECONDS:
            raise UnavailableError("keys-unavailable", "it cannot be told which key signs; try again shortly", retry_after=1)
        return mint

    async def jwks(self) -> list[dict[str, str]]:
        """Every public key that a token may be checked with, and the root key's word for it."""
        await self._refresh()
        return self._jwks

    @property
    def cached_seconds(self) -> int:
        """How long others may go without asking for the keys, and still know the next one before it signs."""
        return min(LONGEST_CACHED_SECONDS, int(self._terms.lead.total_seconds()) // 2)

    async def _refresh(self) -> None:
        """Read the keys unless somebody asked for that a moment ago. Failing leaves those we have."""
        if self._clock() - self._asked_at < REREAD_SECONDS:
            return
        try:
            await self._read()
        except NOT_READ as error:
            log.warning("signing_keys.not_read", error=str(error), action="going on with the known keys")

    async def _read(self) -> None:
        self._asked_at = begun = self._clock()
        async with self._shell.database.transaction([PLATFORM]) as connection:
            stored = await repository.signing_keys(connection)
        if begun < self._known_at:
            return  # who began later was faster: what is revoked meanwhile must not sign again
        self._activate(stored)
        alive = [key for key in stored if key.state is not KeyState.REVOKED]
        self._jwks = [{**key.jwk, "certificate": self._certified(key.jwk)} for key in alive]
        for jwk in self._jwks:
            self._keys.learn(jwk, jwk["certificate"])
        for key in stored:
            if key.state is KeyState.REVOKED and key.kid in self._keys:
                self._keys.forget(key.kid, self._root.revoke(key.kid, now()))
        self._stored, self._known_at = stored, begun

    def _activate(self, stored: Sequence[SigningKey]) -> None:
        active = signing_key.in_state(stored, KeyState.ACTIVE)
        if active is not None and (self._mint is None or self._mint.kid != active.kid):
            self._mint = TokenMint(self._issuer, active.kid, self._seals.open_key(active.sealed_private_key, active.kid))

    async def _standing(self) -> tuple[SigningKey, SigningKey]:
        """The key that signs and the one that will, as the database has them."""
        await self._read()
        active, following = (signing_key.in_state(self._stored, state) for state in (KeyState.ACTIVE, KeyState.NEXT))
        if active is None or following is None:
            raise UnavailableError("keys-unavailable", "there is no next key yet; try again shortly", retry_after=1)
        return active, following

    def _certified(self, jwk: dict[str, str]) -> str:
        kid = jwk["kid"]
        if kid not in self._certificates:
            self._certificates[kid] = self._root.certify(jwk, now())
        return self._certificates[kid]

    def _new(self) -> handlers.signing_keys.NewKey:
        private_key = ec.generate_private_key(ec.SECP256R1())
        jwk = jwk_of(private_key)
        return handlers.signing_keys.NewKey(jwk["kid"], jwk, self._seals.seal_key(private_key, jwk["kid"]))

    async def _add(self, state: KeyState, lead: timedelta) -> None:
        new = self._new()
        await self._execute(handlers.signing_keys.AddSigningKey(key=new, state=state, not_before=now() + lead, root=self._root))
        await self._read()
        log.info("signing_key.made", kid=new.kid, state=str(state))

    async def _unless_done(self, work: Any) -> None:
        """What all processes try, and one does."""
        try:
            await work
        except ConflictError as error:
            log.info("signing_keys.done_elsewhere", reason=error.code)
            await self._read()

    async def _kept_secret(self) -> bytes:
        """What refresh tokens are derived with: stored, so that it outlives the master key it was once derived of."""
        sealed = self._seals.seal(RefreshTokens.first_secret(self._seals.oldest), REFRESH_TOKENS)
        kept = await self._execute(handlers.signing_keys.KeepSecret(name=REFRESH_TOKENS, sealed=sealed))
        return self._seals.open(kept.sealed, REFRESH_TOKENS)

    async def _execute(self, command: Any, said: Said | None = None) -> Any:
        return await self._shell.execute(said(command) if said else self._shell.command(command, PLATFORM, actor=""))
