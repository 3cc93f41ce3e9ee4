"""Plays mutants: once all tests as they are, then a fork of the warm process for each mutant."""

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any, cast

import pytest

from tests.mutation.areas import area_of
from tests.mutation.patching import Key, NotApplicableError, write
from tests.mutation.report import Report
from tests.mutation.sites import Mutant

Entered = tuple[str, Key]
"""A function: its file, and what it is called and where it begins in it."""
SURVIVED, KILLED, NOT_APPLICABLE = 0, 1, 3
CONTROLS = 30
"""So many tests are run in a fork as it is, before any mutant is."""
MOST_CALLS = 500_000
"""After so many a test has entered all that it enters, nearly always."""
AT_ONCE = 2 * (os.cpu_count() or 1)
LEAST_SECONDS, TIMES = 20.0, 3
"""How long a mutant may take: so many times as long as its tests took as they are, and this besides."""


@dataclass(eq=False)  # pytest keeps its plugins in sets
class Noticed:
    """Ends the process at the first failure, and says whose it was."""

    pipe: int

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self.pipe, report.nodeid.encode())
            os._exit(KILLED)


@dataclass(frozen=True)
class Elsewhere:
    """What is said to follow the last test: it shares with it what the whole session does, and no folder, so that any may."""

    session: pytest.Session

    def listchain(self) -> list[pytest.Session]:
        return [self.session]


class Failed:
    """Remembers which tests fail as they are."""

    def __init__(self) -> None:
        self.nodes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.nodes.append(report.nodeid)


@dataclass
class Game:
    """A mutant that is being played; or none, to see that a fork as it is fails no test."""

    mutant: Mutant | None
    pid: int
    pipe: int
    ends_at: float


