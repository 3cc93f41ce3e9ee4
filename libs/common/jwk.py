"""Public keys as JWKs (RFC 7517): ES256 alone, each under its own thumbprint (RFC 7638)."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jwt
import orjson

ALGORITHM = "ES256"
MEMBERS = ("crv", "kty", "x", "y")
"""What makes a key what it is."""

_COORDINATE = re.compile("[A-Za-z0-9_-]{43}")


class UnusableKeyError(ValueError):
    """This is no key that tokens of ours are signed with; says why."""


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """SHA-256 over the members that make a P-256 key what it is, in the order of their names (RFC 7638)."""
    required = orjson.dumps({name: jwk[name] for name in MEMBERS}, option=orjson.OPT_SORT_KEYS)
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
        return jwt.PyJWK({name: jwk[name] for name in (*MEMBERS, "kid")}, algorithm=ALGORITHM)
    except (jwt.PyJWTError, ValueError) as error:
        raise UnusableKeyError("its point is not on the curve") from error
