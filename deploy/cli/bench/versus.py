"""Whole orders by this code and by another revision's, in turns on one machine: how a change of cost is measured.

Both stacks stand at once, each with a PostgreSQL and a Kafka of its own: with one server for both, its caches, checkpoints and
log would be filled by the one and found by the other. Only one of them is driven at a time; all processes of the other stand
still meanwhile (SIGSTOP), so that what it costs to be idle is charged to nobody. The driver is this code's for both.

A turn takes some seconds, and the turn beside it is the other's: what else happens on the machine meets both. So the ratio of
each pair is taken, and of those the median.
"""

import asyncio
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from deploy.cli.bench.figures import load_average, machine
from deploy.cli.bench.orders import ARRIVALS_PER_SECOND, Market, Run, anything, arriving, closed, market_of, measured, place_order
from deploy.cli.bench.report import print_figures
from deploy.cli.bench.revision import commit_of, this_revision, unpacked
from deploy.cli.bench.side import Side, demand_own_servers, started
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.local.environment import refuse_unknown_variables
from deploy.local.state import Home, default_home
from deploy.local.topics import TOPICS, declared_topics
from libs.common.http.server import calm_collector

THIS: Final = "this"
OTHER: Final = "other"
_AT_RATE: Final = f"{ARRIVALS_PER_SECOND}_per_second"

_KEPT: Final = frozenset({"python"})
"""What the other's folder keeps from run to run: an environment takes a minute."""
_SETTLING_AT_ONCE: Final = 8
_FEWEST_SETTLING: Final = 3
_MOST_SETTLING: Final = 15
_SETTLED: Final = 1.5
"""As quick again as it was at its best, but for this much."""

Say = Callable[[str], None]
Figures = dict[str, Any]
Turn = Callable[[Market], Awaitable[Run]]


@dataclass(frozen=True, slots=True)
class Load:
    """One way in which orders come."""

    name: str
    """As the ratios have it: `8`, or `20_per_second`."""
    turn: Turn


@dataclass(slots=True)
class Contender:
    """A side with a shop in it."""

    side: Side
    market: Market
    best_seconds: float = float("inf")

    async def wake(self) -> None:
        """Release it, and return when orders go as quickly as they did: for all of it, time has jumped."""
        self.side.release()
        for number in range(_MOST_SETTLING):
            begun = time.perf_counter()
            await asyncio.gather(*(place_order(self.market.shop, anything(), Run()) for _ in range(_SETTLING_AT_ONCE)))
            seconds = time.perf_counter() - begun
            self.best_seconds = min(self.best_seconds, seconds)
            if number + 1 >= _FEWEST_SETTLING and seconds <= self.best_seconds * _SETTLED:
                return


def loads_of(clients: Sequence[int], seconds: float) -> list[Load]:
    """Closed loops of so many clients each, then a fixed rate of arrivals."""

    def loop(count: int) -> Turn:
        return lambda market: closed(market, count, seconds, anything)

    loops = [Load(str(count), loop(count)) for count in clients]
    return [*loops, Load(_AT_RATE, lambda market: arriving(market, ARRIVALS_PER_SECOND, seconds, anything))]


def schedule(loads: Sequence[Load], turns: int) -> Iterator[tuple[Load, tuple[str, str]]]:
    """Every load so many times, and who comes first: in turn, from one time of a load to the next and from load to load."""
    for number in range(turns):
        for place, load in enumerate(loads):
            yield load, ((THIS, OTHER) if (number + place) % 2 == 0 else (OTHER, THIS))


def ratio(pairs: Sequence[Mapping[str, Figures]], *path: str) -> float:
    """What this code has of a figure, of what the other has in the turn beside it; the median of all turns."""
    return round(statistics.median(_at(pair[THIS], path) / _at(pair[OTHER], path) for pair in pairs), 3)


def median_of(turns: Sequence[Figures]) -> Figures:
    """The median of every figure; of what one process costs, of those turns that it ran in."""
    found: Figures = {}
    for name in dict.fromkeys(name for turn in turns for name in turn):
        values = [turn[name] for turn in turns if name in turn]
        if isinstance(values[0], Mapping):
            found[name] = median_of(values)
        else:
            found[name] = round(statistics.median(values), 1)
    return found


def ratios_of(pairs: Mapping[str, Sequence[Mapping[str, Figures]]]) -> dict[str, float]:
    """The figures that changes are judged by: less is better of CPU and latency, more of a rate."""
    found = {f"cpu_at_{load}": ratio(turns, "cpu_ms_per_order", "all") for load, turns in pairs.items()}
    found |= {f"rate_at_{load}": ratio(turns, "orders_per_second") for load, turns in pairs.items() if load.isdecimal()}
    for name in ("final_call_p50", "final_call_p99", "order_p50"):
        found |= {f"{name}_at_{load}": ratio(turns, f"{name}_ms") for load, turns in pairs.items()}
    return found


