"""Payments as its worker carries them out: the real handlers, shell, executor, gateway and database, so many at once.

What other services would say is said here: a payment is requested, and once it is authorized its order is confirmed.
Both come in batches, as they would from Kafka.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from libs.common.clock import new_id, now
from libs.common.contracts import Event
from libs.common.contracts.checkout import OrderConfirmed, PaymentRequested, Totals
from libs.common.contracts.identity import TenantUpdated
from libs.common.database import Database
from libs.common.decision import Aggregate, Message
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Failure, Shell
from libs.common.sealing import KEY_BYTES, MasterKey, MasterKeys
from services.payments import handlers, repository
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.operation import CALL_SECONDS
from services.payments.gateway.accounts import Credentials, Gateways
from services.payments.gateway.stripe import Stripe
from services.payments.jobs.provider.executor import Executor
from services.payments.repository.provider.accounts import loading

SERVICE: Final = "payments"
CURRENCY: Final = "GBP"
CARD: Final = "pm_card_visa"
AMOUNT_MINOR: Final = 1_250
API_KEY: Final = "sk_test_bench"
MAX_BATCH: Final = 500


class Till:
    """Takes payments in a closed loop: as one is captured, the next is requested."""

    def __init__(self, shell: Shell, tenant_id: UUID) -> None:
        self._shell = shell
        self._tenant_id = tenant_id
        self._messages: list[Message[Any]] = []
        self._said = asyncio.Event()
        self._requested: dict[UUID, PaymentRequested] = {}
        self._to_request = 0
        self._left = 0
        self._done = asyncio.Event()
        shell.after_commit.append(self._committed)

    async def take(self, count: int, at_once: int) -> None:
        """Authorize and capture this many, never more than so many at once."""
        self._done.clear()
        self._left = self._to_request = count
        for _ in range(min(at_once, count)):
            self._request()
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._speak()), asyncio.create_task(self._done.wait())]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()

    async def introduce(self) -> None:
        """Have the service know the tenant."""
        tenant = TenantUpdated(
            tenant_id=self._tenant_id, version=1, slug="bench", status="active", currency=CURRENCY, country="GB", settings={}
        )
        await self._shell.execute(self._message(tenant, self._tenant_id))

    # --- What other services say ------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        """Deliver what there is to say; what comes meanwhile makes the next batch."""
        while True:
            await self._said.wait()
            self._said.clear()
            while self._messages:
                batch, self._messages = self._messages[:MAX_BATCH], self._messages[MAX_BATCH:]
                for answer in await self._shell.execute_many(batch):
                    if isinstance(answer, Failure):
                        raise answer.error

    def _say(self, event: Event, flow: UUID) -> None:
        self._messages.append(self._message(event, flow))
        self._said.set()

    def _request(self) -> None:
        if self._to_request == 0:
            return
        self._to_request -= 1
        checkout_id, payment_id = new_id(), new_id()
        asked = PaymentRequested(
            checkout_id=checkout_id,
            payment_id=payment_id,
            order_id=new_id(),
            amount_minor=AMOUNT_MINOR,
            currency=CURRENCY,
            method=CARD,
            capture="on-confirmation",
            quote_hash="0" * 64,
            subject_id=new_id(),
        )
        self._requested[payment_id] = asked
        self._say(asked, checkout_id)

    def _committed(self, changed: Sequence[Aggregate]) -> None:
        for state in changed:
            if not isinstance(state, Payment) or state.id not in self._requested:
                continue
            if state.state is PaymentState.AUTHORIZED:
                self._say(_confirmed(self._requested[state.id]), state.checkout_id)
            elif state.state is PaymentState.CAPTURED:
                self._requested.pop(state.id)
                self._left -= 1
                self._request()
                if self._left == 0:
                    self._done.set()

    def _message(self, event: Event, flow: UUID) -> Message[Any]:
        return Message(
            data=event,
            tenant_id=self._tenant_id,
            id=str(new_id()),
            time=now(),
            source="/cartwright/checkout",
            actor="/cartwright/checkout",
            correlation_id=str(flow),
            sequence=1,
        )


def _confirmed(asked: PaymentRequested) -> OrderConfirmed:
    return OrderConfirmed(
        order_id=asked.order_id,
        number=1,
        checkout_id=asked.checkout_id,
        cart_id=asked.checkout_id,
        payment_id=asked.payment_id,
        subject_id=asked.subject_id,
        currency=asked.currency,
        lines=(),
        totals=Totals(
            subtotal_minor=asked.amount_minor, discount_minor=0, shipping_minor=0, tax_minor=0, total_minor=asked.amount_minor
        ),
        placed_at=now(),
    )


@asynccontextmanager
async def open_till(url: str, api_base: str, *, in_flight: int, connections: int) -> AsyncIterator[Till]:
    """The service's worker as it is composed, without Kafka: what it publishes stays in the outbox."""
    hints = Hints(url)
    await hints.start()
    database = await Database.connect(url, application=SERVICE, size=connections)
    shell = Shell(database, repository.ROWS, handlers.HANDLERS, service=SERVICE, hints=hints)
    provider, platform = Stripe(api_base, timeout_seconds=CALL_SECONDS), Credentials(API_KEY)
    keys = MasterKeys(MasterKey(bytes(KEY_BYTES)))
    gateways = Gateways(loading(lambda _: shell), provider, platform=platform, master_keys=keys)
    executor = Executor(shell, gateways.of, in_flight=in_flight)
    shell.after_commit.append(executor.committed)
    till = Till(shell, new_id())
    tasks = [asyncio.create_task(work) for work in (executor.record(), executor.recover())]
    try:
        await till.introduce()
        yield till
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await executor.drain()
        await gateways.close()
        await hints.close()
        await database.close()
