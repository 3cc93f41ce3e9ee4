"""A plugin of pytest that plays mutants: `./cartwright test --mutants [PATH…]`.

The tests are collected and run once as they are, and it is written down which of them enter which function, and how long each
takes. Then this process, warm as it is, is forked for every mutant, as many at once as there are cores. A fork writes the
mutant into itself (`patching.py`) and runs the tests that enter the changed function, the one that noticed it last time
first, then the quick ones; it ends with the first that fails. One that outlives its time hangs, which somebody would notice.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.mutation.areas import chosen, tests_of
from tests.mutation.play import Play
from tests.mutation.report import Report
from tests.mutation.sites import Mutant

SEEDLESS = "mutants"
MUTANTS = pytest.StashKey[Sequence[Mutant]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutants")
    group.addoption("--mutants-of", action="append", default=[], help="files or folders whose mutants are played")
    group.addoption("--mutants-count", type=int, default=0, help="how many; 0 are all")
    group.addoption("--mutants-brief", action="store_true", help="try only who noticed each last time, then all of its area")
    group.addoption("--mutants-json", action="store_true", help="one JSON object on stdout")


def pytest_configure(config: pytest.Config) -> None:
    """Throw no dice: what is noticed today is noticed tomorrow. The least example that shows it need not be found."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(SEEDLESS, derandomize=True, database=None, deadline=None, phases=phases)
    settings.load_profile(SEEDLESS)
    paths, count = [Path(each) for each in config.getoption("mutants_of")], config.getoption("mutants_count") or None
    config.stash[MUTANTS] = mutants = chosen(paths, count)
    if not mutants:
        raise pytest.UsageError(f"there is nothing to change in {', '.join(map(str, paths))}")
    config.args[:] = tests_of(mutants)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of running the tests: play the mutants against them."""
    config = session.config
    report, is_brief = Report(config.stash[MUTANTS], is_json=config.getoption("mutants_json")), config.getoption("mutants_brief")
    config.pluginmanager.unregister(name="terminalreporter")  # what is told here is not of tests
    play = Play(session, report)
    play.warm_up(briefly=is_brief)
    play.all()
    session.testsfailed = 0 if report.told() else 1
    if not is_brief:
        report.keep()
    return True
