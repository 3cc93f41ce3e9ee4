"""What payments asks of a provider, in our words.

Every call ends in an `Outcome` and none raises: what a timeout, a cut connection or a 5xx left behind is `Unknown`, and
only a recorded retry under the same key or a read of the object may turn it into something else. A call that a limit or an
open circuit did not let out is `Throttled`: nothing ran. Lists alone raise, for a list that ends early is no list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from services.payments.domain.provider.account import SeenAccount
    from services.payments.domain.provider.outcome import (
        Outcome,
        Rejected,
        SeenDispute,
        SeenIntent,
        SeenRefund,
        SeenTransaction,
        Throttled,
        Unknown,
    )

Capture: TypeAlias = Literal["manual", "automatic"]
Confirmation: TypeAlias = Literal["server", "client"]
"""Who puts the method to the issuer: we, or the payer's browser with the client secret."""


class GatewayUnavailableError(Exception):
    """A list could not be read to its end. `retry_after`: in how many seconds to try again, if anybody said."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class PaymentGateway(Protocol):
    """What payments asks of a provider. `key` identifies the operation: same key, same parameters, one effect."""

    @property
    def books(self) -> str:
        """Whose lists it reads: two that say the same read the same."""
        ...

    async def create_intent(
        self,
        key: str,
        *,
        amount_minor: int,
        currency: str,
        method: str,
        capture: Capture,
        metadata: Mapping[str, str],
        confirmation: Confirmation = "server",
        challenge: bool = False,
    ) -> Outcome:
        """Announce a payment; no money moves. With client-side confirmation the payer brings the method: `method` is unused.

        `challenge`: the issuer is to ask whoever pays for proof (3-D Secure), if it can.
        """
        ...

    async def confirm_intent(self, key: str, intent_id: str, method: str, *, return_url: str | None = None) -> Outcome:
        """Put it to the issuer: authorized (manual capture) or captured (automatic).

        `return_url`: the page that the issuer's leads whoever pays back to, if it wants to see them.
        """
        ...

    async def capture_intent(self, key: str, intent_id: str, amount_minor: int, *, final: bool = True) -> Outcome:
        """Take `amount_minor` of what is held, and release the rest if this was `final`. Nothing and final: release alone."""
        ...

    async def cancel_intent(self, key: str, intent_id: str) -> Outcome:
        """Void a payment that was not captured."""
        ...

    async def create_refund(
        self,
        key: str,
        *,
        intent_id: str,
        amount_minor: int,
        reason: str,
        metadata: Mapping[str, str],
        with_movement: bool = False,
    ) -> Outcome:
        """Give money back to the payer: answers `SeenRefund`, which may still be pending, and what it moved if so asked."""
        ...

    async def retrieve_intent(self, intent_id: str) -> Outcome:
        """Read where a payment stands; strongly consistent."""
        ...

    async def retrieve_refund(self, provider_id: str) -> Outcome:
        """Read where a refund stands; strongly consistent."""
        ...

    async def retrieve_dispute(self, provider_id: str) -> SeenDispute | Rejected | Unknown | Throttled:
        """Read where a dispute stands, and what it took; strongly consistent."""
        ...

    async def find_intent(self, payment_id: str, created_after: datetime) -> Outcome:
        """The intent that was made for this payment since then; `Rejected("not-found")` when there certainly is none."""
        ...

    async def find_refund(self, intent_id: str, refund_id: str) -> Outcome:
        """The refund of this intent that was made for this refund of ours; `Rejected("not-found")` as above."""
        ...

    def list_intents(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenIntent]:
        """Every intent made from then (inclusive) to then (exclusive), newest first. Raises GatewayUnavailableError."""
        ...

    def list_refunds(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenRefund]:
        """Every refund, likewise."""
        ...

    def list_disputes(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenDispute]:
        """Every dispute, likewise."""
        ...

    def list_transactions(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenTransaction]:
        """Every movement of the account's balance, likewise."""
        ...

    async def account(self) -> SeenAccount | Rejected | Unknown | Throttled:
        """Whose account the key opens."""
        ...
