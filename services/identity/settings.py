"""What the identity service reads from its environment."""

import base64
import binascii

from pydantic import SecretStr, field_validator

from libs.common import settings

MASTER_KEY_BYTES = 32


def decode_master_key(encoded: str) -> bytes:
    """The 32 bytes of a master key. Raises ValueError when it is anything else."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        message = f"it is the base64 of {MASTER_KEY_BYTES} random bytes"
        raise ValueError(message)
    return key


class Settings(settings.Settings):
    """What every service reads, and the key that wraps stored secrets."""

    master_key: SecretStr

    @field_validator("master_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr) -> SecretStr:
        decode_master_key(value.get_secret_value())
        return value

    @property
    def master_key_bytes(self) -> bytes:
        """The master key itself."""
        return decode_master_key(self.master_key.get_secret_value())
