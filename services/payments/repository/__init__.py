"""All SQL of the payments service."""

from services.payments.repository.money.disputes import DISPUTES
from services.payments.repository.money.ledger import ENTRIES
from services.payments.repository.money.refunds import REFUNDS
from services.payments.repository.payment import ATTEMPTS, ORDER_PAYMENTS, PAYMENTS, TENANTS
from services.payments.repository.provider.accounts import ACCOUNTS
from services.payments.repository.provider.operations import OPERATIONS
from services.payments.repository.reconciliation import BREAKS, RECONCILIATIONS

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
]
