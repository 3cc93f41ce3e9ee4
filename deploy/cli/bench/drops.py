"""What a shop's other buyers notice of a drop: a crowd that waits for a few units, and how many of those are sold in the end.

Others buy at a low fixed rate before, beside and after. Whoever waits asks again when they are told to, as a page would.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import uvloop

from deploy.cli.api import Api
from deploy.cli.bench.figures import machine, percentile
from deploy.cli.bench.orders import CARD, CURRENCY, WAIT_SECONDS, Market, Run, anything, open_market, place_order
from deploy.cli.bench.report import print_figures
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.publisher import Fact, publishing
from deploy.cli.shop import Shopper
from deploy.cli.supply import LOCATION, Offer, supply
from deploy.cli.waiting import asked_again
from libs.common.clock import now, rfc3339

SKU: Final = "BENCH-DROP"
OTHERS_PER_SECOND: Final = 4
ALONE_SECONDS: Final = 30
LEAST_NOTICE_SECONDS: Final = 10
JOINING_PER_SECOND: Final = 100
"""When it opens is known before, as of any drop: after so many have come a second, and a little."""
AT_ONCE: Final = 32
"""So many of the crowd's requests are in flight at once."""

_SOURCE: Final = "/bench/inventory"
_PATIENCE_SECONDS: Final = 60

Say = Callable[[str], None]


class Crowd:
    """Buyers who all want the same."""

    def __init__(self, market: Market, count: int) -> None:
        self._api: Api = market.api
        self._buyers = [market.shop.shopper(f"drop:{uuid4()}", guest=True) for _ in range(count)]
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._asks_at: dict[Shopper, float] = {}
        """When each is to ask for the first time, as they were told when they came."""
        self.told: dict[str, int] = {}
        self.join_seconds = 0.0

    async def come(self) -> None:
        """All open the page."""
        await asyncio.gather(*(self._in_turn(buyer.token) for buyer in self._buyers))

    async def queue(self) -> None:
        """All take a place."""
        begun = time.perf_counter()
        await asyncio.gather(*(self._in_turn(self._join, buyer) for buyer in self._buyers))
        self.join_seconds = time.perf_counter() - begun

    async def buy(self) -> None:
        """All wait until it is their turn, or there are none left."""
        for outcome in await asyncio.gather(*(self._wait(buyer) for buyer in self._buyers)):
            self.told[outcome] = self.told.get(outcome, 0) + 1

    async def _in_turn(self, what: Callable[..., Any], *arguments: Any) -> Any:
        async with self._turn:
            return await what(*arguments)

    async def _join(self, buyer: Shopper) -> None:
        joined = await self._api.call("checkout", "POST", f"/v1/drops/{SKU}/places", token=await buyer.token())
        self._asks_at[buyer] = time.perf_counter() + float(joined.headers["Retry-After"])

    async def _wait(self, buyer: Shopper) -> str:
        await asyncio.sleep(max(0.0, self._asks_at[buyer] - time.perf_counter()))
        while True:
            asked = await self._in_turn(self._place, buyer)
            match asked.body["state"]:
                case "waiting":
                    await asyncio.sleep(float(asked.headers["Retry-After"]))
                case "admitted":
                    return str(await self._in_turn(_purchase, buyer))
                case told:
                    return str(told)

    async def _place(self, buyer: Shopper) -> Any:
        return await self._api.call("checkout", "GET", f"/v1/drops/{SKU}/places/mine", token=await buyer.token())


async def _purchase(buyer: Shopper) -> str:
    cart_id = await buyer.new_cart()
    await buyer.put_line(cart_id, SKU, 1)
    checkout = await buyer.check_out(cart_id, key=str(uuid4()), method=CARD, wait_seconds=WAIT_SECONDS)
    return str(checkout["state"] if checkout["state"] == "confirmed" else checkout.get("reason", checkout["state"]))


