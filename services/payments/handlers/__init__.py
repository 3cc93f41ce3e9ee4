"""Which command or event goes to which decision, and what is loaded for it."""

from services.payments.handlers import accounts, disputes, observations, outcomes, payments, reconciliation, refunds
from services.payments.handlers.table import HANDLERS

__all__ = ["HANDLERS", "accounts", "disputes", "observations", "outcomes", "payments", "reconciliation", "refunds"]
