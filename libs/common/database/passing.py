"""Which errors pass by themselves, for whoever tries a whole transaction again."""

import asyncpg

from libs.common.errors import UnavailableError

TRANSIENT: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg calls a statement on a connection that is just breaking
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.LockNotAvailableError,
)
"""What passes by itself: tried again with backoff, and never held against a message."""


class ConcurrencyError(Exception):
    """A row was not as it had been read: somebody was faster. The whole transaction is tried again."""


PASSING: tuple[type[Exception], ...] = (UnavailableError, ConcurrencyError, *TRANSIENT)
"""All that passes by itself, for whoever retries a whole transaction."""


def passes_by_itself(error: BaseException) -> bool:
    """Whether trying again may help. A value that asyncpg cannot encode never will, though it calls it an interface error."""
    return isinstance(error, PASSING) and not (isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError))
