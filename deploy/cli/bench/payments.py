"""Measures payments: authorize and capture through the whole service, beside the bare SDK making the same three calls.

Both run in this process, in turn, with as many at once, on the same HTTP transport, against the same fake Stripe in a
process of its own that answers at once. A machine of two cores cannot give each of three processes its own, so what is
compared is the CPU that this process spends on a payment: its reverse is what one core can take in a second. Wall times,
Postgres's CPU and the fake's are told beside it.

Then the fake takes 300 ms for an answer, and the service has ten database connections: how many calls are in flight?
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aiohttp
import asyncpg
import psutil
import stripe
import uvloop

from deploy.cli.bench.figures import Spent, machine, percentile, say, settle
from deploy.cli.bench.till import AMOUNT_MINOR, API_KEY, CARD, CURRENCY, SERVICE, open_till
from deploy.local.databases import database_url, provision
from deploy.local.environment import child_environment, python, variable
from libs.common.database import migrate
from libs.common.telemetry import configure_logging
from libs.common.telemetry.metrics import REGISTRY

_PREFIX: Final = "bench_"
_WARM_UP: Final = 200
_CONNECTIONS: Final = 10
_LATENCY_MS: Final = 300
_SLOW_IN_FLIGHT: Final = 100
_SLOW_PAYMENTS: Final = 1_000
_CALLS: Final = 3
_SAMPLE_SECONDS: Final = 0.02
_IN_FLIGHT_METRIC: Final = "cartwright_provider_calls_in_flight"

OURS: Final = "payments"
BARE: Final = "bare_sdk"


# --- The provider and the database --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provider:
    """The fake Stripe of this measurement."""

    api_base: str
    pid: int

    async def answer_after(self, milliseconds: int) -> None:
        """Let every answer take this long from now on."""
        rules = [{"fault": "latency", "delay_ms": milliseconds}] if milliseconds else []
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"{self.api_base}/_control/faults", json={"rules": rules}) as answer,
        ):
            answer.raise_for_status()


@asynccontextmanager
async def fake_stripe() -> AsyncIterator[Provider]:
    """Run one for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-stripe-") as folder:
        command = python("deploy.local.fake_stripe", "--port=0", f"--state={Path(folder) / 'journal'}")
        process = await asyncio.create_subprocess_exec(*command, env=child_environment(), stdout=asyncio.subprocess.PIPE)
        if process.stdout is None:
            sys.exit("bench: the fake Stripe has no output")
        line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            sys.exit("bench: the fake Stripe did not start")
        try:
            yield Provider(line.split()[-1], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def prepare(admin_url: str) -> str:
    """Make the service's database anew; answers where its app connects."""
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f'DROP DATABASE IF EXISTS "{_PREFIX}{SERVICE}" WITH (FORCE)')
    await admin.close()
    await provision(admin_url, SERVICE, _PREFIX)
    await asyncio.to_thread(migrate, SERVICE, database_url(admin_url, SERVICE, "owner", _PREFIX))
    return database_url(admin_url, SERVICE, "app", _PREFIX)


async def clear(admin_url: str) -> None:
    """Leave nothing on a server that is somebody else's."""
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f'DROP DATABASE IF EXISTS "{_PREFIX}{SERVICE}" WITH (FORCE)')
    await admin.close()


# --- CPU ----------------------------------------------------------------------------------------------------------


class Neighbours:
    """The CPU of the processes that work for a payment besides this one."""

    def __init__(self, postgres: psutil.Process | None, provider: psutil.Process) -> None:
        self._processes = {"postgres": postgres, "provider": provider}

    @classmethod
    async def of(cls, admin_url: str, provider: Provider) -> "Neighbours":
        """Postgres is found by one of its own backends, if it runs on this machine."""
        admin = await asyncpg.connect(admin_url)
        backend = await admin.fetchval("SELECT pg_backend_pid()")
        is_local = admin_url.rpartition("@")[2].startswith(("127.0.0.1", "localhost", "["))
        parent = psutil.Process(backend).parent() if is_local and psutil.pid_exists(backend) else None
        await admin.close()
        return cls(parent, psutil.Process(provider.pid))

    def seconds(self) -> dict[str, float]:
        """What each has used so far. Postgres is a family: its parent inherits the time of those that ended."""
        return {name: _family_seconds(process) for name, process in self._processes.items() if process is not None}


