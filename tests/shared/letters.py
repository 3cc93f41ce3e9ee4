"""Letters as whoever writes to people opens them, with nothing of ours."""

import base64

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from jwt.algorithms import ECAlgorithm


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def opened(sealed: str, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """As RFC 7516 and RFC 7518 §4.6 have it, step by step."""
    protected, encrypted_key, nonce, ciphertext, tag = sealed.split(".")
    header = orjson.loads(_raw(protected))
    assert (header["alg"], header["enc"], encrypted_key) == ("ECDH-ES", "A256GCM", "")
    ephemeral = ECAlgorithm.from_jwk(header["epk"])
    assert isinstance(ephemeral, ec.EllipticCurvePublicKey)
    digest = Hash(SHA256())
    digest.update(bytes((0, 0, 0, 1)) + key.exchange(ec.ECDH(), ephemeral))
    digest.update(bytes((0, 0, 0, 7)) + b"A256GCM" + bytes(4) + bytes(4) + bytes((0, 0, 1, 0)))
    plain = AESGCM(digest.finalize()).decrypt(_raw(nonce), _raw(ciphertext) + _raw(tag), protected.encode())
    letter: dict[str, str] = orjson.loads(plain)
    return letter