async def _counted(market: Market, units: int) -> None:
    """Have exactly so many on the shelf: shops are supplied with plenty."""
    counted = {"location": LOCATION, "quantity": units}
    async with publishing(market.api.stack) as publisher:
        fact = Fact("inventory.v1", "stock.counted", _SOURCE, market.shop.tenant_id, SKU, 1_000, counted)
        await publisher.publish([fact.record()])

    async def differs() -> bool:
        token = await market.shop.token()
        return bool((await market.api.call("checkout", "GET", f"/v1/stock/{SKU}", token=token)).body["on_hand"] != units)

    if await asked_again(differs, lambda still: still, patience_seconds=_PATIENCE_SECONDS, pause_seconds=0.2):
        raise CommandError(f"{units} of {SKU} do not appear: see ./cartwright logs")


async def others(market: Market, until: asyncio.Event, seconds: float) -> Run:
    """Purchases of anything else at a fixed rate, for so long and then until this is so."""
    run, begun, number = Run(), time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        while not (until.is_set() and time.perf_counter() >= begun + seconds):
            group.create_task(place_order(market.shop, anything(), run))
            number += 1
            await asyncio.sleep(max(0.0, begun + number / OTHERS_PER_SECOND - time.perf_counter()))
    return run


async def bench_drops(buyers: int, units: int, per_minute: int, say: Say) -> dict[str, Any]:
    """Others alone, beside the drop, and alone again."""
    always = asyncio.Event()
    always.set()
    async with open_market(AT_ONCE, say) as market:
        await supply(market.shop, CURRENCY, [Offer(SKU, "The drop", "bench", 999, units)], say)
        await _counted(market, units)
        crowd = Crowd(market, buyers)
        await crowd.come()
        alone = [await others(market, always, ALONE_SECONDS)]
        opens_in = LEAST_NOTICE_SECONDS + buyers / JOINING_PER_SECOND
        opens_at = time.perf_counter() + opens_in
        terms = {"per_minute": per_minute, "starts_at": rfc3339(now() + timedelta(seconds=opens_in))}
        await market.api.call("checkout", "PUT", f"/v1/drops/{SKU}", token=await market.shop.token(), body=terms)
        await crowd.queue()
        say(f"{buyers} queue, {buyers / crowd.join_seconds:.0f} a second")
        buying = asyncio.create_task(crowd.buy())
        await asyncio.sleep(max(0.0, opens_at - time.perf_counter()))
        over, begun = asyncio.Event(), time.perf_counter()
        beside = asyncio.create_task(others(market, over, 0))
        await buying
        seconds = time.perf_counter() - begun
        over.set()
        turn = await beside
        alone.append(await others(market, always, ALONE_SECONDS))
        stock = await market.api.call("checkout", "GET", f"/v1/stock/{SKU}", token=await market.shop.token())
    return _figures(crowd, turn, alone, stock.body, {"buyers": buyers, "units": units, "seconds": round(seconds, 1)})


def _figures(crowd: Crowd, turn: Run, alone: Sequence[Run], stock: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    calm = [each for run in alone for each in run.whole_ms]
    orders = crowd.told.get("confirmed", 0)
    return {
        **given,
        "orders": orders,
        "exactly": orders == stock["sold"] == given["units"] and stock["on_hand"] == stock["reserved"] == 0,
        "told": crowd.told,
        "joined_per_second": round(given["buyers"] / crowd.join_seconds),
        "others_p99_ratio": round(percentile(turn.whole_ms, 0.99) / percentile(calm, 0.99), 2),
        "others_p50_ratio": round(percentile(turn.whole_ms, 0.5) / percentile(calm, 0.5), 2),
        "others_p99_ms": round(percentile(turn.whole_ms, 0.99), 1),
        "others_alone_p99_ms": round(percentile(calm, 0.99), 1),
        "others_outcomes": turn.outcomes,
        "machine": machine(),
    }


def run_drops(buyers: int, units: int, per_minute: int, *, json: bool) -> int:
    """Measure, and print the figures. Not done while it is not exactly so many orders."""
    figures = uvloop.run(bench_drops(buyers, units, per_minute, progress()))
    if json:
        print_json(figures)
    else:
        print_figures(figures)
    return ExitCode.DONE if figures["exactly"] else ExitCode.NOT_SO
