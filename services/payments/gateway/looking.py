"""Where an operation's object stands: read by the provider's id or, where the operation was to make it, looked for by ours."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from services.payments.domain.provider.operation import Operation
    from services.payments.domain.provider.outcome import Outcome
    from services.payments.gateway.protocol import PaymentGateway

READ = "retrieve"
FIND = "find"
CLOCKS_APART = timedelta(minutes=10)
"""By how much the provider's clock may be behind ours, when what was made since a time is looked for."""


def look_up(operation: Operation, gateway: PaymentGateway) -> tuple[str, Awaitable[Outcome]]:
    """The name of the call, and the call."""
    intent_id, refund_id = operation.intent_id, operation.refund_id
    if intent_id is None:
        return FIND, gateway.find_intent(str(operation.payment_id), operation.first_send_at - CLOCKS_APART)
    if refund_id is not None:
        return FIND, gateway.find_refund(intent_id, str(refund_id))
    return READ, gateway.retrieve_intent(intent_id)
