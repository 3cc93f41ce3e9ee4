"""Several things at once, each to its end."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """All of it at once, each to its end: what is under way when another fails is not left half done."""
    done = await asyncio.gather(*work, return_exceptions=True)
    found: list[T] = []
    for each in done:
        if isinstance(each, BaseException):
            raise each
        found.append(each)
    return found
