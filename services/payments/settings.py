"""What the payments service reads from its environment."""

from pydantic import SecretStr

from libs.common import settings


class Settings(settings.Settings):
    """The common settings, and how the payment provider is reached."""

    stripe_api_key: SecretStr
    stripe_api_base: str = "https://api.stripe.com"
    stripe_webhook_secret: SecretStr | None = None
    master_key: SecretStr | None = None
