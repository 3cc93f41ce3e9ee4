"""Payments, decided without I/O.

`payment` is the machine and what checkout asks of it, `operation` a call to the provider, `outcome` what it answers,
`recording` what that makes of the payment.
"""

from services.payments.domain.operation import (
    CALL_SECONDS,
    CLAIMED_LEASE,
    Operation,
    OperationKind,
    OperationState,
    conclude,
    wants_reading,
)
from services.payments.domain.outcome import (
    Declined,
    IntentStatus,
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
    name_of,
)
from services.payments.domain.payment import (
    NOBODY,
    TRANSITIONS,
    Decision,
    Payment,
    PaymentState,
    capture,
    plan,
    request,
    void,
)
from services.payments.domain.recording import Recorded, record

__all__ = [
    "CALL_SECONDS",
    "CLAIMED_LEASE",
    "NOBODY",
    "TRANSITIONS",
    "Decision",
    "Declined",
    "IntentStatus",
    "Operation",
    "OperationKind",
    "OperationState",
    "Outcome",
    "Payment",
    "PaymentState",
    "Recorded",
    "Rejected",
    "Succeeded",
    "Throttled",
    "Unknown",
    "capture",
    "conclude",
    "name_of",
    "plan",
    "record",
    "request",
    "void",
    "wants_reading",
]
