"""All SQL of the payments service."""

from services.payments.repository import payments
from services.payments.repository.payments import OPERATIONS, PAYMENTS, TENANTS

ROWS = (TENANTS, PAYMENTS, OPERATIONS)
"""Every aggregate of this service, in the order in which they are locked."""

__all__ = ["OPERATIONS", "PAYMENTS", "ROWS", "TENANTS", "payments"]
