"""Whatever process dies at whatever step of a checkout, a cancellation, an expiry or a refund: it happens once, or not at all.

Nobody lists the steps: a first run of each journey writes down every commit, send, provider call and answer of the eight
service processes, and then each of these is died at, before and after, one run a step. In CI a sample, drawn by a seed
that is printed; all of them with `./cartwright test --crash-points`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count

import pytest
import pytest_asyncio

from deploy.cli.api import connected
from deploy.cli.invariants.check import Limits
from deploy.cli.invariants.run import checking
from deploy.cli.supply import supply
from deploy.cli.tenants import Wish, onboarded, operator
from tests.faults.crash.journeys import JOURNEYS, Journey
from tests.faults.crash.stage import Point, Stage, WatchedStack, common, sample
from tests.shared.market import OFFERS, Market
from tests.shared.toy import seeded

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(7_200)]

RECORDINGS = 2
BACKGROUND_SECONDS = 6
SAMPLED = 3
"""So many steps of each journey are died at in CI, of"""
DRAWN = 3
"""times as many drawn."""
SETTLED_SECONDS = 90
PATIENCE_SECONDS = 10
"""How long something may be wrong before it counts: services speak of the same thing a moment apart."""
TRIES = 3
"""Runs differ in how messages come together, so a step may need another."""


class Theatre:
    """Plays journeys on one stage, one after the other."""

    def __init__(self, market: Market, stage: Stage, admin_url: str) -> None:
        self.market, self.stage, self._admin_url = market, stage, admin_url
        self._numbers = count(1)
        self.reviving = asyncio.create_task(stage.revive())

    async def play(self, kind: type[Journey], fatal: Point | None = None) -> tuple[Sequence[Point], bool]:
        """Go one journey, in which somebody may have to die, and check it; answers its steps, and whether somebody did."""
        journey = kind(self.market, self._admin_url, f"{kind.NAME}-{next(self._numbers)}")
        await journey.prepare()
        await self.stage.quiet()
        self.stage.begin(fatal)
        going = asyncio.create_task(self._go(journey))
        await asyncio.wait({going, self.reviving}, return_when=asyncio.FIRST_COMPLETED)
        if self.reviving.done():
            self.reviving.result()
        await going
        noted, struck = self.stage.noted(), self.stage.struck()
        self.stage.begin()
        await journey.check()
        return noted, struck

    async def _go(self, journey: Journey) -> None:
        await journey.go()
        await self.market.until(journey.is_settled, SETTLED_SECONDS)
        await self.stage.quiet()

    async def record(self, kind: type[Journey]) -> list[Point]:
        """Every step that a journey takes whenever it is gone."""
        return common([(await self.play(kind))[0] for _ in range(RECORDINGS)])

    async def die_at(self, kind: type[Journey], point: Point) -> bool:
        """Have a process die at a step; answers whether the step was met."""
        for _ in range(TRIES):
            try:
                if (await self.play(kind, point))[1]:
                    return True
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{kind.NAME}: {point} was survived badly") from error
        return False

    async def parked(self) -> int:
        """How many messages were parked, anywhere."""
        token, found = await operator(self.market.api).token(), 0
        for service in ("identity", "cart", "checkout", "payments"):
            found += len((await self.market.api.call(service, "GET", "/ops/parked-messages", token=token)).body["items"])
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Theatre]:
    prefix = fresh_prefix("crash")
    stack = WatchedStack(
        tmp_path_factory.mktemp("stack"),
        database_prefix=prefix,
        topic_prefix=prefix,
        postgres_admin_url=admin_url,
        kafka_bootstrap=bootstrap_servers,
    )
    async with AsyncExitStack() as open_things:
        await open_things.enter_async_context(stack)
        api = await open_things.enter_async_context(connected(stack.description()))
        market = Market(stack, api, (await onboarded(api, Wish.of("market"))).shop(api))
        await supply(market.shop, "GBP", OFFERS, print)
        stage = Stage(stack, admin_url)
        await stage.learn_background(BACKGROUND_SECONDS)
        theatre = Theatre(market, stage, admin_url)
        yield theatre
        theatre.reviving.cancel()
        with suppress(asyncio.CancelledError):
            await theatre.reviving


@pytest.mark.parametrize("kind", JOURNEYS, ids=lambda kind: kind.NAME)
async def test_whoever_dies_at_whatever_step_of_a(theatre: Theatre, kind: type[Journey], request: pytest.FixtureRequest) -> None:
    points = await theatre.record(kind)
    every = request.config.getoption("--crash-points")
    # Of a step that a run does not come by nothing is learned, so a sample has others to draw instead.
    chosen = points if every else sample(points, seeded(time.time_ns() % 2**32), DRAWN * SAMPLED)
    wanted = len(chosen) * 3 // 4 if every else SAMPLED
    started, died = time.monotonic(), 0
    for point in chosen:
        begun = time.monotonic()
        met = await theatre.die_at(kind, point)
        died += met
        print(f"{time.monotonic() - begun:5.1f} s  {kind.NAME}: {point}{'' if met else ' (not met)'}", flush=True)
        if died == wanted and not every:
            break
    kinds = Counter(point.step[0] for point in points)
    print(f"{kind.NAME}: {len(points)} steps {dict(kinds)}, died at {died} in {time.monotonic() - started:.0f} s")
    assert kinds.keys() >= {"commit", "send"}
    assert died >= wanted
    assert await theatre.parked() == 0


async def test_after_all_of_it_every_invariant_holds_numbers_have_no_gaps_and_stock_is_conserved(theatre: Theatre) -> None:
    async with checking(theatre.market.api, Limits(), "market") as checker:
        assert (await checker.settled(PATIENCE_SECONDS)).violations == []
    await theatre.market.numbers_have_no_gaps_and_stock_is_conserved()
