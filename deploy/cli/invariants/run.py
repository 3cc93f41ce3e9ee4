"""`invariants`: look, be patient with what is on its way, and say what lasts; once, or for as long as somebody watches."""

import asyncio
import json as jsonlib
import signal
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp
from aiokafka.errors import KafkaError
from prometheus_client import start_http_server

from deploy.cli.api import Api, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.invariants.check import Judgment, Limits, judge
from deploy.cli.invariants.facts import Books
from deploy.cli.invariants.reading import Observer, topics
from deploy.cli.invariants.violation import Violation
from deploy.cli.output import echo, print_json, progress
from deploy.cli.shop import Shop
from deploy.cli.tenants import shops
from libs.common.clock import now, rfc3339
from libs.common.money import format_minor
from libs.common.telemetry import Counter, Gauge

_BETWEEN_LOOKS_SECONDS: Final = 1.0
_AWAY: Final = (CommandError, KafkaError, aiohttp.ClientError, OSError, TimeoutError)

VIOLATIONS = Gauge("cartwright_invariant_violations", "Things that are not as they must be, and last", ["invariant"])
LOOKED_AT = Gauge("cartwright_invariants_looked_at_seconds", "When everything was last looked at, in Unix time")
LOOKS = Counter("cartwright_invariants_looks_total", "Looks at everything, by what came of them", ["outcome"])
MONEY = Gauge("cartwright_invariants_money_minor", "What was captured, given back and ordered", ["tenant", "currency", "sum"])


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at everything found."""

    judgments: Sequence[Judgment]
    violations: Sequence[Violation]
    """All that is wrong at this moment; some of it may be on its way."""


class Patience:
    """Tells what lasts from what is on its way: services speak of the same thing a moment apart."""

    def __init__(self, seconds: float) -> None:
        """Believe what has been wrong for so long, in every look."""
        self._seconds = seconds
        self._since: dict[tuple[str, str, str], float] = {}

    def lasting(self, violations: Iterable[Violation], at: float) -> list[Violation]:
        """Those that have been there in every look for long enough."""
        found = {violation.identity: violation for violation in violations}
        self._since = {identity: self._since.get(identity, at) for identity in found}
        return [violation for identity, violation in found.items() if at - self._since[identity] >= self._seconds]


class Checker:
    """Looks at a stack's tenants, all or one."""

    def __init__(self, api: Api, observer: Observer, limits: Limits, tenant: str | None) -> None:
        """Look with this observer, by these limits."""
        self._api = api
        self._observer = observer
        self._limits = limits
        self._tenant = tenant
        self._shops: dict[str, Shop] = {}
        self.books: Sequence[Books] = ()
        """What was looked at last."""

    async def look(self) -> Look:
        """Look at everything once."""
        self._shops = dict([each async for each in shops(self._api, self._tenant, self._shops)])
        self.books = await self._observer.look(list(self._shops.items()))
        judgments = [judge(books, self._limits) for books in self.books]
        found = [violation for judgment in judgments for violation in judgment.violations]
        return Look(judgments, [*found, *self._observer.unreadable])

    async def settled(self, seconds: float) -> Look:
        """Look until nothing is wrong, or until it is clear what lasts."""
        patience, begun = Patience(seconds), time.monotonic()
        while True:
            look, at = await self.look(), time.monotonic()
            lasting = patience.lasting(look.violations, at)
            if not look.violations or lasting or at - begun > 2 * seconds:
                return Look(look.judgments, lasting)
            await asyncio.sleep(min(_BETWEEN_LOOKS_SECONDS, max(seconds, 0.1)))


@asynccontextmanager
async def checking(api: Api, limits: Limits, tenant: str | None) -> AsyncIterator[Checker]:
    """Yield a checker of this stack."""
    async with topics(api.stack) as read:
        yield Checker(api, Observer(api, read), limits, tenant)


def run(*, tenant: str | None, limits: Limits, patience_seconds: float, json: bool) -> int:
    """Look once, patiently; 1 when something is not as it must be."""

    async def once() -> Look:
        async with deployment(progress()) as stack, connected(stack) as api, checking(api, limits, tenant) as checker:
            return await checker.settled(patience_seconds)

    look = asyncio.run(once())
    if json:
        print_json(as_json(look))
    else:
        _tell(look)
    return ExitCode.NOT_SO if look.violations else ExitCode.DONE