def _family_seconds(process: psutil.Process) -> float:
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


# --- Turns --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Cost:
    """What a payment of one contender cost, turn by turn, in milliseconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Medians, and every turn's own CPU."""
        return {
            "per_second_of_one_core": round(1_000 / statistics.median(self.cpu)),
            "per_second_of_wall": round(1_000 / statistics.median(self.wall)),
            "cpu_ms_each": round(statistics.median(self.cpu), 3),
            "cpu_ms_each_by_turn": [round(each, 3) for each in self.cpu],
            **{f"{name}_cpu_ms_each": round(statistics.median(each), 3) for name, each in self.others.items()},
        }


class Turns:
    """One turn of each contender, as often as asked."""

    def __init__(self, url: str, provider: Provider, neighbours: Neighbours, count: int, at_once: int) -> None:
        self.costs = {OURS: Cost(), BARE: Cost()}
        self._url, self._provider, self._neighbours = url, provider, neighbours
        self._count, self._at_once = count, at_once

    async def ours(self) -> None:
        """The service."""
        async with open_till(self._url, self._provider.api_base, in_flight=self._at_once, connections=_CONNECTIONS) as till:
            await till.take(_WARM_UP, self._at_once)
            with self._measured(OURS):
                await till.take(self._count, self._at_once)

    async def bare(self) -> None:
        """The SDK as its documentation shows it, on the transport that ours uses."""
        transport = stripe.AIOHTTPClient()
        addresses: Any = {"api": self._provider.api_base}
        client = stripe.StripeClient(API_KEY, base_addresses=addresses, http_client=transport, max_network_retries=0)
        await _bare_payments(client, _WARM_UP, self._at_once)
        with self._measured(BARE):
            await _bare_payments(client, self._count, self._at_once)
        await transport.close_async()  # type: ignore[no-untyped-call] # the SDK leaves it untyped

    @contextmanager
    def _measured(self, contender: str) -> Iterator[None]:
        settle()
        others, begun = self._neighbours.seconds(), Spent.now()
        yield
        spent, after = Spent.now() - begun, self._neighbours.seconds()
        cost = self.costs[contender]
        cost.wall.append(spent.seconds / self._count * 1_000)
        cost.cpu.append(spent.cpu_seconds / self._count * 1_000)
        for name, used in after.items():
            cost.others.setdefault(name, []).append((used - others[name]) / self._count * 1_000)
        say(f"{contender:<10} {self._count:>7,} in {spent.seconds:6.2f} s  {cost.cpu[-1]:6.3f} ms of CPU each")


async def _bare_payments(client: stripe.StripeClient, count: int, at_once: int) -> None:
    left = iter(range(count))

    async def pay() -> None:
        for _ in left:
            await _bare_payment(client)

    await asyncio.gather(*(pay() for _ in range(at_once)))


async def _bare_payment(client: stripe.StripeClient) -> None:
    """The three calls that ours makes, with the same parameters, keys included."""
    intents = client.v1.payment_intents
    names = ("tenant_id", "payment_id", "checkout_id", "order_id")
    intent = await intents.create_async(
        {
            "amount": AMOUNT_MINOR,
            "currency": CURRENCY.lower(),
            "capture_method": "manual",
            "payment_method": CARD,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {**{name: str(uuid4()) for name in names}, "quote_hash": "0" * 64},
        },
        {"idempotency_key": f"bare-{uuid4()}"},
    )
    await intents.confirm_async(
        intent.id, {"payment_method": CARD, "expand": ["latest_charge"]}, {"idempotency_key": f"bare-{uuid4()}"}
    )
    taken = await intents.capture_async(
        intent.id,
        {"amount_to_capture": AMOUNT_MINOR, "expand": ["latest_charge.balance_transaction"]},
        {"idempotency_key": f"bare-{uuid4()}"},
    )
    if taken.status != "succeeded" or taken.amount_received != AMOUNT_MINOR:
        sys.exit(f"bench: a bare payment ended as {taken.status}")


# --- A slow provider ----------------------------------------------------------------------------------------------


