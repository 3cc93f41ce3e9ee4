"""What the issuer's root key says of signing keys, and who believes it (ADR 0024).

A certificate is a JWS of the root key over one signing key, or over the id of one that is revoked.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from libs.common.jwk import ALGORITHM, MEMBERS, key_of, thumbprint

CERTIFICATE_TYPE = "cartwright-key+jwt"
MAX_CERTIFICATE = 2_000


class UncertifiedError(ValueError):
    """The root key does not say this; `reason` is one of few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RootKey:
    """The private half: identity's alone."""

    def __init__(self, issuer: str, private_key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(private_key.curve, ec.SECP256R1):
            raise ValueError("it is no private key on P-256")  # noqa: TRY004 - another key, not another type
        self._issuer = issuer
        self._private_key = private_key
        self.public = public_jwk(private_key.public_key())

    @classmethod
    def read(cls, issuer: str, text: str) -> Self:
        """The key of a PEM or a private JWK. Raises ValueError for anything else."""
        try:
            if text.lstrip().startswith("{"):
                key = jwt.PyJWK(orjson.loads(text), algorithm=ALGORITHM).key
            else:
                key = load_pem_private_key(text.encode(), None)
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise ValueError("it is neither a PEM nor a JWK of a private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("it is no private key on P-256")  # noqa: TRY004 - of what was read, not of an argument
        return cls(issuer, key)

    def certify(self, jwk: Mapping[str, Any], now: datetime) -> str:
        """Say that this is a signing key of the issuer."""
        return self._say({"kid": jwk["kid"], "jwk": {name: jwk[name] for name in (*MEMBERS, "kid")}}, now)

    def revoke(self, kid: str, now: datetime) -> str:
        """Say that the key of this id is one no more."""
        return self._say({"kid": kid, "revoked": True}, now)

    def _say(self, claims: Mapping[str, Any], now: datetime) -> str:
        said = {"iss": self._issuer, "iat": int(now.timestamp()), **claims}
        headers = {"typ": CERTIFICATE_TYPE, "kid": self.public["kid"]}
        return jwt.encode(said, self._private_key, algorithm=ALGORITHM, headers=headers)


class Roots:
    """The public halves: what their owner has signed is believed, of this issuer."""

    def __init__(self, issuer: str, text: str) -> None:
        """Of one public JWK, or a list of them, as JSON. Raises ValueError for anything else."""
        self._issuer = issuer
        listed = orjson.loads(text)
        keys = [key_of(jwk) for jwk in (listed if isinstance(listed, list) else [listed])]
        if not keys:
            raise ValueError("it lists no key")
        self._keys = {str(key.key_id): key for key in keys}

    def __contains__(self, kid: str) -> bool:
        return kid in self._keys

    def demand_certified(self, jwk: Mapping[str, Any], certificate: Any) -> None:
        """Raise UncertifiedError unless the certificate says that this is a signing key. Its kid is its thumbprint."""
        said = self._said(certificate)
        if said["kid"] != jwk["kid"] or "revoked" in said or not _is_same(said.get("jwk"), jwk):
            raise UncertifiedError("other-key")

    def demand_revoked(self, kid: str, certificate: Any) -> None:
        """Raise UncertifiedError unless the certificate says that this key is one no more."""
        said = self._said(certificate)
        if said["kid"] != kid or said.get("revoked") is not True:
            raise UncertifiedError("other-key")

    def _said(self, certificate: Any) -> Mapping[str, Any]:
        if not isinstance(certificate, str) or not certificate:
            raise UncertifiedError("no-certificate")
        if len(certificate) > MAX_CERTIFICATE:
            raise UncertifiedError("malformed-certificate")
        try:
            header = jwt.get_unverified_header(certificate)
            if header.get("typ") != CERTIFICATE_TYPE or header.get("alg") != ALGORITHM or "crit" in header:
                raise UncertifiedError("malformed-certificate")
            root = self._keys.get(str(header.get("kid")))
            if root is None:
                raise UncertifiedError("other-root")
            said: Mapping[str, Any] = jwt.decode(
                certificate,
                root,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                options={"require": ["iss", "iat", "kid"], "verify_iat": False},  # a clock of ours that is slow harms nobody
            )
        except jwt.InvalidSignatureError as error:
            raise UncertifiedError("bad-signature") from error
        except jwt.InvalidIssuerError as error:
            raise UncertifiedError("other-issuer") from error
        except (jwt.PyJWTError, AttributeError, KeyError, TypeError) as error:
            raise UncertifiedError("malformed-certificate") from error
        return said


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """A public key as a JWK, under its thumbprint."""
    made: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
    required = {name: made[name] for name in MEMBERS}
    return {**required, "kid": thumbprint(required)}


def _is_same(said: Any, jwk: Mapping[str, Any]) -> bool:
    return isinstance(said, Mapping) and all(said.get(name) == jwk[name] for name in (*MEMBERS, "kid"))
