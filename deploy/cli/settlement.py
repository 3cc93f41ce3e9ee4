"""What the payment provider itself says it captured: the other side of every total, read from its own list."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from deploy.cli.api import Api
from deploy.cli.waiting import asked_again

_PATIENCE_SECONDS: Final = 60
_FIRST_POLL_SECONDS: Final = 0.1
_LONGEST_POLL_SECONDS: Final = 2.0
_PENDING: Final = frozenset({"processing", "requires_capture"})


@dataclass(slots=True)
class Settlement:
    """The captures of some checkouts, and those of them for which money is still held."""

    captured: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Amounts in minor units by checkout id; one entry a PaymentIntent."""
    pending: set[str] = field(default_factory=set)
    checkouts: dict[str, str] = field(default_factory=dict)
    """Whose each PaymentIntent is: checkout id by the provider's id."""

    @property
    def captured_total_minor(self) -> int:
        """Everything that was captured."""
        return sum(sum(amounts) for amounts in self.captured.values())


async def read_settlement(api: Api, tenant_id: UUID, checkout_ids: Collection[str]) -> Settlement:
    """Return what the provider's list has for these checkouts of this tenant."""
    settlement = Settlement()
    async for intent in api.provider_intents():
        metadata = intent["metadata"]
        checkout_id = metadata.get("checkout_id", "")
        if metadata.get("tenant_id") != str(tenant_id) or checkout_id not in checkout_ids:
            continue
        settlement.checkouts[intent["id"]] = checkout_id
        if intent["status"] == "succeeded":
            settlement.captured[checkout_id].append(intent["amount_received"])
        elif intent["status"] in _PENDING:
            settlement.pending.add(checkout_id)
    return settlement


async def read_refunds(api: Api, settlement: Settlement) -> dict[str, int]:
    """Return how much of each checkout's money the provider's own list says went back."""
    refunded: dict[str, int] = defaultdict(int)
    async for refund in api.provider_refunds():
        checkout_id = settlement.checkouts.get(refund["payment_intent"])
        if checkout_id is not None and refund["status"] == "succeeded":
            refunded[checkout_id] += refund["amount"]
    return refunded


async def settled(api: Api, tenant_id: UUID, checkout_ids: Collection[str], bought: Collection[str]) -> Settlement:
    """Wait until everything bought is captured and nothing is held any more, or nothing moves for a minute."""
    return await asked_again(
        lambda: read_settlement(api, tenant_id, checkout_ids),
        lambda settlement: len(settlement.pending) + sum(it not in settlement.captured for it in bought),
        patience_seconds=_PATIENCE_SECONDS,
        pause_seconds=_FIRST_POLL_SECONDS,
        longest_pause_seconds=_LONGEST_POLL_SECONDS,
    )