def watch(
    *, tenant: str | None, limits: Limits, patience_seconds: float, every_seconds: float, served_at: tuple[str, int], json: bool
) -> int:
    """Look again and again, tell what begins to last and what is over, and serve the figures for Prometheus, until SIGTERM."""
    host, port = served_at
    server, thread = start_http_server(port, addr=host)
    echo(f"metrics on http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics")
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(_watch(tenant, limits, Patience(patience_seconds), every_seconds, json=json))
    finally:
        server.shutdown()
        thread.join()
    return ExitCode.DONE


async def _watch(tenant: str | None, limits: Limits, patience: Patience, every_seconds: float, *, json: bool) -> None:
    known: dict[tuple[str, str, str], Violation] = {}
    watching = asyncio.current_task()
    assert watching
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, watching.cancel)  # a container's first process dies of none
    async with AsyncExitStack() as open_things:
        stack = await open_things.enter_async_context(deployment(progress()))
        api = await open_things.enter_async_context(connected(stack))
        checker = await open_things.enter_async_context(checking(api, limits, tenant))
        while True:
            try:
                look = await checker.look()
            except _AWAY as error:
                LOOKS.labels("failed").inc()
                echo(f"could not look: {error}; trying again in {every_seconds:g} s")
            else:
                lasting = patience.lasting(look.violations, time.monotonic())
                _measure(Look(look.judgments, lasting))
                known = _tell_changes(known, lasting, json=json)
            await asyncio.sleep(every_seconds)


def _tell_changes(
    known: dict[tuple[str, str, str], Violation], lasting: Sequence[Violation], *, json: bool
) -> dict[tuple[str, str, str], Violation]:
    """Say what is new and what is over; one line each. Answers what there is now."""
    found = {violation.identity: violation for violation in lasting}
    changes = [("broken", each) for key, each in found.items() if key not in known]
    changes += [("whole again", each) for key, each in known.items() if key not in found]
    for change, violation in changes:
        if json:
            print(jsonlib.dumps({"at": rfc3339(now()), "change": change, **asdict(violation)}), flush=True)
        else:
            print(f"{rfc3339(now())}  {change:<11}  {violation}", flush=True)
    return found


def _measure(look: Look) -> None:
    LOOKS.labels("violations" if look.violations else "clean").inc()
    LOOKED_AT.set_to_current_time()
    VIOLATIONS.clear()
    for invariant, count in Tally(violation.invariant for violation in look.violations).items():
        VIOLATIONS.labels(invariant).set(count)
    for judgment in look.judgments:
        for currency, sums in judgment.totals.items():
            for name in ("captured_minor", "refunded_minor", "orders_minor"):
                MONEY.labels(judgment.books.tenant, currency, name.removesuffix("_minor")).set(sums[name])


def as_json(look: Look) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "ok": not look.violations,
        "violations": [asdict(violation) for violation in look.violations],
        "tenants": [
            {
                "tenant": judgment.books.tenant,
                "checkouts": judgment.checkouts,
                "totals": judgment.totals,
                "not_judged": _not_judged(judgment.books),
            }
            for judgment in look.judgments
        ],
    }


def _not_judged(books: Books) -> list[str]:
    """What could not be decided from what is published: better said than taken for granted."""
    reasons = []
    if not books.is_listed:
        reasons.append("money: the tenant's own account at the provider shows its lists to nobody else")
    if not books.is_whole:
        reasons.append("stock, and what began before: the topics keep no more")
    return reasons


def _tell(look: Look) -> None:
    for violation in look.violations:
        print(violation)
    for judgment in look.judgments:
        tenant = judgment.books.tenant
        for currency, sums in judgment.totals.items():
            amounts = ", ".join(
                f"{name} {format_minor(sums[f'{name}_minor'], currency)}" for name in ("captured", "refunded", "orders")
            )
            echo(f"{tenant}: {sums['orders']} orders; {amounts}")
        for reason in _not_judged(judgment.books):
            echo(f"{tenant}: not judged: {reason}")
    echo(f"{len(look.violations)} violations" if look.violations else "every invariant holds")
