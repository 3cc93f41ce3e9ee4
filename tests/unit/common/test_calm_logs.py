"""A fault is told, and told again with its number, and never by the ten thousand."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from libs.common.telemetry.calm import Calm
from libs.common.telemetry.logs import PROCESSORS

MANY = 46_000


class Lines:
    """What is written by a logger with these processors."""

    def __init__(self, calm: Calm) -> None:
        self.calm = calm
        self.written: list[dict[str, Any]] = []
        structlog.configure(processors=[calm, structlog.processors.format_exc_info, self._write], cache_logger_on_first_use=False)
        self.log = structlog.get_logger()

    def _write(self, _logger: object, method: str, line: Any) -> str:
        self.written.append({**line, "level": method})
        raise structlog.DropEvent

    def told(self) -> int:
        """How many lines there were, by what is written."""
        summaries: list[int] = [line["suppressed"] for line in self.written if "suppressed" in line]
        return len(self.written) - len(summaries) + sum(summaries)


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def _names(lines: Sequence[dict[str, Any]]) -> set[str]:
    return {line["event"] for line in lines}


async def test_of_a_flood_the_first_lines_are_written_and_one_a_window_says_how_many_there_were() -> None:
    lines = Lines(Calm(window_seconds=0.2))
    for number in range(MANY):
        lines.log.error("row.unreadable", group="checkout", exc_info=ValueError(number))
    lines.log.error("row.unreadable", group="cart")
    assert len(lines.written) == 21
    assert all("ValueError" in line["exception"] for line in lines.written[:20])
    assert lines.written[-1]["group"] == "cart"
    async with asyncio.timeout(30):
        while lines.told() < MANY + 1:
            await asyncio.sleep(0.05)
    assert lines.told() == MANY + 1
    assert len(lines.written) == 22
    assert lines.written[-1]["level"] == "error"


def test_without_a_loop_the_next_line_after_the_window_says_how_many_were_left_out() -> None:
    lines = Lines(Calm(first=2, window_seconds=5.0))
    for _ in range(1_000):
        lines.log.warning("inbox.retrying")
    assert len(lines.written) == 2
    [window] = lines.calm._windows.values()
    window.opened -= 5.0
    lines.log.warning("inbox.retrying")
    assert [line.get("suppressed") for line in lines.written] == [None, None, 998]


def test_what_is_money_or_security_or_another_cause_is_never_left_out() -> None:
    lines = Lines(Calm(first=1))
    for number in range(50):
        lines.log.error("orphan_money.not_returned", payment_id=number)
        lines.log.warning("security.login_failed")
        lines.log.info("tenant.onboarded")
        lines.log.critical("inbox.halted", group=f"group {number}")
    assert len(lines.written) == 200


def test_however_many_causes_there_are_the_memory_of_them_is_bounded() -> None:
    calm = Calm(first=1)
    lines = Lines(calm)
    for number in range(5_000):
        lines.log.error("inbox.refused", reason=f"reason {number}")
    assert len(lines.written) < 600
    assert len(calm._windows) < 600


def test_every_process_writes_through_it() -> None:
    assert isinstance(PROCESSORS[0], Calm)
