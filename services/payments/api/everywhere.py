"""What operators list of all tenants, whichever cells these are in: one list in one order, page by page."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from libs.common.database import Connection
from libs.common.http.routes import Call
from libs.common.messaging.shell import Shell
from services.payments.repository.bookmark import Bookmark

T = TypeVar("T")

Key = tuple[UUID, UUID]
"""Whose it is, and its id."""
Find = Callable[[Connection, Bookmark, int], Awaitable[Mapping[Key, Bookmark]]]
"""The next keys of one database, whosever they are, and where each stands in the list."""
Read = Callable[[Connection, Sequence[Key]], Awaitable[Sequence[T]]]
"""What is still there of these."""


async def whosever(
    call: Call, find: Find, read: Read[T], place: Callable[[T], list[Any]], *, of: UUID | None, after: Bookmark, limit: int
) -> Sequence[T]:
    """As many as that of all tenants or of one, if so many there are: what ends between two reads makes no page the last.

    `place` is where each stands in the list. Raises UnavailableError while a cell cannot be asked that somebody is in.
    """
    found = list[T]()
    shells = call.service.every_shell() if of is None else [call.service.shell_of(of)]
    while len(found) < limit:
        wanted = limit - len(found)
        keys = [(at, key, shell) for shell in shells for key, at in (await _found(shell, find, after, wanted)).items()]
        page = sorted(keys, key=lambda each: each[0])[:wanted]
        for shell in shells:
            # A tenant that moves has rows in two databases for a while, of which one counts.
            theirs = [key for _, key, where in page if where is shell and call.service.shell_of(key[0]) is shell]
            if theirs:
                async with shell.database.transaction({tenant for tenant, _ in theirs}) as connection:
                    found += await read(connection, theirs)
        if len(page) < wanted:
            break
        after = page[-1][0]
    return sorted(found, key=place)


async def _found(shell: Shell, find: Find, after: Bookmark, limit: int) -> Mapping[Key, Bookmark]:
    async with shell.database.acquire() as connection:
        return await find(connection, after, limit)
