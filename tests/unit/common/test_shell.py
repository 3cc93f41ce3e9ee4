"""A transaction is tried again when somebody was faster, and given up in words; what the database refuses is found by halving."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from libs.common.database import ConcurrencyError
from libs.common.decision import Message
from libs.common.errors import ConflictError
from libs.common.messaging.shell import RETRIES, Failure, isolated, retried
from tests.shared.callers import message
from tests.unit.memory import TENANT


class _Attempts:
    """A transaction that somebody is faster than, so many times."""

    def __init__(self, lost: int, error: type[Exception] = ConcurrencyError) -> None:
        self.count, self._lost, self._error = 0, lost, error

    async def __call__(self) -> str:
        self.count += 1
        if self.count <= self._lost:
            raise self._error("somebody was faster")
        return "done"


async def test_whoever_is_not_the_fastest_tries_again_and_is_told_so_when_that_never_ends() -> None:
    for lost, error in ((2, ConcurrencyError), (RETRIES, asyncpg.exceptions.SerializationError)):
        patient = _Attempts(lost, error)
        assert (await retried(patient), patient.count) == ("done", lost + 1)
    beaten = _Attempts(100)
    with pytest.raises(ConflictError) as told:
        await retried(beaten)
    assert (told.value.code, told.value.members, beaten.count) == ("contention", {"retry_after": 1}, RETRIES + 1)


async def test_what_is_wrong_is_not_tried_again() -> None:
    wrong = _Attempts(1, ValueError)
    with pytest.raises(ValueError, match="faster"):
        await retried(wrong)
    assert wrong.count == 1


@pytest.mark.parametrize("bad", [{0}, {3}, {6}, {2, 5}, set(range(7))])
async def test_each_message_that_the_database_refuses_fails_alone_and_the_others_are_carried_out_in_order(bad: set[int]) -> None:
    messages = [message(number, TENANT) for number in range(7)]
    done: list[int] = []

    async def execute(batch: Sequence[Message[Any]]) -> list[Any]:
        if any(each.data in bad for each in batch):
            raise asyncpg.exceptions.NumericValueOutOfRangeError
        done.extend(each.data for each in batch)
        return [each.data for each in batch]

    answers = await isolated(messages, execute)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, Failure)] == sorted(bad)
    assert done == [answer for answer in answers if not isinstance(answer, Failure)] == sorted(set(range(7)) - bad)


async def test_what_passes_by_itself_is_held_against_no_message() -> None:
    async def execute(_batch: Sequence[Message[Any]]) -> list[Any]:
        raise asyncpg.exceptions.CannotConnectNowError

    with pytest.raises(asyncpg.exceptions.CannotConnectNowError):
        await isolated([message(0, TENANT), message(1, TENANT)], execute)
