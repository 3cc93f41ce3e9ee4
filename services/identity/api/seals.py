"""What this service keeps sealed: under AES-256-GCM with the master key, bound to a name so that no row can pass for another."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from libs.common.sealing import SealError

NONCE_BYTES = 12


class Seals:
    """The master key in force, and the one before it for as long as a rotation lasts: that one opens, and seals nothing."""

    def __init__(self, current: bytes, previous: bytes | None = None) -> None:
        self.oldest = previous or current
        """Which was there first: what was derived of a master key was derived of this one."""
        self._current = AESGCM(current)
        self._known = [self._current, *([AESGCM(previous)] if previous else [])]

    def seal(self, plain: bytes, name: str) -> bytes:
        """What is to be kept, for this name alone."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._current.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """What `seal` sealed. Raises SealError under other master keys, or another name."""
        for cipher in self._known:
            plain = _opened(cipher, sealed, name)
            if plain is not None:
                return plain
        message = f"{name} was sealed with another master key than those given"
        raise SealError(message)

    def resealed(self, sealed: bytes, name: str) -> bytes | None:
        """The same sealed with the master key in force; None if it is already. Raises SealError."""
        return None if _opened(self._current, sealed, name) is not None else self.seal(self.open(sealed, name), name)

    def seal_key(self, private_key: ec.EllipticCurvePrivateKey, kid: str) -> bytes:
        """A private key, under its key id."""
        return self.seal(private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), kid)

    def open_key(self, sealed: bytes, kid: str) -> ec.EllipticCurvePrivateKey:
        """The same again. Raises SealError."""
        private_key = load_der_private_key(self.open(sealed, kid), None)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            message = f"{kid} is no elliptic-curve key"
            raise TypeError(message)
        return private_key


def _opened(cipher: AESGCM, sealed: bytes, name: str) -> bytes | None:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError):
        return None
