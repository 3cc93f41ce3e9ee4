"""What a call to the provider came to, in our words: what a gateway answers with, and what decisions are made of."""

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

SECRETS = frozenset({"client_secret", "action_url"})
"""What the payer alone may see: kept nowhere, read from the provider again when the payer asks."""


class IntentStatus(StrEnum):
    """Where the provider's payment stands."""

    NEEDS_METHOD = "needs_method"
    NEEDS_CONFIRMATION = "needs_confirmation"
    NEEDS_ACTION = "needs_action"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The provider did as asked (or was read); amounts in minor units of the lower-case ISO 4217 `currency`."""

    intent_id: str
    status: IntentStatus
    amount_minor: int
    currency: str
    amount_capturable_minor: int
    amount_received_minor: int
    charge_id: str | None = None
    expires_at: datetime | None = None
    """When an authorization lapses, as far as the provider told with this answer."""
    client_secret: str | None = None
    action_url: str | None = None
    """Where the payer completes a challenge, while the status is `needs_action`."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The issuer said no: final for this method, no money moved. `code` is the most precise reason known."""

    code: str
    intent_id: str | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused the call itself: this call changed nothing, and the same one never will."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not have happened. Retry under the same key with the same parameters, or read the object."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Turned away before anything ran; the same key may be sent again, after `retry_after` seconds if given."""

    retry_after: float | None


Outcome: TypeAlias = Succeeded | Declined | Rejected | Unknown | Throttled
Verdict: TypeAlias = Succeeded | Declined | Rejected
"""An outcome that ends its operation."""


def name_of(outcome: Outcome) -> str:
    """One word for logs, metrics and the order's story."""
    return type(outcome).__name__.lower()


def summary_of(outcome: Outcome) -> dict[str, Any]:
    """What is kept of an outcome: everything but the secrets."""
    members = {name: value for name, value in asdict(outcome).items() if value is not None and name not in SECRETS}
    return {"outcome": name_of(outcome), **members}
