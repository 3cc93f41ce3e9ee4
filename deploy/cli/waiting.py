"""Waiting for what other processes do: asked again and again, since they tell nobody."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Seen = TypeVar("Seen")


async def asked_again(
    read: Callable[[], Awaitable[Seen]],
    left: Callable[[Seen], int],
    *,
    patience_seconds: float,
    pause_seconds: float,
    longest_pause_seconds: float = 0.0,
) -> Seen:
    """Ask until nothing is left or patience ends, and return what was read last; the caller sees which of the two it was.

    Patience begins anew whenever fewer are left than ever. Pauses double up to the longest, or are all the same.
    """
    pause, fewest, end = pause_seconds, None, 0.0
    while True:
        seen = await read()
        count = left(seen)
        if fewest is None or count < fewest:
            fewest, end = count, time.monotonic() + patience_seconds
        if not count or time.monotonic() > end:
            return seen
        await asyncio.sleep(pause)
        pause = max(pause_seconds, min(pause * 2, longest_pause_seconds))
