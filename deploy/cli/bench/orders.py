"""How many orders the whole stack takes on this machine, load generator included, and what each of them costs.

One order: a guest's session, a cart, five lines put one by one, a checkout that waits for its end. It counts once its money
is captured, by the provider's own count. Closed loops of so many clients give the rate; the latency that matters to a
buyer is taken at a fixed rate of arrivals, which no slow answer holds back.
"""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import uuid4

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.cli.api import Api, connected
from deploy.cli.bench.figures import machine, percentile
from deploy.cli.bench.history import copy_history
from deploy.cli.bench.report import print_figures
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.publisher import client_arguments
from deploy.cli.replay.cpu import OWN, cpu_seconds
from deploy.cli.shop import Shop
from deploy.cli.supply import Offer, supply
from deploy.cli.tenants import Wish, onboarded
from deploy.cli.waiting import asked_again
from deploy.local.description import StackDescription
from deploy.local.stack import Stack
from deploy.local.state import default_home
from deploy.local.topics import Topic, declared_topics
from libs.common.http.server import calm_collector

CURRENCY: Final = "GBP"
CARD: Final = "pm_card_visa"
LINES: Final = 5
WAIT_SECONDS: Final = 30
PRODUCTS: Final = 500
STOCK: Final = 1_000_000
ARRIVALS_PER_SECOND: Final = 20
WARM_ORDERS: Final = 400
_SCOPES: Final = (
    *("carts:write", "checkouts:write", "orders:read", "products:read", "stock:read", "payments:read"),
    *("sessions:issue", "drops:manage"),
)
"""What a till needs, and every revision that may be measured grants."""
_CAPTURE_PATIENCE_SECONDS: Final = 60
_CAPTURE_POLL_SECONDS: Final = 0.02
_LOAD: Final = "load generator"
_UNASKED_MS: Final = 86_400_000
"""A broker that is held still cannot say where its partitions are."""

Basket = Callable[[], dict[str, int]]


@dataclass(slots=True)
class Run:
    """The orders of one turn."""

    whole_ms: list[float] = field(default_factory=list)
    final_ms: list[float] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    """From the first request to the last capture."""

    @property
    def confirmed(self) -> int:
        """How many became orders."""
        return self.outcomes.get("confirmed", 0)

    def latencies(self) -> dict[str, float | None]:
        """Whole orders and their final calls."""
        if not self.whole_ms:
            return {"order_p50_ms": None, "order_p99_ms": None, "final_call_p50_ms": None, "final_call_p99_ms": None}
        return {
            "order_p50_ms": round(percentile(self.whole_ms, 0.5), 1),
            "order_p99_ms": round(percentile(self.whole_ms, 0.99), 1),
            "final_call_p50_ms": round(percentile(self.final_ms, 0.5), 1),
            "final_call_p99_ms": round(percentile(self.final_ms, 0.99), 1),
        }


@dataclass(frozen=True, slots=True)
class Meter:
    """What the stack has used so far."""

    cpu: dict[str, float]
    wal_bytes: int
    messages: int


class Market:
    """A stack of its own, and a shop in it."""

    def __init__(
        self, admin_url: str, api: Api, shop: Shop, admin: asyncpg.Connection, log: AIOKafkaConsumer, topics: Sequence[Topic]
    ) -> None:
        """Borrow everything."""
        self.api = api
        self.shop = shop
        self.admin_url = admin_url
        self._admin = admin
        self._log = log
        self._partitions = [TopicPartition(topic.name, part) for topic in topics for part in range(topic.partitions)]

    async def meter(self) -> Meter:
        """Read every counter."""
        cpu = cpu_seconds(self.api.stack.home)
        cpu[_LOAD] = cpu.pop(OWN)
        wal = await self._admin.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return Meter(cpu, wal, await self._messages())

    async def captured(self) -> int:
        """How many captures the provider has for this shop."""
        rows = (await self.api.provider_control("ledger?by=tenant_id"))["rows"]
        return sum(row["captured_count"] for row in rows if row["tenant_id"] == str(self.shop.tenant_id))

    async def _messages(self) -> int:
        return sum((await self._log.end_offsets(self._partitions)).values())


def anything() -> dict[str, int]:
    """Five different products, any of them."""
    return {f"BENCH-{number}": 1 for number in random.sample(range(PRODUCTS), LINES)}


