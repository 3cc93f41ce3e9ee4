"""Token buckets: how often something may happen. They decide in memory, and each process has its own."""

from collections import OrderedDict
from collections.abc import Hashable


class TokenBucket:
    """Tokens that come back at a steady rate, up to a burst. They are promised in the order in which they are asked for."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """So many tokens a second, at least one of which is there at once."""
        self._rate = rate
        self._burst = self._tokens = max(1.0, burst)
        self._at = now

    def wait(self, now: float) -> float:
        """In how many seconds the next token is there; 0 when one is."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def left(self, now: float) -> float:
        """How many tokens are there."""
        self.wait(now)
        return max(self._tokens, 0.0)

    def take(self) -> None:
        """Take the token that `wait` spoke of, be it a coming one."""
        self._tokens -= 1


class TokenBuckets:
    """A bucket for each key, of which only the most recently used are kept: a forgotten one is full again."""

    def __init__(self, rate: float, burst: float, *, kept: int) -> None:
        self.rate, self.burst, self._kept = rate, max(1.0, burst), kept
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def wait(self, key: Hashable, now: float) -> float:
        """In how many seconds there will be a token; 0 when there is one. Takes none."""
        bucket = self._buckets.get(key)
        return bucket.wait(now) if bucket else 0.0

    def left(self, key: Hashable, now: float) -> float:
        """How many tokens are there. Takes none."""
        bucket = self._buckets.get(key)
        return bucket.left(now) if bucket else self.burst

    def take(self, key: Hashable, now: float) -> float:
        """Take a token and answer 0; or leave it, and answer in how many seconds there will be one."""
        bucket = self._buckets.pop(key, None) or TokenBucket(self.rate, self.burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._kept:
            self._buckets.popitem(last=False)
        wait = bucket.wait(now)
        if not wait:
            bucket.take()
        return wait
