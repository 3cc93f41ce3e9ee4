"""Provider accounts: with whose key a tenant's payments are made, and how often the provider may be called."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from libs.common.decision import Aggregate
from libs.common.errors import RejectedError

STRIPE: Final = "stripe"
MAX_WEBHOOK_SECRETS = 2
"""One to verify with, and one more while the provider's end changes over."""


class AccountNotProvenError(RejectedError):
    """Another's, nobody's, or this tenant's and not yet proven: the three are not to be told apart."""

    def __init__(self) -> None:
        super().__init__("account-not-proven", "nothing shows that this account is yours, and yours alone: connect it first")


@dataclass(frozen=True, slots=True)
class SeenAccount:
    """Whose account a key opens, as far as the key may know: a restricted one need not be told."""

    provider_id: str | None


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """One secret that the provider signs with: base64 of what it is sealed as, and its last four characters."""

    sealed: str
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderAccount(Aggregate):
    """A tenant's own account. Its secrets are here only sealed; who has none uses the platform's."""

    KEY: ClassVar[str] = "provider"
    provider: str
    account_id: str | None
    """The provider's name for it."""
    sealed_api_key: bytes | None
    """None: the platform's key is used on this account's behalf."""
    api_key_hint: str | None
    webhook_secrets: tuple[WebhookSecret, ...]
    master_key_id: str
    wrapped_key: bytes
    livemode: bool
    created_at: datetime
    rotated_at: datetime
    """When a secret of it was last given."""

    @property
    def place(self) -> str:
        """What its secrets are bound to."""
        return place_of(self.tenant_id, self.provider)


def place_of(tenant_id: object, provider: str) -> str:
    """Where a tenant's secrets stand, for the seal."""
    return f"{tenant_id}/provider_account/{provider}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls a second the provider is to see: of one account in all, and of each endpoint."""

    per_second: float
    endpoint_per_second: float


LIVE = Limits(per_second=100, endpoint_per_second=25)
"""What Stripe documents for live mode (docs.stripe.com/rate-limits)."""
TEST = Limits(per_second=25, endpoint_per_second=25)
"""The same for test keys."""
UNLIMITED = Limits(per_second=100_000, endpoint_per_second=100_000)
"""For a provider that is not Stripe itself: the fake one of a local stack or a test has no limits unless it is told some."""


def limits_of(settings: Mapping[str, Any]) -> Limits | None:
    """What a tenant's settings say of them, as `provider_limits`; None if nothing that can be used."""
    wanted = settings.get("provider_limits")
    if not isinstance(wanted, Mapping):
        return None
    per_second = _rate(wanted.get("per_second"))
    endpoint = _rate(wanted.get("endpoint_per_second", per_second))
    return None if per_second is None or endpoint is None else Limits(per_second=per_second, endpoint_per_second=endpoint)


def _rate(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= UNLIMITED.per_second
    return float(value) if usable else None  # type: ignore[arg-type] # narrowed above


@dataclass(frozen=True, slots=True)
class TenantAccount:
    """What is known of how a tenant pays: its own account, if it has one, and its settings."""

    account: ProviderAccount | None
    settings: Mapping[str, Any]