def the_hot_one() -> dict[str, int]:
    """One product that everybody wants, in the place of one of the five."""
    basket = dict(list(anything().items())[: LINES - 1])
    return {"BENCH-HOT": 1, **basket}


async def place_order(shop: Shop, basket: dict[str, int], run: Run) -> None:
    """Buy one basket as a guest, and note how long it took."""
    begun = time.perf_counter()
    called = [begun]
    outcome = await bought(shop, basket, CARD, lambda: called.append(time.perf_counter()))
    ended = time.perf_counter()
    run.outcomes[outcome] = run.outcomes.get(outcome, 0) + 1
    run.whole_ms.append((ended - begun) * 1000)
    run.final_ms.append((ended - called[-1]) * 1000)


async def bought(shop: Shop, basket: dict[str, int], card: str, filled: Callable[[], None] = lambda: None) -> str:
    """Buy one basket as a guest, and say when it is filled; answers what became of it."""
    shopper = shop.shopper(f"guest:{uuid4()}", guest=True)
    cart_id = await shopper.new_cart()
    for sku, quantity in basket.items():
        await shopper.put_line(cart_id, sku, quantity)
    filled()
    checkout = await shopper.check_out(cart_id, key=str(uuid4()), method=card, wait_seconds=WAIT_SECONDS)
    return str(checkout["state"] if checkout["state"] == "confirmed" else f"{checkout['state']} {checkout.get('reason', '')}")


async def closed(market: Market, clients: int, seconds: float, basket: Basket) -> Run:
    """So many clients, each beginning its next order when the last has ended; until all of them are captured."""
    run, captured = Run(), await market.captured()
    begun = time.perf_counter()
    end = begun + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            await place_order(market.shop, basket(), run)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    await _all_captured(market, captured + run.confirmed)
    run.seconds = time.perf_counter() - begun
    return run


async def arriving(market: Market, per_second: int, seconds: float, basket: Basket) -> Run:
    """Orders that begin at a fixed rate, whatever becomes of those before them."""
    run, captured = Run(), await market.captured()
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
            group.create_task(place_order(market.shop, basket(), run))
    await _all_captured(market, captured + run.confirmed)
    run.seconds = time.perf_counter() - begun
    return run


async def _all_captured(market: Market, wanted: int) -> None:
    captured = await asked_again(
        market.captured,
        lambda captured: captured < wanted,
        patience_seconds=_CAPTURE_PATIENCE_SECONDS,
        pause_seconds=_CAPTURE_POLL_SECONDS,
    )
    if captured < wanted:
        raise CommandError(f"{wanted - captured} confirmed orders were not captured within {_CAPTURE_PATIENCE_SECONDS} s")


async def measured(market: Market, name: str, turn: Callable[[], Awaitable[Run]], say: Callable[[str], None]) -> dict[str, Any]:
    """One turn, with what an order of it cost."""
    before = await market.meter()
    run = await turn()
    after = await market.meter()
    orders = max(run.confirmed, 1)
    cost = {who: (used - before.cpu.get(who, 0.0)) * 1000 / orders for who, used in after.cpu.items()}
    all_ms, rate, latencies = round(sum(cost.values()), 1), round(run.confirmed / run.seconds, 1), run.latencies()
    say(
        f"{name:<16} {rate:>6} orders/s, {all_ms} ms of CPU an order; order p50 {latencies['order_p50_ms']} "
        f"p99 {latencies['order_p99_ms']} ms, final call p99 {latencies['final_call_p99_ms']} ms"
    )
    return {
        "orders_per_second": rate,
        **latencies,
        "orders": run.confirmed,
        "not_confirmed": {outcome: count for outcome, count in run.outcomes.items() if outcome != "confirmed"},
        "cpu_ms_per_order": {
            "all": all_ms,
            **{who: round(spent, 1) for who, spent in sorted(cost.items(), key=lambda each: -each[1])},
        },
        "wal_bytes_per_order": round((after.wal_bytes - before.wal_bytes) / orders),
        "messages_per_order": round((after.messages - before.messages) / orders, 1),
    }


