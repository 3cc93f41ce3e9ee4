"""The public keys that tokens are checked with: learnt from identity's topic and from its JWKS, each once and for good.

A key's id is its thumbprint (RFC 7638), so that nobody can put another in its place; what is no such key harms only itself.
"""

import asyncio
import base64
import hashlib
import re
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

import jwt
import orjson
import structlog

ALGORITHM = "ES256"
REFETCH_SECONDS = 5.0
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0)
"""Pauses after fetches that failed one after the other."""
FETCH_SECONDS = 3.0
"""How long a fetch may take, however slowly the answer drips."""
MAX_JWKS_BYTES = 65_536
CHUNK_BYTES = 4_096

_COORDINATE = re.compile("[A-Za-z0-9_-]{43}")

log = structlog.get_logger(__name__)


class UnusableKeyError(ValueError):
    """This is no key that tokens of ours are signed with; says why."""


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """SHA-256 over the members that make a P-256 key what it is, in the order of their names (RFC 7638)."""
    required = orjson.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, option=orjson.OPT_SORT_KEYS)
    return base64.urlsafe_b64encode(hashlib.sha256(required).digest()).rstrip(b"=").decode()


def key_of(jwk: Any) -> jwt.PyJWK:
    """The ES256 signing key that a JWK is, under its own thumbprint. Raises UnusableKeyError for anything else."""
    if not isinstance(jwk, Mapping):
        raise UnusableKeyError("it is no object")
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or "d" in jwk:
        raise UnusableKeyError("it is no public key on P-256")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", ALGORITHM) != ALGORITHM:
        raise UnusableKeyError("it is not for signatures by ES256")
    for name in ("x", "y"):
        if not isinstance(jwk.get(name), str) or not _COORDINATE.fullmatch(jwk[name]):
            raise UnusableKeyError(f"its {name} is no coordinate")
    kid = thumbprint(jwk)
    if jwk.get("kid") != kid:
        raise UnusableKeyError("its kid is not its thumbprint")
    try:
        return jwt.PyJWK({name: jwk[name] for name in ("kty", "crv", "x", "y", "kid")}, algorithm=ALGORITHM)
    except (jwt.PyJWTError, ValueError) as error:
        raise UnusableKeyError("its point is not on the curve") from error


class Keys:
    """What is known of an issuer's keys, and where to ask for more."""

    def __init__(self, jwks_url: str) -> None:
        self._jwks_url = jwks_url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._ask_at = -REFETCH_SECONDS
        """When identity may be asked again."""
        self._failures = 0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __contains__(self, kid: str) -> bool:
        return kid in self._keys

    def learn(self, jwk: Any) -> None:
        """Take one key, unless it is known. What is none is passed over: those after it count all the same."""
        try:
            key = key_of(jwk)
        except UnusableKeyError as error:
            log.warning("keys.unusable", reason=str(error), action="passed over; known keys stay valid")
            return
        self._keys.setdefault(str(key.key_id), key)

    def forget(self, kid: str) -> None:
        """A key that may not be used any more."""
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
                self.learn(jwk)
        self._ask_at, self._fetching = time.monotonic() + pause, None


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
