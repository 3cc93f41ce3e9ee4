"""Time in: what runs for as long as the worker lives."""

from services.payments.jobs.executor import operate
from services.payments.jobs.orphans import return_orphans
from services.payments.jobs.reconciliation import reconcile
from services.payments.jobs.refunds import watch_refunds
from services.payments.jobs.watching import count_payments, watch_payments
from services.payments.jobs.webhooks import settle_webhooks

JOBS = (operate, watch_payments, count_payments, reconcile, settle_webhooks, watch_refunds, return_orphans)