async def bench_orders(clients: Sequence[int], seconds: float, history: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Every number of clients in turn, then a fixed rate of arrivals; then beside so many orders of the past, if any."""
    async with open_market(max(clients), say) as market:
        by_clients = {}
        for count in clients:
            by_clients[str(count)] = await measured(
                market, f"{count} clients", partial(closed, market, count, seconds, anything), say
            )
        name = f"{ARRIVALS_PER_SECOND} a second"
        at_rate = await measured(market, name, partial(arriving, market, ARRIVALS_PER_SECOND, seconds, anything), say)
        past = {"history": await beside_history(market, clients[-1], seconds, history, say)} if history else {}
    best = max(by_clients.values(), key=lambda figures: figures["orders_per_second"])
    return {
        **{name: best[name] for name in ("orders_per_second", "order_p50_ms", "order_p99_ms", "cpu_ms_per_order")},
        "final_call_p99_ms": at_rate["final_call_p99_ms"],
        "by_clients": by_clients,
        f"at_{ARRIVALS_PER_SECOND}_per_second": at_rate,
        **past,
        "machine": machine(),
    }


async def beside_history(market: Market, clients: int, seconds: float, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The same turn before and after the shop gets a long past."""
    turn = partial(closed, market, clients, seconds, anything)
    without = await measured(market, "no history", turn, say)
    await copy_history(market.admin_url, str(market.shop.tenant_id), count, say)
    await _warm_up(market)
    beside = await measured(market, f"{count} orders", turn, say)
    ratio = round(beside["orders_per_second"] / without["orders_per_second"], 3)
    return {"orders": count, "clients": clients, "ratio_to_without": ratio, "without": without, "beside": beside}


async def bench_hot_sku(clients: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """One product in every basket, beside baskets that hardly meet, turn after turn."""
    async with open_market(clients, say) as market:
        cold = await measured(market, "cold", partial(closed, market, clients, seconds, anything), say)
        hot = await measured(market, "hot", partial(closed, market, clients, seconds, the_hot_one), say)
    ratio = round(hot["orders_per_second"] / cold["orders_per_second"], 3)
    return {"ratio_to_cold": ratio, "hot": hot, "cold": cold, "clients": clients, "machine": machine()}


@asynccontextmanager
async def open_market(clients: int, say: Callable[[str], None]) -> AsyncIterator[Market]:
    """A fresh stack with a supplied shop, warmed by some orders, gone afterwards."""
    home = default_home() / "bench"
    shutil.rmtree(home, ignore_errors=True)
    async with (
        Stack.from_environment(home, say=say) as stack,
        market_of(stack.description(), stack.admin_url, declared_topics(), clients, say) as market,
    ):
        calm_collector()
        yield market


@asynccontextmanager
async def market_of(
    stack: StackDescription, admin_url: str, topics: Sequence[Topic], clients: int, say: Callable[[str], None]
) -> AsyncIterator[Market]:
    """A supplied shop in a stack that runs on these topics, warmed by some orders."""
    async with AsyncExitStack() as opened:
        api = await opened.enter_async_context(connected(stack, connections=clients + 8))
        admin = await asyncpg.connect(admin_url)
        opened.push_async_callback(admin.close)
        log = AIOKafkaConsumer(**client_arguments(stack), metadata_max_age_ms=_UNASKED_MS)
        await log.start()
        opened.push_async_callback(log.stop)
        shop = (await onboarded(api, Wish.of("bench", currency=CURRENCY, scopes=_SCOPES))).shop(api)
        offers = [Offer(f"BENCH-{number}", f"Product {number}", "bench", 100 + number, STOCK) for number in range(PRODUCTS)]
        await supply(shop, CURRENCY, [*offers, Offer("BENCH-HOT", "The hot one", "bench", 999, STOCK)], say)
        say(f"warming up with {WARM_ORDERS} orders")
        market = Market(admin_url, api, shop, admin, log, topics)
        await _warm_up(market)
        yield market


async def _warm_up(market: Market) -> None:
    run = Run()
    for _ in range(WARM_ORDERS // 8):
        await asyncio.gather(*(place_order(market.shop, anything(), run) for _ in range(8)))


def run_orders(clients: Sequence[int], seconds: float, history: int, *, json: bool) -> int:
    """Measure orders and print the figures."""
    return _told(uvloop.run(bench_orders(clients, seconds, history, progress())), json=json)


def run_hot_sku(clients: int, seconds: float, *, json: bool) -> int:
    """Measure one product that everybody wants, and print the figures."""
    return _told(uvloop.run(bench_hot_sku(clients, seconds, progress())), json=json)


def _told(figures: dict[str, Any], *, json: bool) -> int:
    if json:
        print_json(figures)
    else:
        print_figures(figures)
    return ExitCode.DONE
