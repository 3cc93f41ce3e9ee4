"""A payments process that dies at a chosen step: API, executor, relay and watch in one, each the real thing.

Nobody lists the steps: every commit, every send to Kafka and every request to the provider is one before it happens and one
after it, found in the drivers as `tests/faults/crash/points.py` wraps them; whatever a change adds is a step by itself. The
process is forked from a nursery that has imported everything, and dies as by kill -9.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID, uuid5

from libs.common.messaging.broker import Broker
from libs.common.messaging.relay import Relay
from libs.common.processes.parts import Worker
from libs.common.shared import Shared
from services.payments.domain.payment.payment import PaymentState
from services.payments.gateway.accounts import Access
from services.payments.jobs.money.refunds import watch_refunds
from services.payments.jobs.payment import watch_payments
from tests.faults.crash.points import WRAPPED
from tests.shared.callers import edge
from tests.shared.events import order_confirmed_for, payment_requested
from tests.shared.places import Place
from tests.shared.till import MASTER_KEYS, PATIENT_SECONDS, Till, running

PART = 500
SETTLED = frozenset(PaymentState) - {
    PaymentState.CREATED,
    PaymentState.AUTHORIZING,
    PaymentState.CAPTURING,
    PaymentState.VOIDING,
    PaymentState.UNKNOWN,
}
PUBLISHED = """SELECT hi IS NULL AND NOT EXISTS (SELECT FROM outbox_event WHERE NOT pg_visible_in_snapshot(txid, lo))
FROM outbox_cursor"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process has to do, and where it dies."""

    role: str
    admin_url: str
    bootstrap_servers: str
    prefix: str
    stripe_url: str
    api_key: str
    tenant_id: str
    payment_id: str
    story: str
    passed: str
    """The file that says which steps it passed, if it gets that far."""
    dies_at: str = ""
    """A step's name; none: it does not."""
    occurrence: int = 1

    @property
    def place(self) -> Place:
        return Place(self.admin_url, "payments", self.prefix)


# --- Steps ---------------------------------------------------------------------------------------------------------------


class Steps:
    """Counts every step by its name, and dies at one."""

    def __init__(self, dies_at: str, occurrence: int) -> None:
        self.passed: list[str] = []
        self._counts: Counter[str] = Counter()
        self._end = dies_at, occurrence

    def passes(self, kind: str, moment: str, name: str) -> None:
        """This is a step."""
        self.passed.append(step := f"{moment} {kind} of {name}")
        self._counts[step] += 1
        if (step, self._counts[step]) == self._end:
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, file: Path) -> None:
        """Nobody died."""
        file.write_text(json.dumps(self.passed))

    def watch(self) -> None:
        """Have the drivers tell, whoever calls them."""
        watch: Any = self
        for name, wrap in WRAPPED.items():
            if name in sys.modules:
                wrap(watch, sys.modules[name])


# --- Stories -------------------------------------------------------------------------------------------------------------


async def authorize(till: Till, payment_id: UUID) -> None:
    ids: dict[str, Any] = {name: uuid5(payment_id, name) for name in ("checkout_id", "order_id", "subject_id")}
    await till.tell(payment_requested(payment_id=payment_id, **ids))
    await till.until(payment_id, *SETTLED)


async def capture(till: Till, payment_id: UUID) -> None:
    await authorize(till, payment_id)
    await till.tell(order_confirmed_for(payment_requested(payment_id=payment_id, checkout_id=payment_id, order_id=payment_id)))
    await till.until(payment_id, PaymentState.CAPTURED)


async def void(till: Till, payment_id: UUID) -> None:
    await authorize(till, payment_id)
    answer = await till.post(f"{payment_id}/void", key=f"void-{payment_id}")
    assert answer.status_code in {200, 202}, answer.text
    await till.until(payment_id, PaymentState.VOIDED)


async def refund(till: Till, payment_id: UUID) -> None:
    await capture(till, payment_id)
    wanted = {"amount_minor": PART, "reason": "returned"}
    answer = await till.post(f"{payment_id}/refunds", wanted, key=f"back-{payment_id}")
    assert answer.status_code == 202, answer.text
    left = "SELECT count(*) FROM refund WHERE payment_id = $1 AND state <> 'succeeded'"
    while (await till.as_admin(left, payment_id))[0][0]:
        await asyncio.sleep(0.02)


STORIES: dict[str, Callable[[Till, UUID], Awaitable[None]]] = {each.__name__: each for each in (authorize, capture, void, refund)}


# --- The process ---------------------------------------------------------------------------------------------------------


async def work(part: Part) -> None:
    """Tell the story from its beginning, as whoever asks for it does again after a crash; then publish what is left."""
    steps = Steps(part.dies_at, part.occurrence)
    steps.watch()
    async with _till(part) as till:
        await STORIES[part.story](till, UUID(part.payment_id))
        while not (await till.as_admin(PUBLISHED))[0][0]:
            await asyncio.sleep(0.01)
    steps.tell(Path(part.passed))


@asynccontextmanager
async def _till(part: Part) -> AsyncIterator[Till]:
    settings: Any = SimpleNamespace(
        kafka_bootstrap_servers=part.bootstrap_servers, topic_prefix=part.prefix, kafka_security_protocol="PLAINTEXT"
    )
    async with AsyncExitStack() as stack:
        client, shell = await stack.enter_async_context(edge(part.place))
        executor, gateways = await stack.enter_async_context(
            running(shell, part.stripe_url, part.api_key, call_seconds=PATIENT_SECONDS)
        )
        relay = Relay(part.place.url("relay"), database="payments", broker=Broker(settings), hints=shell.hints)
        relay._owner = "whoever is alive"  # so that nobody waits for the lease of the dead
        worker = Worker(shell, settings, Shared(Access(gateways, MASTER_KEYS)))
        tasks = [asyncio.create_task(each) for each in (relay.run(), watch_payments(worker), watch_refunds(worker))]
        stack.push_async_callback(_canceled, tasks)
        yield Till(part.place, client, shell, executor, gateways, part.stripe_url, UUID(part.tenant_id))


async def _canceled(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def main() -> None:
    """Be the nursery: one part a line comes in, and the process id of whoever plays it goes out."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if not pid:
            _play(Part(**json.loads(line)))
        print(pid, flush=True)
    os.killpg(0, signal.SIGKILL)


def _play(part: Part) -> NoReturn:
    os.dup2(2, 1)
    try:
        asyncio.run(work(part))
    except BaseException:  # noqa: BLE001 - it ends here, whatever it was
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
