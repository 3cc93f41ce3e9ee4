"""Time in: what runs for as long as the worker lives."""

from services.payments.jobs.executor import operate

JOBS = (operate,)
