"""What the payments service reads from its environment."""

from pydantic import SecretStr, field_validator

from libs.common import settings
from libs.common.sealing import MasterKey, MasterKeys


class Settings(settings.Settings):
    """The common settings, and how the payment provider is reached."""

    stripe_api_key: SecretStr
    stripe_api_base: str = "https://api.stripe.com"
    stripe_webhook_secret: SecretStr | None = None
    master_key: SecretStr
    previous_master_key: SecretStr | None = None
    """The one before, for as long as a rotation lasts: it opens what it sealed, and seals nothing."""
    orphan_money_seconds: int = 900
    """How long money that was captured may wait for its order to be confirmed, before it goes back."""

    @field_validator("master_key", "previous_master_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            MasterKey.decode(value.get_secret_value())
        return value

    @property
    def master_keys(self) -> MasterKeys:
        """The keys that open what is stored."""
        previous = self.previous_master_key
        return MasterKeys(
            MasterKey.decode(self.master_key.get_secret_value()),
            None if previous is None else MasterKey.decode(previous.get_secret_value()),
        )
