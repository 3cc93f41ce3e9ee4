"""How often a stranger, a shopper and a tenant may begin what costs us something. Each process counts by itself, in memory.

What is counted here is refused before any database is asked. Nothing that is kept grows without end: the least recently
used is forgotten, which only ever lets somebody in.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import ip_address, ip_network
from math import ceil

from starlette.types import Scope

from libs.common.auth import Principal
from libs.common.buckets import TokenBuckets
from libs.common.errors import UnavailableError
from libs.common.http.turns import Turns
from libs.common.settings import Settings
from libs.common.telemetry import Counter

MAX_KEPT = 20_000
FREE_GUESSES = 10
LONGEST_PAUSE_SECONDS = 60.0
NEIGHBOURHOOD = 64
"""The part of an IPv6 address that one subscriber has to himself, in bits."""

LIMITED = Counter("cartwright_http_rate_limited_total", "Requests refused for their number, by whose number it was", ["by"])


class RateLimitedError(UnavailableError):
    """Too many of one kind; nothing was done."""

    status = 429


def address_of(scope: Scope) -> str:
    """Who is at the other end, as far as it can be told: an IPv4 address, or the network of an IPv6 address."""
    client = scope.get("client")
    address: str = client[0] if client else ""
    if ":" not in address:
        return address
    try:
        return str(ip_network((ip_address(address.partition("%")[0]), NEIGHBOURHOOD), strict=False))
    except ValueError:
        return address


class Guesses:
    """Who was wrong how often. After the first few guesses each costs a pause twice as long as the one before."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def wait(self, who: Hashable, now: float) -> float:
        """In how many seconds they may guess again."""
        return max(0.0, self._wrong.get(who, (0, now))[1] - now)

    def wrong(self, who: Hashable, now: float) -> None:
        """Remember that they were wrong."""
        count = self._wrong.pop(who, (0, now))[0] + 1
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(count - FREE_GUESSES, 10)) if count >= FREE_GUESSES else 0.0
        self._wrong[who] = count, now + pause
        if len(self._wrong) > MAX_KEPT:
            self._wrong.popitem(last=False)

    def right(self, who: Hashable) -> None:
        """Forget it: they know."""
        self._wrong.pop(who, None)


class Rates:
    """What one process has counted."""

    def __init__(self, settings: Settings | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Without settings, nobody is limited."""
        self._clock = clock
        self._of_address, self._of_subject, self._of_tenant, self._misses = (
            _buckets(rate)
            for rate in (
                (settings.rate_per_address, settings.rate_per_subject, settings.rate_per_tenant, settings.rate_of_misses)
                if settings
                else (None,) * 4
            )
        )
        self._turns = Turns(clock) if settings else None
        self._guesses = Guesses()
        self._found: OrderedDict[Hashable, None] = OrderedDict()

    async def admit(self, what: str, principal: Principal | None, address: str) -> None:
        """Count it, and have whoever asks for most let others go first. Raises RateLimitedError."""
        self.count(what, principal, address)
        if self._turns:
            await self._turns.take(principal.tenant_id if principal else None, address)

    def count(self, what: str, principal: Principal | None, address: str) -> None:
        """Count one of a shopper and their tenant, of a tenant's own machine, or of an address. Raises RateLimitedError."""
        if principal is None:
            self._take("address", self._of_address, (what, address))
            return
        if principal.is_shopper:
            self.subject(what, (principal.tenant_id, principal.subject))
        self._take("tenant", self._of_tenant, (what, principal.tenant_id))

    def subject(self, what: str, who: Hashable) -> None:
        """Count one of a shopper or a session. Raises RateLimitedError."""
        self._take("subject", self._of_subject, (what, who))

    def demand_not_made_up(self, name: Hashable, address: str) -> None:
        """Let nobody try out names who was wrong too often, unless this one has been found before. Raises RateLimitedError."""
        if name not in self._found and (wait := self.wait_for_miss(address)):
            raise _limited("miss", wait)

    def wait_for_miss(self, address: str) -> float:
        """In how many seconds this address may be wrong once more."""
        return self._misses.wait(address, self._clock()) if self._misses else 0.0

    def found(self, name: Hashable) -> None:
        """Remember that there is something of this name."""
        self._found[name] = None
        self._found.move_to_end(name)
        if len(self._found) > MAX_KEPT:
            self._found.popitem(last=False)

    def missed(self, address: str) -> None:
        """Remember that this address named what is not there, or proved nothing."""
        if self._misses:
            self._misses.take(address, self._clock())

    def demand_may_guess(self, name: str, address: str) -> None:
        """Let nobody guess the secret of this name too fast. Raises RateLimitedError."""
        if wait := self.wait_to_guess(name, address):
            raise _limited("guess", wait)

    def wait_to_guess(self, name: str, address: str) -> float:
        """In how many seconds this address may guess once more."""
        return self._guesses.wait((name, address), self._clock())

    def guessed(self, name: str, address: str, *, right: bool) -> None:
        """Remember how a guess at the secret of this name came out. Others who know it are not held up by it."""
        if right:
            self._guesses.right((name, address))
        else:
            self._guesses.wrong((name, address), self._clock())

    def _take(self, by: str, buckets: TokenBuckets | None, key: Hashable) -> None:
        if buckets and (wait := buckets.take(key, self._clock())):
            raise _limited(by, wait)


def _limited(by: str, wait: float) -> RateLimitedError:
    LIMITED.labels(by).inc()
    return RateLimitedError("rate-limited", f"too many of one {by}; wait for Retry-After seconds", retry_after=ceil(wait))


def _buckets(rate: str | None) -> TokenBuckets | None:
    if rate is None:
        return None
    per_second, _, burst = rate.partition("/")
    return TokenBuckets(float(per_second), float(burst), kept=MAX_KEPT)
