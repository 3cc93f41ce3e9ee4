"""The public keys that tokens are checked with: learnt from identity's topic and from its JWKS, each once and for good.

A key is believed with a certificate of the issuer's root key alone, wherever it comes from, and so is its end. Its id is its
thumbprint, so that nobody can put another in its place; what is not believed harms only itself.
"""

import asyncio
import time
import urllib.request
from typing import Any

import jwt
import orjson
import structlog

from libs.common.certificates import Roots, UncertifiedError
from libs.common.jwk import UnusableKeyError, key_of
from libs.common.telemetry import Counter

REFETCH_SECONDS = 5.0
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0)
"""Pauses after fetches that failed one after the other."""
FETCH_SECONDS = 3.0
"""How long a fetch may take, however slowly the answer drips."""
MAX_JWKS_BYTES = 65_536
CHUNK_BYTES = 4_096

REFUSED = Counter("cartwright_keys_refused_total", "Signing keys, and ends of some, that were not believed", ["reason"])

log = structlog.get_logger(__name__)


class Keys:
    """What is known of an issuer's keys, and where to ask for more."""

    def __init__(self, jwks_url: str, roots: Roots) -> None:
        self._jwks_url = jwks_url
        self._roots = roots
        self._keys: dict[str, jwt.PyJWK] = {}
        self._revoked: set[str] = set()
        """What is certified to be revoked is not learnt again, whoever repeats its certificate."""
        self._fetching: asyncio.Task[None] | None = None
        self._ask_at = -REFETCH_SECONDS
        """When identity may be asked again."""
        self._failures = 0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __contains__(self, kid: str) -> bool:
        return kid in self._keys

    def learn(self, jwk: Any, certificate: Any) -> None:
        """Take one key, unless it is known. What is not believed is passed over: those after it count all the same."""
        try:
            key = key_of(jwk)
            kid = str(key.key_id)
            if kid in self._keys:
                return
            if kid in self._revoked:
                raise UncertifiedError("revoked")  # noqa: TRY301 - one of the reasons, told like the others
            self._roots.demand_certified(jwk, certificate)
        except UnusableKeyError as error:
            _refused("no-key", str(error))
        except UncertifiedError as error:
            _refused(error.reason, f"key {kid}")
        else:
            self._keys[kid] = key

    def forget(self, kid: str, certificate: Any) -> None:
        """A key that may not be used any more, if the root key says so."""
        if kid in self._revoked:
            return
        try:
            self._roots.demand_revoked(kid, certificate)
        except UncertifiedError as error:
            _refused(error.reason, f"the end of key {kid}")
            return
        self._revoked.add(kid)
        self._keys.pop(kid, None)

    async def get(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id; one never heard of is asked for, unless that was done or failed a moment ago."""
        if kid not in self._keys:
            await self.fetch()
        return self._keys.get(kid)

    async def fetch(self) -> None:
        """Read the JWKS, once for all who ask meanwhile; in the pause after it nobody waits."""
        if self._fetching is None:
            if time.monotonic() < self._ask_at:
                return
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)  # whoever gives up does not take it from the others

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                listed = orjson.loads(await asyncio.to_thread(_get, self._jwks_url))["keys"]
            if not isinstance(listed, list):
                raise TypeError("its keys are no list")  # noqa: TRY301 - as good as no answer
        except Exception as error:  # noqa: BLE001 - whatever it is: the topic may still tell us, and nobody may wait for nothing
            pause = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
            self._failures += 1
            log.info("jwks.unavailable", url=self._jwks_url, error=repr(error), retry_in_seconds=pause)
        else:
            pause, self._failures = REFETCH_SECONDS, 0
            for jwk in listed:
                self.learn(jwk, jwk.get("certificate") if isinstance(jwk, dict) else None)
        self._ask_at, self._fetching = time.monotonic() + pause, None


def _refused(reason: str, what: str) -> None:
    REFUSED.labels(reason).inc()
    log.warning("keys.refused", reason=reason, what=what, action="passed over; known keys stay valid")


def _get(url: str) -> bytes:
    """The answer, unless it is longer or takes longer than an honest one. Raises OSError or ValueError."""
    until, body = time.monotonic() + FETCH_SECONDS, b""
    with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as response:  # noqa: S310 - our own issuer's, from the settings
        while chunk := response.read1(CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError(f"it has more than {MAX_JWKS_BYTES} bytes")
            if time.monotonic() > until:
                raise TimeoutError(f"it takes more than {FETCH_SECONDS} s")
    return body
