"""All SQL of the payments service."""

from services.payments.repository import accounts, disputes, ledger, payments, reconciliation, refunds, webhooks
from services.payments.repository.accounts import ACCOUNTS
from services.payments.repository.disputes import DISPUTES
from services.payments.repository.ledger import ENTRIES
from services.payments.repository.payments import ATTEMPTS, OPERATIONS, ORDER_PAYMENTS, PAYMENTS, TENANTS
from services.payments.repository.reconciliation import BREAKS, RECONCILIATIONS
from services.payments.repository.refunds import REFUNDS

ROWS = (TENANTS, ACCOUNTS, PAYMENTS, ATTEMPTS, ORDER_PAYMENTS, REFUNDS, DISPUTES, OPERATIONS, ENTRIES, RECONCILIATIONS, BREAKS)
"""Every aggregate of this service, in the order in which they are locked."""

__all__ = [
    "ACCOUNTS",
    "ATTEMPTS",
    "BREAKS",
    "DISPUTES",
    "ENTRIES",
    "OPERATIONS",
    "ORDER_PAYMENTS",
    "PAYMENTS",
    "RECONCILIATIONS",
    "REFUNDS",
    "ROWS",
    "TENANTS",
    "accounts",
    "disputes",
    "ledger",
    "payments",
    "reconciliation",
    "refunds",
    "webhooks",
]
