"""The cryptography of tokens, pure: access tokens signed, refresh tokens derived."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from libs.common.auth import TOKEN_TYPE
from libs.common.jwk import ALGORITHM, thumbprint
from services.identity.domain.access import Grant, claims

COORDINATE_BYTES = 32
GENERATION_BYTES = 4
ES256 = ec.ECDSA(SHA256())
REFRESH_TOKEN = re.compile(r"rt_([0-9a-f]{32})_([0-9a-f]{32})_([A-Za-z0-9_-]{48})")


class TokenMint:
    """Signs access tokens with one private key, kept ready in memory: as a JWS (RFC 7515), with next to nothing around it."""

    def __init__(self, issuer: str, kid: str, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.kid = kid
        self._issuer = issuer
        self._private_key = private_key
        self._header = _base64url(orjson.dumps({"alg": ALGORITHM, "kid": kid, "typ": TOKEN_TYPE}))

    def mint(self, grant: Grant, token_id: UUID, now: datetime, *, after_ms: int = 0) -> str:
        """An access token for this grant, from now on, and above an epoch."""
        said = claims(grant, self._issuer, token_id, now, after_ms=after_ms)
        signed = f"{self._header}.{_base64url(orjson.dumps(said))}"
        r, s = decode_dss_signature(self._private_key.sign(signed.encode(), ES256))
        signature = r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")
        return f"{signed}.{_base64url(signature)}"


def jwk_of(private_key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public key as a JWK, under its own thumbprint (RFC 7638) as key id."""
    point = private_key.public_key().public_numbers()
    x, y = (_base64url(number.to_bytes(COORDINATE_BYTES, "big")) for number in (point.x, point.y))
    required = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return {**required, "kid": thumbprint(required), "use": "sig", "alg": ALGORITHM}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """A refresh token that is certainly one of ours."""

    tenant_id: UUID
    session_id: UUID
    generation: int
    """How many there were before it in its session."""
    text: str

    @property
    def digest(self) -> str:
        """All that the database ever sees of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class RefreshTokens:
    """Derives every refresh token from one secret, so a successor can be given twice without being stored.

    `rt_<tenant>_<session>_<generation and its MAC>`: a made-up token is recognized before any row is looked at, and so
    can neither load the database nor end somebody's session.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = secret

    @staticmethod
    def first_secret(master_key: bytes) -> bytes:
        """The secret of an issuer that has stored none: what was derived of its master key before any was."""
        return hmac.digest(master_key, b"cartwright refresh tokens 1", "sha256")

    def issue(self, tenant_id: UUID, session_id: UUID, generation: int = 0) -> RefreshToken:
        """A session's token of this generation: always the same."""
        number = generation.to_bytes(GENERATION_BYTES, "big")
        mac = hmac.digest(self._key, tenant_id.bytes + session_id.bytes + number, "sha256")
        text = f"rt_{tenant_id.hex}_{session_id.hex}_{_base64url(number + mac)}"
        return RefreshToken(tenant_id=tenant_id, session_id=session_id, generation=generation, text=text)

    def read(self, text: str) -> RefreshToken | None:
        """The token, if we issued it."""
        match = REFRESH_TOKEN.fullmatch(text)
        if match is None:
            return None
        generation = int.from_bytes(base64.urlsafe_b64decode(match[3])[:GENERATION_BYTES], "big")
        genuine = self.issue(UUID(hex=match[1]), UUID(hex=match[2]), generation)
        return genuine if hmac.compare_digest(genuine.text, text) else None

    def successor(self, token: RefreshToken) -> RefreshToken:
        """The one that follows it in its session."""
        return self.issue(token.tenant_id, token.session_id, token.generation + 1)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
