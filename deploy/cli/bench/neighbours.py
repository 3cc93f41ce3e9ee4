"""What a quiet tenant notices of a loud one: purchases at a low fixed rate, and a price change a second.

The quiet one is measured alone before and after each kind of noise, so that each ratio is one of turns beside each other.
The noise comes from a process of its own, which shares the machine with the stack.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Final

import asyncpg
import uvloop

from deploy.cli.api import RefusedError
from deploy.cli.bench.figures import machine, percentile
from deploy.cli.bench.loud import EVENTS_PER_SECOND, Loud, carry_out
from deploy.cli.bench.orders import CURRENCY, Market, Run, anything, open_market, place_order
from deploy.cli.errors import ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.publisher import Fact, Publisher, publishing
from deploy.cli.shop import Shop
from deploy.cli.supply import Offer, supply
from deploy.cli.tenants import Onboarded, Wish, onboarded

PURCHASES_PER_SECOND: Final = 4
ALONE_SECONDS: Final = 15
SHOPPING_SECONDS: Final = 25
LONGEST_SECONDS: Final = 120
"""So long one is loud, even if not all was done: a slow machine is not kept busy for an hour."""
COUNTS: Final = {
    "feed": 100_000,
    "refused": 100_000,
    "unknown_tenants": 100_000,
    "declined_cards": 1_000,
    "sessions_and_carts": 0,
    "over_quota": 0,
    "staff_signing_in": 0,
}
PROBES: Final = 24
"""Products whose prices change: enough for every partition."""
PATIENCE_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.02
_POLL_SHARE: Final = 0.1
"""Of the time waited so far: who looked every 20 ms for each price that is late would be the loudest neighbour of all."""
_SOURCE: Final = "/example/catalogue"

Say = Callable[[str], None]


@dataclass(slots=True)
class Turn:
    """What the quiet tenant saw in one turn."""

    run: Run = field(default_factory=Run)
    price_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def figures(self) -> dict[str, Any]:
        """Medians and worst cases."""
        whole, prices = self.run.whole_ms or [float("nan")], self.price_ms or [float("nan")]
        return {
            "purchases": len(self.run.whole_ms),
            "not_confirmed": sum(count for outcome, count in self.run.outcomes.items() if outcome != "confirmed") + self.failed,
            "purchase_p50_ms": round(statistics.median(whole), 1),
            "purchase_p99_ms": round(percentile(whole, 0.99), 1),
            "price_change_p50_ms": round(statistics.median(prices), 1),
            "price_change_max_ms": round(max(prices), 1),
        }


class Quiet:
    """A tenant that buys and sells a little."""

    def __init__(self, shop: Shop, publisher: Publisher) -> None:
        """Sell with this shop, whose catalogue says its prices here."""
        self._shop = shop
        self._publisher = publisher
        self._changes: Iterator[int] = itertools.count(1)

    async def goes_on(self, turn: Turn, until: "asyncio.Event", seconds: float) -> Turn:
        """Go on for so long, and then until this is so."""
        begun = time.perf_counter()

        async def repeated(per_second: float, what: Callable[[Turn], Awaitable[None]], group: asyncio.TaskGroup) -> None:
            for number in itertools.count():
                at = begun + number / per_second
                if at > begun + seconds and until.is_set():
                    return
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                group.create_task(self._counted(what, turn))

        async with asyncio.TaskGroup() as group:
            group.create_task(repeated(PURCHASES_PER_SECOND, self._purchase, group))
            group.create_task(repeated(1, self._price, group))
        return turn

    async def settled(self) -> None:
        """Wait until what was published before has been read in every partition."""
        await asyncio.gather(*(self._price(Turn()) for _ in range(2 * PROBES)))

    @staticmethod
    async def _counted(what: Callable[[Turn], Awaitable[None]], turn: Turn) -> None:
        try:
            await what(turn)
        except (RefusedError, TimeoutError):
            turn.failed += 1

    async def _purchase(self, turn: Turn) -> None:
        await place_order(self._shop, anything(), turn.run)

    async def _price(self, turn: Turn) -> None:
        """Change a price, and look until the shop shows it."""
        number = next(self._changes)
        sku, price = f"PROBE-{number % PROBES}", 1_000 + number
        changed = {"currency": CURRENCY, "unit_minor": price}
        fact = Fact("catalog.v1", "price.changed", _SOURCE, self._shop.tenant_id, sku, 10 + number, changed)
        begun = time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._publisher.publish([fact.record()])
            # A later change may have come meanwhile.
            while await self._shown(sku) < price:  # noqa: ASYNC110 - the shop tells nobody
                await asyncio.sleep(max(_POLL_SECONDS, _POLL_SHARE * (time.perf_counter() - begun)))
        turn.price_ms.append((time.perf_counter() - begun) * 1000)

    async def _shown(self, sku: str) -> int:
        token = await self._shop.token()
        found = (await self._shop.api.call("cart", "GET", f"/v1/products/{sku}", token=token)).body
        return int(found["unit_minor"])


async def bench_neighbours(kinds: Sequence[str], turns: int, scale: float, pool: ProcessPoolExecutor, say: Say) -> dict[str, Any]:
    """Every kind of noise in its turns, and quiet before and after each."""
    async with open_market(32, say) as market, publishing(market.api.stack) as publisher:
        quiet = Quiet(market.shop, publisher)
        probes = [Offer(f"PROBE-{number}", f"Probe {number}", "bench", 999, 1_000) for number in range(PROBES)]
        await supply(market.shop, CURRENCY, probes, say)
        neighbour = await onboarded(market.api, Wish.of("loud", currency=CURRENCY))
        offers = [Offer(f"BENCH-{number}", f"Product {number}", "bench", 100 + number, 1_000_000) for number in range(500)]
        await supply(neighbour.shop(market.api), CURRENCY, offers, say)
        alone = [await _alone(quiet, scale, say)]
        beside: dict[str, Any] = {}
        for kind in kinds:
            loud, turn = _loud(market, neighbour, kind, scale), Turn()
            for _ in range(turns):
                done = await _beside(quiet, turn, kind, loud, pool)
                await quiet.settled()
                alone.append(await _alone(quiet, scale, say))
            beside[kind] = told = {**turn.figures(), **_ratios(turn, alone[-1 - turns :]), "loud": done}
            say(
                f"{kind:<19} purchase p50 {told['purchase_p50_ms']} p99 {told['purchase_p99_ms']} ms: "
                f"{told['p50_ratio_to_alone']} and {told['p99_ratio_to_alone']} times alone; a price shows within "
                f"{told['price_change_max_ms']} ms; {done}"
            )
        set_aside = await _set_aside(market.admin_url)
    return {
        "worst_p99_ratio": max(each["p99_ratio_to_alone"] for each in beside.values()),
        "worst_price_change_ms": max(each["price_change_max_ms"] for each in beside.values()),
        "alone": [turn.figures() for turn in alone],
        "beside": beside,
        "set_aside": set_aside,
        "scale": scale,
        "turns": turns,
        "loud_events_per_second_at_most": EVENTS_PER_SECOND,
        "load_generator": "on the same machine",
        "machine": machine(),
    }


def _loud(market: Market, neighbour: Onboarded, kind: str, scale: float) -> Loud:
    client = neighbour.client
    count = max(1, int(COUNTS[kind] * scale))
    seconds = max(5.0, scale * (LONGEST_SECONDS if COUNTS[kind] else SHOPPING_SECONDS))
    return Loud(market.api.stack, neighbour.tenant_id, client.client_id, client.secret(), count, seconds)


async def _alone(quiet: Quiet, scale: float, say: Say) -> Turn:
    always = asyncio.Event()
    always.set()
    turn = await quiet.goes_on(Turn(), always, max(5.0, ALONE_SECONDS * scale))
    told = turn.figures()
    say(f"{'alone':<19} purchase p50 {told['purchase_p50_ms']} p99 {told['purchase_p99_ms']} ms")
    return turn


async def _beside(quiet: Quiet, turn: Turn, kind: str, loud: Loud, pool: ProcessPoolExecutor) -> dict[str, Any]:
    over = asyncio.Event()
    noise = asyncio.get_running_loop().run_in_executor(pool, carry_out, kind, loud)
    noise.add_done_callback(lambda _: over.set())
    await quiet.goes_on(turn, over, 5.0)
    return await noise


def _ratios(turn: Turn, alone: Sequence[Turn]) -> dict[str, float]:
    """Figures beside the noise by those of the turns before and after it."""
    calm = [each for quiet in alone for each in quiet.run.whole_ms]
    shares = {"p50": 0.5, "p99": 0.99}
    return {
        f"{name}_ratio_to_alone": round(percentile(turn.run.whole_ms, share) / percentile(calm, share), 2)
        for name, share in shares.items()
    }


async def _set_aside(admin_url: str) -> dict[str, Any]:
    """By service, how many messages have a row of their own, and how many are held back with their source."""
    found = {}
    for service in ("cart", "checkout", "payments"):
        connection = await asyncpg.connect(f"{admin_url.rpartition('/')[0]}/{service}")
        with suppress(asyncpg.UndefinedTableError):
            found[service] = dict(
                await connection.fetchrow(
                    "SELECT (SELECT count(*) FROM inbox_parked) AS rows, coalesce(sum(records), 0)::bigint AS held_back "
                    "FROM inbox_source_range"
                )
            )
        await connection.close()
    return found


def run_neighbours(kinds: Sequence[str], turns: int, scale: float, *, json: bool) -> int:
    """Measure, and print the figures."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        pool.submit(int).result()  # it is forked before there is a loop or a thread
        figures = uvloop.run(bench_neighbours(kinds, turns, scale, pool, progress()))
    if json:
        print_json(figures)
    else:
        _print_table(figures)
    return ExitCode.DONE


def _print_table(figures: dict[str, Any]) -> None:
    print(f"{'beside':<20}{'purchases':>10}{'p50 ms':>9}{'p99 ms':>9}{'p99 ratio':>11}{'price shows within ms':>23}")
    rows = [("alone", each) for each in figures["alone"]] + list(figures["beside"].items())
    for name, each in rows:
        ratio = each.get("p99_ratio_to_alone", "")
        print(
            f"{name:<20}{each['purchases']:>10}{each['purchase_p50_ms']:>9}{each['purchase_p99_ms']:>9}{ratio:>11}"
            f"{each['price_change_max_ms']:>23}"
        )
    print(f"set aside: {figures['set_aside']}")
    print(f"the noise comes from this machine too, at {figures['loud_events_per_second_at_most']} events a second at most")
