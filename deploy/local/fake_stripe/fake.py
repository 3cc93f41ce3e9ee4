"""One fake Stripe: its books, its time, and how it behaves at the moment."""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.local.fake_stripe.books import Books
from deploy.local.fake_stripe.delivery import Sender
from deploy.local.fake_stripe.faults import Plan
from deploy.local.fake_stripe.limits import Limiter, Rates


class Fake:
    """The books, the sender of webhooks, the fault plan and the rate limits in force."""

    def __init__(self, books: Books, clock: Callable[[], float] = time.time) -> None:
        self.books = books
        self.plan = Plan()
        self.limiter = Limiter(Rates(), time.monotonic)
        self.sender = Sender(books, lambda: self.plan)
        self.codes: dict[str, tuple[str, int]] = {}
        """What accounts said yes with, and until when each is good."""
        self._clock = clock

    def now(self) -> int:
        """Return the fake's own time, in Unix seconds."""
        return self.books.moment(self._clock())
