"""What the identity service reads from its environment."""

from pydantic import SecretStr, field_validator

from libs.common import settings
from libs.common.sealing import decode_key


class Settings(settings.Settings):
    """What every service reads, and the key that wraps stored secrets."""

    master_key: SecretStr
    """Base64 of 32 bytes; wraps stored secrets."""

    @field_validator("master_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr) -> SecretStr:
        decode_key(value.get_secret_value())
        return value

    @property
    def master_key_bytes(self) -> bytes:
        """The master key itself."""
        return decode_key(self.master_key.get_secret_value())
