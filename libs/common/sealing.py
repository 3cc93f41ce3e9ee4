"""Envelope encryption of stored secrets: AES-256-GCM under a data key of the row, which the master key wraps.

Whatever is sealed is bound to where it stands: moved to another tenant's row or another column, it does not open. Rotating
the master key wraps the data keys anew and touches nothing else.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class SealError(Exception):
    """What is sealed does not open; says why, and never what."""


def decode_key(encoded: str) -> bytes:
    """The 32 bytes of a base64 key. Raises ValueError when it is anything else."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        message = f"it is the base64 of {KEY_BYTES} random bytes"
        raise ValueError(message)
    return key


@dataclass(frozen=True, slots=True)
class Envelope:
    """A data key as it is stored: wrapped, with the id of the master key that wrapped it."""

    master_key_id: str
    wrapped_key: bytes


class DataKey:
    """Seals and opens the secrets of one row. `place` is where the row stands: tenant first."""

    def __init__(self, key: bytes, place: str) -> None:
        self._cipher = AESGCM(key)
        self._place = place

    def seal(self, secret: str, column: str) -> bytes:
        """The secret, for this column of this row alone."""
        return self.seal_bytes(secret.encode(), column)

    def open(self, sealed: bytes, column: str) -> str:
        """What `seal` sealed. Raises SealError anywhere else."""
        return self.open_bytes(sealed, column).decode()

    def seal_bytes(self, plain: bytes, column: str) -> bytes:
        """The same for what is no text."""
        return _encrypt(self._cipher, plain, f"{self._place}/{column}")

    def open_bytes(self, sealed: bytes, column: str) -> bytes:
        """What `seal_bytes` sealed. Raises SealError anywhere else."""
        return _decrypt(self._cipher, sealed, f"{self._place}/{column}")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """Wraps data keys; its id tells which of several wrapped one, and nothing of the key."""

    secret: bytes = field(repr=False)

    @classmethod
    def decode(cls, encoded: str) -> Self:
        """From base64, as the environment has it. Raises ValueError."""
        return cls(decode_key(encoded))

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits of a digest that is used for nothing else."""
        return hashlib.blake2b(self.secret, digest_size=8, person=b"master key id").hexdigest()


class MasterKeys:
    """The master key in force, and the one before it for as long as a rotation lasts."""

    def __init__(self, current: MasterKey, previous: MasterKey | None = None) -> None:
        self.current = current
        self._known = {key.id: key for key in (current, previous) if key is not None}

    def new_data_key(self, place: str) -> tuple[DataKey, Envelope]:
        """A data key for a row at this place, and the envelope to store beside what it seals."""
        key = os.urandom(KEY_BYTES)
        return DataKey(key, place), self._wrap(key, place)

    def open(self, envelope: Envelope, place: str) -> DataKey:
        """The data key of a stored row. Raises SealError."""
        return DataKey(self._unwrap(envelope, place), place)

    def rewrap(self, envelope: Envelope, place: str) -> Envelope:
        """The same data key under the master key in force. Raises SealError."""
        return self._wrap(self._unwrap(envelope, place), place)

    def _wrap(self, key: bytes, place: str) -> Envelope:
        return Envelope(self.current.id, _encrypt(AESGCM(self.current.secret), key, f"{place}/data key"))

    def _unwrap(self, envelope: Envelope, place: str) -> bytes:
        master = self._known.get(envelope.master_key_id)
        if master is None:
            message = f"it was wrapped with master key {envelope.master_key_id}, which is not among those given"
            raise SealError(message)
        return _decrypt(AESGCM(master.secret), envelope.wrapped_key, f"{place}/data key")


def _encrypt(cipher: AESGCM, plain: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound_to.encode())


def _decrypt(cipher: AESGCM, sealed: bytes, bound_to: str) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
    except (InvalidTag, ValueError):
        message = f"what stands at {bound_to} was not sealed there, or not with this key"
        raise SealError(message) from None
