"""Which errors pass by themselves, for whoever tries a whole transaction again, and which never will.

The first is a closed list. What is on neither may be anything, and is given a second try and no more.
"""

import asyncpg

from libs.common.errors import UnavailableError

TRANSIENT: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # of which `passes_by_itself` takes what is said of a connection, and no more
    asyncpg.InternalClientError,  # what asyncpg calls a statement on a connection that is just breaking
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # what a primary says that is one no longer
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
)
"""What passes by itself: tried again with backoff, and never held against a message."""


class ConcurrencyError(Exception):
    """A row was not as it had been read: somebody was faster. The whole transaction is tried again."""


PASSING: tuple[type[Exception], ...] = (UnavailableError, ConcurrencyError, *TRANSIENT)
"""All that passes by itself, for whoever retries a whole transaction."""

NEVER_PASSING: tuple[type[Exception], ...] = (
    ValueError,  # what cannot be encoded, by asyncpg or by Python, and an event that is too large
    OverflowError,
    RecursionError,
    asyncpg.exceptions.DataError,  # class 22: out of range, U+0000, a time past the end of time
    asyncpg.exceptions.IntegrityConstraintViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
    asyncpg.exceptions.ProtocolViolationError,
)
"""What the database will never take, nor Python make: trying again is in vain."""


def passes_by_itself(error: BaseException) -> bool:
    """Whether trying again may help. An interface error is one of the connection only if it says so."""
    if not isinstance(error, PASSING) or never_passes(error):
        return False
    return not isinstance(error, asyncpg.InterfaceError) or any(word in str(error) for word in ("clos", "terminat", "progress"))


def never_passes(error: BaseException) -> bool:
    """Whether trying again is in vain, however often: the fault is of what was to be stored."""
    return isinstance(error, NEVER_PASSING) and not isinstance(error, UnavailableError)