class Play:
    """All tests once, then all mutants."""

    def __init__(self, session: pytest.Session, report: Report) -> None:
        self._session = session
        self._report = report
        self._seconds: dict[str, float] = {}
        self._entered: dict[Entered, set[str]] = defaultdict(set)
        self._knows_all = False
        self._items = {item.nodeid: item for item in session.items}

    def warm_up(self, *, briefly: bool) -> None:
        """Run the tests as they are, and write down what each enters; briefly: those alone that noticed a mutant last time.

        Raises UsageError if one fails.
        """
        failed, begun = Failed(), time.monotonic()
        self._session.config.pluginmanager.register(failed)
        paths = {str(mutant.path) for mutant in self._report.mutants}
        needed = {self._report.killers.get(mutant.name) for mutant in self._report.mutants}
        items = [item for item in self._session.items if not briefly or item.nodeid in needed]
        for item, following in pairwise([*items, None]):
            assert item is not None
            with _quiet(), _traced(paths) as entered:
                started = time.monotonic()
                self._run(item, following)
                self._seconds[item.nodeid] = time.monotonic() - started
            for each in entered:
                self._entered[each].add(item.nodeid)
        if failed.nodes:
            raise pytest.UsageError(f"not played: these tests fail as they are: {', '.join(failed.nodes)}")
        self._session.config.pluginmanager.unregister(failed)
        self._knows_all = not briefly
        self._demand_that_nothing_fails_by_being_forked([item.nodeid for item in items])
        self._report.say(f"{len(items)} tests, {time.monotonic() - begun:.0f} s as they are")

    def _demand_that_nothing_fails_by_being_forked(self, tests: Sequence[str]) -> None:
        quick = sorted(tests, key=lambda test: self._seconds[test])[:CONTROLS]
        dear = [test for test in tests if not test.startswith("tests/unit/")][:: max(1, len(tests) // CONTROLS)]
        # Each once: of a test that follows itself pytest thinks that it stands ready.
        game = self._begin(None, [*dict.fromkeys([*quick, *dear])])
        _, status = os.waitpid(game.pid, 0)
        _end_all_of(game.pid)
        noticed = os.read(game.pipe, 10_000).decode()
        os.close(game.pipe)
        if os.waitstatus_to_exitcode(status) != SURVIVED:
            raise pytest.UsageError(f"not played: in a fork this fails as it is: {noticed}")

    def all(self) -> None:
        """Play every mutant, a few more at once than there are cores: some of their tests only wait."""
        waiting, games = [*self._report.mutants][::-1], dict[int, Game]()
        try:
            while waiting or games:
                while waiting and len(games) < AT_ONCE:
                    mutant = waiting.pop()
                    game = self._begin(mutant, self.tests_for(mutant))
                    games[game.pid] = game
                for game in [*games.values()]:
                    if self._ended(game):
                        del games[game.pid]
                time.sleep(0.005)
        finally:
            for group in games:
                _end_all_of(group)

    def _run(self, item: pytest.Item, following: pytest.Item | None) -> None:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following or cast("pytest.Item", Elsewhere(self._session)))

    def tests_for(self, mutant: Mutant) -> Sequence[str]:
        """Those that enter what is changed: the one that noticed it last time first, then the quick ones."""
        area = area_of(mutant.path)
        of_area = [test for test in self._items if area.has(test)]
        if mutant.constant is None and self._knows_all:
            lines = {(name, line) for (path, (name, line)) in self._entered if path == str(mutant.path)}
            around = [each for each in lines if mutant.is_within(each[0])]
            entering = set[str]().union(*(self._entered[str(mutant.path), each] for each in around))
            of_area = [test for test in of_area if test in entering]
        last = self._report.killers.get(mutant.name)
        return sorted(of_area, key=lambda test: (test != last, *self._costs(test)))

    def _costs(self, test: str) -> tuple[str, float]:
        """Those that need a server of their module's come late, and together."""
        is_dear = not test.startswith("tests/unit/")
        return test.partition("::")[0] if is_dear else "", self._seconds.get(test, 0.0)

    def _begin(self, mutant: Mutant | None, tests: Sequence[str]) -> Game:
        limit = LEAST_SECONDS + TIMES * sum(self._seconds.get(test, 1.0) for test in tests)
        mine, its = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.close(mine)
            self._play(mutant, tests, its)
        os.close(its)
        return Game(mutant, pid, mine, time.monotonic() + limit)

    def _play(self, mutant: Mutant | None, tests: Sequence[str], pipe: int) -> None:
        """In the fork: this never returns."""
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for each in (1, 2):
                os.dup2(nowhere, each)
            try:
                if mutant is not None:
                    write(mutant)
            except NotApplicableError:
                os._exit(NOT_APPLICABLE)
            self._session.config.pluginmanager.register(Noticed(pipe))
            for test, following in pairwise([*(self._items[test] for test in tests), None]):
                assert test is not None
                self._run(test, following)
        except BaseException as error:  # noqa: BLE001 - whatever the bug comes to, somebody would notice
            os.write(pipe, f"{type(error).__name__}: {error}".encode())
            os._exit(KILLED)
        os._exit(SURVIVED)

    def _ended(self, game: Game) -> bool:
        pid, status = os.waitpid(game.pid, os.WNOHANG)
        if pid == 0 and time.monotonic() < game.ends_at:
            return False
        _end_all_of(game.pid)
        assert game.mutant is not None
        if pid == 0:
            os.waitpid(game.pid, 0)
            self._report.hung(game.mutant)
        elif os.WIFSIGNALED(status) or os.WEXITSTATUS(status) not in {SURVIVED, NOT_APPLICABLE}:
            self._report.killed(game.mutant, os.read(game.pipe, 10_000).decode() or "it ended the process")
        elif os.WEXITSTATUS(status) == NOT_APPLICABLE:
            self._report.not_applicable(game.mutant)
        else:
            self._report.survived(game.mutant)
        os.close(game.pipe)
        return True


def _end_all_of(group: int) -> None:
    """What a test had started goes with it."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the dots: there is a line of progress of our own."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    sys.stdout.flush()
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _traced(paths: set[str]) -> Iterator[set[Entered]]:
    """Which functions of these files are entered, as far as a long test has come after so many calls."""
    entered: set[Entered] = set()
    left = iter(range(MOST_CALLS))

    def trace(frame: FrameType, _event: str, _argument: Any) -> None:
        code = frame.f_code
        if code.co_filename in paths:
            entered.add((code.co_filename, (code.co_qualname, code.co_firstlineno)))
        if next(left, None) is None:
            sys.settrace(before)

    before: Callable[..., Any] | None = sys.gettrace()
    sys.settrace(trace)
    try:
        yield entered
    finally:
        sys.settrace(before)
