"""How often a stranger, a shopper and a tenant may begin what costs us something. Each process counts by itself, in memory.

What is counted here is refused before any database is asked. Nothing that is kept grows without end: the least recently
used is forgotten, which only ever lets somebody in.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import ip_address, ip_network
from math import ceil
from typing import Any, NamedTuple
from uuid import UUID

from starlette.types import Scope

from libs.common.auth import Principal
from libs.common.buckets import TokenBuckets
from libs.common.choices import Choices
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


class Quota(NamedTuple):
    """What is left of how often something may be asked for (draft-ietf-httpapi-ratelimit-headers-10)."""

    by: str
    """Whose number it is."""
    most: int
    """So many at once, when nothing was asked for within the window."""
    window_seconds: int
    left: int
    reset_seconds: int
    """Until all of them are there again; to one who is refused, until there is one."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As structured fields."""
        policy = f'"{self.by}";q={self.most};w={self.window_seconds}'
        now = f'"{self.by}";r={self.left};t={self.reset_seconds}'
        return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode())]


class RateLimitedError(UnavailableError):
    """Too many of one kind; nothing was done."""

    status = 429

    def __init__(self, code: str, detail: str, *, quota: Quota | None = None, **members: Any) -> None:
        super().__init__(code, detail, **members)
        self.quota = quota


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

    def __init__(
        self, settings: Settings | None = None, clock: Callable[[], float] = time.monotonic, choices: Choices | None = None
    ) -> None:
        """Without settings, nobody is limited. By their choices tenants are limited more than by these, never less."""
        self._clock = clock
        self._choices = choices or Choices()
        self._of_address, self._of_subject, self._of_tenant, self._misses = (
            _buckets(rate)
            for rate in (
                (settings.rate_per_address, settings.rate_per_subject, settings.rate_per_tenant, settings.rate_of_misses)
                if settings
                else (None,) * 4
            )
        )
        self._requests_of_subject, self._requests_of_tenant, self._checkouts = (
            _buckets(rate)
            for rate in (
                (settings.rate_of_requests_per_subject, settings.rate_of_requests_per_tenant, settings.rate_of_checkouts)
                if settings
                else (None,) * 3
            )
        )
        self._tighter: OrderedDict[tuple[str, UUID], tuple[float, TokenBuckets]] = OrderedDict()
        """What tenants have chosen."""
        self._turns = Turns(clock) if settings else None
        self._guesses = Guesses()
        self._found: OrderedDict[Hashable, None] = OrderedDict()

    def request(self, principal: Principal) -> Quota | None:
        """Count one of all that a shopper, and their tenant, ask for. Raises RateLimitedError."""
        tenant_id = principal.tenant_id
        limits = self._choices.limits(tenant_id)
        of_tenant = self._tightened("tenant", tenant_id, self._requests_of_tenant, limits.tenant_per_second)
        quota = self._take("tenant", of_tenant, tenant_id)
        if not principal.is_shopper:
            return quota
        of_subject = self._tightened("subject", tenant_id, self._requests_of_subject, limits.subject_per_second)
        return self._take("subject", of_subject, (tenant_id, principal.subject))

    async def admit(self, what: str, principal: Principal | None, address: str, *, buys: bool = False) -> Quota | None:
        """Count it, and have whoever asks for most let others go first. Raises RateLimitedError."""
        quota = self.count(what, principal, address, buys=buys)
        if self._turns:
            await self._turns.take(principal.tenant_id if principal else None, address)
        return quota

    def count(self, what: str, principal: Principal | None, address: str, *, buys: bool = False) -> Quota | None:
        """Count one of a shopper and their tenant, of a tenant's own machine, or of an address. Raises RateLimitedError."""
        if principal is None:
            return self._take("address", self._of_address, (what, address))
        quota = None
        if principal.is_shopper:
            who = principal.tenant_id, principal.subject
            quota = self._purchase(who) if buys else self._take("subject", self._of_subject, (what, who))
        of_tenant = self._take("tenant", self._of_tenant, (what, principal.tenant_id))
        return quota or of_tenant

    def _purchase(self, who: tuple[UUID, UUID]) -> Quota | None:
        chosen = self._choices.limits(who[0]).checkouts_per_minute
        buckets = self._tightened("checkouts", who[0], self._checkouts, chosen / 60 if chosen else None, at_once=chosen)
        return self._take("checkouts", buckets, who)

    def _tightened(
        self, what: str, tenant_id: UUID, usual: TokenBuckets | None, per_second: float | None, *, at_once: int | None = None
    ) -> TokenBuckets | None:
        """The buckets of a tenant that has chosen less than is usual; else the usual ones."""
        if per_second is None or (usual is not None and per_second >= usual.rate):
            return usual
        rate, buckets = self._tighter.get((what, tenant_id), (None, None))
        if buckets is None or rate != per_second:
            burst = float(at_once or 10 * per_second)
            buckets = TokenBuckets(per_second, min(burst, usual.burst) if usual else burst, kept=MAX_KEPT)
            self._tighter[what, tenant_id] = per_second, buckets
            if len(self._tighter) > MAX_KEPT:
                self._tighter.popitem(last=False)
        return buckets

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

    def _take(self, by: str, buckets: TokenBuckets | None, key: Hashable) -> Quota | None:
        if buckets is None:
            return None
        now = self._clock()
        wait = buckets.take(key, now)
        left = buckets.left(key, now)
        reset = wait or (buckets.burst - left) / buckets.rate
        quota = Quota(by, int(buckets.burst), ceil(buckets.burst / buckets.rate), 0 if wait else int(left), ceil(reset))
        if wait:
            raise _limited(by, wait, quota)
        return quota


def _limited(by: str, wait: float, quota: Quota | None = None) -> RateLimitedError:
    LIMITED.labels(by).inc()
    detail = f"too many of one {by}; wait for Retry-After seconds"
    return RateLimitedError("rate-limited", detail, retry_after=ceil(wait), quota=quota)


def _buckets(rate: str | None) -> TokenBuckets | None:
    if rate is None:
        return None
    per_second, _, burst = rate.partition("/")
    return TokenBuckets(float(per_second), float(burst), kept=MAX_KEPT)
