"""What payments asks of a provider, in our words.

Every call ends in an `Outcome` and none raises: what a timeout, a cut connection or a 5xx left behind is `Unknown`, and
only a recorded retry under the same key or a read of the object may turn it into something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.payments.domain.outcome import Outcome

Capture: TypeAlias = Literal["manual", "automatic"]


class PaymentGateway(Protocol):
    """What payments asks of a provider. `key` identifies the operation: same key, same parameters, one effect."""

    async def create_intent(
        self, key: str, *, amount_minor: int, currency: str, method: str, capture: Capture, metadata: Mapping[str, str]
    ) -> Outcome:
        """Announce a payment; no money moves."""
        ...

    async def confirm_intent(self, key: str, intent_id: str, method: str) -> Outcome:
        """Put it to the issuer: authorized (manual capture) or captured (automatic)."""
        ...

    async def capture_intent(self, key: str, intent_id: str, amount_minor: int | None = None) -> Outcome:
        """Take the authorized amount, or `amount_minor` of it, releasing the rest."""
        ...

    async def cancel_intent(self, key: str, intent_id: str) -> Outcome:
        """Void a payment that was not captured."""
        ...

    async def retrieve_intent(self, intent_id: str) -> Outcome:
        """Read where a payment stands; strongly consistent."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
