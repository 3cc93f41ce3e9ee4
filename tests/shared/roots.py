"""A root key for tests, and keys that it has certified."""

from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec

from libs.common.certificates import RootKey, Roots
from libs.common.clock import now
from libs.common.keys import Keys
from libs.common.revocations import Revocations

NOBODY = "http://127.0.0.1:9/nobody-answers-here"

_PRIVATE = ec.generate_private_key(ec.SECP256R1())

PUBLIC_ROOT = orjson.dumps(RootKey("", _PRIVATE).public).decode()
"""As a setting."""


def root_of(issuer: str) -> RootKey:
    return RootKey(issuer, _PRIVATE)


def certificate_of(jwk: Mapping[str, Any], issuer: str) -> str:
    return root_of(issuer).certify(jwk, now())


def keys_of(issuer: str, *jwks: Mapping[str, Any], url: str = NOBODY) -> Keys:
    """What believes this root, and has learnt these."""
    keys = Keys(url, Roots(issuer, PUBLIC_ROOT))
    for jwk in jwks:
        keys.learn(jwk, certificate_of(jwk, issuer))
    return keys


def none_revoked() -> Revocations:
    """What a process knows that has read its topic, when that holds nothing."""
    revocations = Revocations()
    revocations.read_to_its_end()
    return revocations
