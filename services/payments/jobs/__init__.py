"""Time in: what runs for as long as the worker lives."""

from services.payments.jobs.money.orphans import return_orphans
from services.payments.jobs.money.refunds import watch_refunds
from services.payments.jobs.payment import count_payments, watch_payments
from services.payments.jobs.provider.executor import operate
from services.payments.jobs.provider.webhooks import settle_webhooks
from services.payments.jobs.reconciliation.reconciler import reconcile

JOBS = (operate, watch_payments, count_payments, reconcile, settle_webhooks, watch_refunds, return_orphans)
