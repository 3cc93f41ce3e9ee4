"""Time in: what runs for as long as the worker lives."""

from services.checkout.jobs.clockwork import fire_timers

JOBS = (fire_timers,)
