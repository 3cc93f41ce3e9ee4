"""Letters: what is to be written to somebody, sealed so that only whoever writes to people can read it."""

import base64
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from jwt.algorithms import ECAlgorithm
from jwt.exceptions import InvalidKeyError

from libs.common.settings import SettingsError
from services.identity.domain.invitation import Invitation, Token, digest_of

TOKEN = re.compile(r"inv_([0-9a-f]{32})_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")
NONCE_BYTES, TAG_BYTES = 12, 16
COORDINATE_BYTES = 32
ENCRYPTION = "A256GCM"
NO_KEY = "CARTWRIGHT_LETTERS_KEY is the JWK of a public key on P-256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a token names, before anybody has looked whether it is good."""

    tenant_id: UUID
    invitation_id: UUID
    digest: str


class InvitationTokens:
    """Derives tokens from the master key and a nonce in the row, so that one can be shown again without being stored.

    What is presented is judged by its digest alone: another master key ends no invitation, it only shows none again.
    """

    def __init__(self, master_key: bytes) -> None:
        self._key = hmac.digest(master_key, b"cartwright invitation tokens 1", "sha256")

    def new(self, tenant_id: UUID, invitation_id: UUID) -> tuple[str, Token]:
        """A token, and what may be kept of it."""
        nonce = secrets.token_hex(NONCE_BYTES)
        token = self._derived(tenant_id, invitation_id, nonce)
        return token, Token(nonce=nonce, digest=digest_of(token))

    def again(self, invitation: Invitation) -> str | None:
        """The token of an invitation; None when it was made under another master key."""
        token = self._derived(invitation.tenant_id, invitation.id, invitation.nonce)
        return token if hmac.compare_digest(digest_of(token), invitation.digest) else None

    def _derived(self, tenant_id: UUID, invitation_id: UUID, nonce: str) -> str:
        mac = hmac.digest(self._key, tenant_id.bytes + invitation_id.bytes + nonce.encode(), "sha256")
        return f"inv_{tenant_id.hex}_{invitation_id.hex}_{_base64url(mac)}"


def named(token: str) -> Named | None:
    """What a token names; None when no token of ours looks like it."""
    match = TOKEN.fullmatch(token)
    if match is None:
        return None
    return Named(tenant_id=UUID(hex=match[1]), invitation_id=UUID(hex=match[2]), digest=digest_of(token))


class Letters:
    """Seals for the holder of one key (RFC 7516 compact, `ECDH-ES` on P-256 and `A256GCM`); any JOSE library opens it."""

    def __init__(self, key: ec.EllipticCurvePublicKey, kid: str | None) -> None:
        self._key = key
        self._kid = kid

    @classmethod
    def read(cls, jwk: str) -> Self:
        """From a public JWK on P-256. Raises SettingsError."""
        try:
            members: dict[str, Any] = orjson.loads(jwk)
            key = ECAlgorithm.from_jwk(members)
        except (ValueError, InvalidKeyError) as error:
            raise SettingsError(NO_KEY) from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SettingsError(NO_KEY)
        return cls(key, members.get("kid"))

    def seal(self, letter: dict[str, Any]) -> str:
        """The letter, for the holder of the key alone."""
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        point = ephemeral.public_key().public_numbers()
        x, y = (_base64url(number.to_bytes(COORDINATE_BYTES, "big")) for number in (point.x, point.y))
        header = {"alg": "ECDH-ES", "enc": ENCRYPTION, "epk": {"kty": "EC", "crv": "P-256", "x": x, "y": y}}
        protected = _base64url(orjson.dumps(header | ({"kid": self._kid} if self._kid else {})))
        nonce = os.urandom(NONCE_BYTES)
        key = agreed(ephemeral.exchange(ec.ECDH(), self._key))
        sealed = AESGCM(key).encrypt(nonce, orjson.dumps(letter), protected.encode())
        return ".".join([protected, "", *map(_base64url, (nonce, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]))])


def agreed(secret: bytes) -> bytes:
    """The key that both sides make of a shared secret (RFC 7518 §4.6.2)."""
    algorithm = ENCRYPTION.encode()
    about = len(algorithm).to_bytes(4, "big") + algorithm + bytes(8) + (256).to_bytes(4, "big")
    return ConcatKDFHash(SHA256(), 32, about).derive(secret)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
