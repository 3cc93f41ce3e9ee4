"""What jobs have seen is put to the handlers in batches: one that the database refuses takes none of the others with it."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from libs.common.database import passes_by_itself
from libs.common.decision import Message
from libs.common.errors import ConflictError
from libs.common.messaging.shell import Failure, Shell

REFUSED: tuple[type[Exception], ...] = (asyncpg.PostgresError, ConflictError)
"""What refuses a whole transaction: something in it that cannot be stored, or too many who want the same rows."""


async def tell_all(shell: Shell, messages: Sequence[Message[Any]]) -> list[Any]:
    """Answers as the shell does, with a `Failure` for what is refused however it is tried. Raises what passes by itself."""
    try:
        return await shell.execute_many(messages)
    except REFUSED as error:
        if passes_by_itself(error):
            raise
        if len(messages) == 1:
            return [Failure(error)]
    half = len(messages) // 2
    return [*await tell_all(shell, messages[:half]), *await tell_all(shell, messages[half:])]