async def slow(url: str, provider: Provider) -> dict[str, Any]:
    """How many calls are in flight while every answer takes 300 ms, and what that makes a second."""
    await provider.answer_after(_LATENCY_MS)
    in_flight: list[float] = []
    async with open_till(url, provider.api_base, in_flight=_SLOW_IN_FLIGHT, connections=_CONNECTIONS) as till:
        sampling = asyncio.create_task(_sample(in_flight))
        begun = time.perf_counter()
        # Twice as many payments as calls: while one is being recorded, another's call takes its place.
        await till.take(_SLOW_PAYMENTS, 2 * _SLOW_IN_FLIGHT)
        seconds = time.perf_counter() - begun
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    await provider.answer_after(0)
    rate, bound = _SLOW_PAYMENTS / seconds, _SLOW_IN_FLIGHT / (_CALLS * _LATENCY_MS / 1_000)
    return {
        "in_flight_with_10_connections": round(percentile(in_flight, 0.5)),
        "slow_provider": {
            "latency_ms": _LATENCY_MS,
            "configured_in_flight": _SLOW_IN_FLIGHT,
            "database_connections": _CONNECTIONS,
            "in_flight_max": round(max(in_flight)),
            "payments_per_second": round(rate, 1),
            "payments_per_second_that_concurrency_allows": round(bound, 1),
            "share_of_that": round(rate / bound, 3),
        },
    }


async def _sample(in_flight: list[float]) -> None:
    while True:
        await asyncio.sleep(_SAMPLE_SECONDS)
        in_flight.append(REGISTRY.get_sample_value(_IN_FLIGHT_METRIC) or 0.0)


# --- All of it ----------------------------------------------------------------------------------------------------


async def measure(payments: int, rounds: int, concurrency: int) -> dict[str, Any]:
    """Take every figure of payments."""
    admin_url, before = variable("POSTGRES_ADMIN_URL") or "", machine()
    say("making the database")
    url = await prepare(admin_url)
    async with fake_stripe() as provider:
        turns = Turns(url, provider, await Neighbours.of(admin_url, provider), payments, concurrency)
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            await turns.ours()
            await turns.bare()
        say(f"a provider that takes {_LATENCY_MS} ms, {_CONNECTIONS} database connections")
        slowly = await slow(url, provider)
    count, amount = await captured(admin_url)
    await clear(admin_url)
    ours, bare = turns.costs[OURS], turns.costs[BARE]
    return {
        "ratio_to_bare_sdk": round(statistics.median(bare.cpu) / statistics.median(ours.cpu), 3),
        "payments_per_second": round(1_000 / statistics.median(ours.cpu)),
        **slowly,
        "ratio_to_bare_sdk_by_wall": round(statistics.median(bare.wall) / statistics.median(ours.wall), 3),
        "contenders": {name: cost.as_json() for name, cost in turns.costs.items()},
        "captured_payments": count,
        "captured_minor": amount,
        "payments": payments,
        "rounds": rounds,
        "concurrency": concurrency,
        "machine": {"before": before, "after": machine()},
    }


async def captured(admin_url: str) -> tuple[int, int]:
    """What the database has, and the ledger: a figure counts only when every payment was taken, once."""
    admin = await asyncpg.connect(admin_url, database=f"{_PREFIX}{SERVICE}")
    count = await admin.fetchval("SELECT count(*) FROM payment WHERE state = 'captured'")
    others = await admin.fetchval("SELECT count(*) FROM payment WHERE state <> 'captured'")
    amount = await admin.fetchval("SELECT sum(amount_minor)::bigint FROM ledger_entry WHERE kind = 'capture'")
    await admin.close()
    if others or amount != count * AMOUNT_MINOR:
        sys.exit(f"bench: {others} payments were not captured, and the ledger has {amount} of {count}")
    return count, amount


def main() -> None:
    """Measure, and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(prog="bench payments")
    for option in ("payments", "rounds", "concurrency"):
        parser.add_argument(f"--{option}", type=int, required=True)
    arguments = parser.parse_args()
    configure_logging("warning", "json")
    figures = uvloop.run(measure(arguments.payments, arguments.rounds, arguments.concurrency))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
