"""Each alert is fired for real: something is broken for it, Prometheus tells, the page's commands run, and it ends."""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import pytest
import pytest_asyncio

import tests.drills.alerts.situations
import tests.drills.alerts.the_broker
import tests.drills.alerts.the_databases  # noqa: F401 - all take their place in SITUATIONS, these last
from deploy.cli.api import connected
from deploy.cli.errors import ExitCode
from deploy.cli.supply import supply
from deploy.local.gateway import program as envoy
from deploy.local.ports import HOST, spare_port
from deploy.local.processes import Child, dying_with_parent
from deploy.local.stack import Stack
from deploy.observability.declared import declared
from deploy.observability.rules import Pace
from tests.drills.alerts.scene import SITUATIONS, Scene
from tests.shared.market import OFFERS, Market, shop_at
from tests.shared.pages import commands, run
from tests.shared.prometheus import program
from tests.shared.watching import places, watched

FACTOR: Final = 60
"""By which every window is shorter than it is: five minutes are five seconds, three days 72 minutes."""
ALWAYS: Final = ("CartwrightNotReconciled",)
"""Nobody reconciles every minute, which is what the hour has come to."""
OF_BUDGETS: Final = [each.alert for each in declared().objectives]
"""Their slowest pair ends when the shorter window has none of it: six hours, or minutes. Meanwhile the next breaks."""

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("a stack that is broken in twenty ways, one after another; the rules by themselves are in tests/contract"),
    pytest.mark.skipif(envoy() is None, reason="there is no Envoy for this platform: availability is measured at it"),
    pytest.mark.timeout(1_800),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    prometheus = program("prometheus", request.config.cache.mkdir("prometheus"))
    folder = tmp_path_factory.mktemp("alerts")
    stack = Stack(folder / "stack", say=print)
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description(), connections=100))
        shop = await shop_at(api, "alerts-fired")
        await supply(shop, "GBP", OFFERS, print)
        port = spare_port()
        looks = ("--watch", "--patience", "0", "--every", "0.5", "--metrics-port", str(port))
        command = [*dying_with_parent("KILL"), sys.executable, "-m", "deploy.cli", "invariants", *looks]
        watcher = Child("invariants", command, environment={"CARTWRIGHT_HOME": str(stack.home.path)}, log=folder / "looks.log")
        await watcher.start()
        open_things.push_async_callback(watcher.stop)
        targets = places(stack) | {"invariants": f"{HOST}:{port}"}
        watch = await open_things.enter_async_context(watched(prometheus, folder, targets, Pace(FACTOR)))
        yield Scene(Market(stack, api, shop), watch, watcher)


async def test_every_alert_is_fired_here() -> None:
    fired = {alert for situation in SITUATIONS.values() for alert in situation.alerts}
    assert fired == declared().pages.keys()


@pytest.mark.parametrize("name", SITUATIONS)
async def test_an_alert_fires_when_this_happens_its_page_can_be_followed_and_it_ends(scene: Scene, name: str) -> None:
    situation = SITUATIONS[name]
    for alert in situation.alerts:
        if alert not in ALWAYS:
            await scene.watch.until_quiet(alert)
    since = time.monotonic()
    async with situation.happens(scene) as blanks:
        for alert in situation.alerts:
            for told in await scene.watch.until_fired(alert, since):
                said = told["annotations"]
                assert said["runbook_url"] == f"docs/runbooks/{declared().pages[alert]}.md"
                assert "<" not in said["summary"] + said["description"], said
            print(f"{alert} fires")
        for command in commands(situation.page) if situation.page else ():
            if not any(part in command for part in situation.not_run):
                done = await run(scene.market, command, blanks)
                assert done.code in {ExitCode.DONE, ExitCode.NOT_SO, ExitCode.ENVIRONMENT}, (command, done)
                assert "Traceback" not in done.err, (command, done)
                print(f"{command}: {done.code}\n{done.out[:400]}")
    for alert in situation.alerts:
        if alert not in OF_BUDGETS:
            await scene.watch.until_quiet(alert)


@pytest.mark.parametrize("alert", OF_BUDGETS)
async def test_a_budget_that_burns_no_more_is_not_told_any_more(scene: Scene, alert: str) -> None:
    await scene.watch.until_quiet(alert)