async def bench_versus(other: str, clients: Sequence[int], seconds: float, turns: int, say: Say) -> Figures:
    """All loads in turns, by both."""
    loads, pairs = loads_of(clients, seconds), dict[str, list[dict[str, Figures]]]()
    async with both(other, max(clients), say) as contenders:
        before = load_average()
        for load, order in schedule(loads, turns):
            pair = {name: await _driven(contenders[name], load, say) for name in order}
            pairs.setdefault(load.name, []).append(pair)
        after = load_average()
        revisions = {name: contender.side.revision.as_json() for name, contender in contenders.items()}
    by_load = {load: _told(turns) for load, turns in pairs.items()}
    return {
        "ratios": ratios_of(pairs),
        "revisions": revisions | {"asked_for": other},
        "turns": turns,
        "seconds": seconds,
        "load_average": {"before": before, "after": after},
        "by_clients": {load: told for load, told in by_load.items() if load.isdecimal()},
        f"at_{_AT_RATE}": by_load[_AT_RATE],
        "machine": machine(),
    }


@asynccontextmanager
async def both(other: str, clients: int, say: Say) -> AsyncIterator[dict[str, Contender]]:
    """This code's stack and the other's, each with a shop, both standing still."""
    refuse_unknown_variables()
    demand_own_servers()
    commit = commit_of(other)
    homes = {THIS: _emptied(default_home() / "bench"), OTHER: _emptied(default_home() / "beside")}
    revisions = {THIS: this_revision(), OTHER: unpacked(commit, homes[OTHER], say)}
    names = {THIS: "this code", OTHER: other}
    contenders: dict[str, Contender] = {}
    async with AsyncExitStack() as opened:
        for name, home in homes.items():
            side = Side(names[name], revisions[name], home)
            stack = await opened.enter_async_context(started(side, say))
            topics = declared_topics(side.revision.folder / TOPICS)
            told = partial(_of, names[name], say)
            market = await opened.enter_async_context(market_of(stack, side.admin_url, topics, clients, told))
            contenders[name] = Contender(side, market)
            side.hold()
            opened.callback(side.release)
        calm_collector()
        yield contenders


async def _driven(contender: Contender, load: Load, say: Say) -> Figures:
    """One turn of one side. It stands still before and after."""
    await contender.wake()
    name = f"{contender.side.name}, {load.name.replace('_', ' ')}"
    figures = await measured(contender.market, name, partial(load.turn, contender.market), say)
    contender.side.hold()
    if not figures["orders"]:
        raise CommandError(f"no order was confirmed by {name}: {figures['not_confirmed'] or 'none ended'}")
    return figures


def _told(pairs: Sequence[Mapping[str, Figures]]) -> Figures:
    """The medians of each side, and what each turn had."""
    told: Figures = {}
    for name in (THIS, OTHER):
        turns = [pair[name] for pair in pairs]
        told[name] = median_of([{key: value for key, value in turn.items() if key != "not_confirmed"} for turn in turns])
        told[name]["not_confirmed"] = sum(sum(turn["not_confirmed"].values()) for turn in turns)
    told["turns"] = {
        "cpu_ms_per_order": _each(pairs, "cpu_ms_per_order", "all"),
        "orders_per_second": _each(pairs, "orders_per_second"),
        "final_call_p99_ms": _each(pairs, "final_call_p99_ms"),
    }
    return told


def _each(pairs: Sequence[Mapping[str, Figures]], *path: str) -> dict[str, list[float]]:
    return {name: [_at(pair[name], path) for pair in pairs] for name in (THIS, OTHER)}


def _at(figures: Figures, path: Sequence[str]) -> float:
    found: Any = figures
    for name in path:
        found = found[name]
    return float(found)


def _of(name: str, say: Say, message: str) -> None:
    say(f"{name}: {message}")


def _emptied(home: Path) -> Path:
    """A state directory with nothing of an earlier run."""
    Home(home).prepare()
    if holder := Home(home).holder():
        raise CommandError(f"process {holder} measures in {home}: wait for it", ExitCode.ENVIRONMENT)
    for entry in home.iterdir():
        if entry.is_dir() and entry.name not in _KEPT:
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith(("state.json", "stripe.json")):
            entry.unlink()
    return home


def run_versus(other: str, clients: Sequence[int], seconds: float, turns: int, *, json: bool) -> int:
    """Measure, and print the figures."""
    figures = uvloop.run(bench_versus(other, clients, seconds, turns, progress()))
    if json:
        print_json(figures)
    else:
        print_figures(figures)
    return ExitCode.DONE
