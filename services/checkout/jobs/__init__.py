"""Time in: what runs for as long as the worker lives."""

from services.checkout.jobs.admission import forget_places, let_in
from services.checkout.jobs.clockwork import fire_timers
from services.checkout.jobs.declines import forget_refused_cards

JOBS = (fire_timers, forget_refused_cards, let_in, forget_places)
