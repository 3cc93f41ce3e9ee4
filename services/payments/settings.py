"""What the payments service reads from its environment."""

import re

from pydantic import SecretStr, field_validator

from libs.common import settings
from libs.common.sealing import MasterKey, MasterKeys


class Settings(settings.Settings):
    """The common settings, and how the payment provider is reached."""

    stripe_api_key: SecretStr
    """The account; a real one replaces the fake Stripe."""
    stripe_api_base: str = "https://api.stripe.com"
    """Where the provider is asked, once a key is set."""
    stripe_connect_client_id: str | None = None
    """The platform's `ca_…`, for tenants that connect their accounts; without it they give keys of their own."""
    stripe_webhook_secret: SecretStr | None = None
    """What the platform's endpoints at Stripe sign with, its own and Connect's: one secret, or several with spaces between."""
    master_key: SecretStr
    """Base64 of 32 bytes; wraps stored secrets."""
    previous_master_key: SecretStr | None = None
    """The master key before, while `./cartwright keys rotate master` has not yet wrapped everything anew. Seals nothing."""
    orphan_money_seconds: int = 900
    """How long captured money may wait for its order before checkout is asked for it, and so again."""

    @field_validator("master_key", "previous_master_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            MasterKey.decode(value.get_secret_value())
        return value

    @property
    def stripe_webhook_secrets(self) -> tuple[SecretStr, ...]:
        """The secrets that count: one for each endpoint, and the old beside the new while one changes over."""
        given = self.stripe_webhook_secret.get_secret_value() if self.stripe_webhook_secret else ""
        return tuple(SecretStr(secret) for secret in re.split(r"[\s,]+", given) if secret)

    @property
    def master_keys(self) -> MasterKeys:
        """The keys that open what is stored."""
        previous = self.previous_master_key
        return MasterKeys(
            MasterKey.decode(self.master_key.get_secret_value()),
            None if previous is None else MasterKey.decode(previous.get_secret_value()),
        )
