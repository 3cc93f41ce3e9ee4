"""Commands of many callers, carried out together: for those that all want the same row.

Each in a transaction of its own they would stand in line for it with a connection each, and nobody else would get one. Here they
stand in line in memory, in the order in which they came, and take the row together.
"""

import asyncio
from collections import deque
from typing import Any

from libs.common.database import SHED
from libs.common.decision import Message
from libs.common.errors import OverloadedError
from libs.common.messaging.shell import Failure, Shell

AT_ONCE = 500
MOST_WAITING = 10_000


class Gathering:
    """One transaction at a time, of all that came while the one before it was under way."""

    def __init__(self, shell: Shell, *, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._shell = shell
        self._at_once, self._most_waiting = at_once, most_waiting
        self._waiting: deque[tuple[Message[Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def execute(self, message: Message[Any]) -> Any:
        """Carry out one command; answers what its handler answers. Raises its error, and OverloadedError when too many wait."""
        if len(self._waiting) >= self._most_waiting:
            SHED.labels("gathering").inc()
            raise OverloadedError
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="gathering")
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(self._at_once, len(self._waiting)))]
            wanted = [each for each in taken if not each[1].done()]  # whoever hung up wants nothing
            try:
                answers = await self._shell.execute_each([message for message, _ in wanted])
            except Exception as error:  # noqa: BLE001 - each caller is told what became of theirs
                answers = [Failure(error)] * len(wanted)
            for (_, future), answer in zip(wanted, answers, strict=True):
                _settle(future, answer)


def _settle(future: "asyncio.Future[Any]", answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, Failure):
        future.set_exception(answer.error)
    else:
        future.set_result(answer)
