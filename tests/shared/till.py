"""A till: one tenant's payments in this process, with the service's edge, its executor, and the fake Stripe's own process.

Time is moved in rows, never in code: what the ladders would wait for is made due.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import httpx
from pydantic import SecretStr

from libs.common.auth import CLIENT
from libs.common.clock import now
from libs.common.contracts.checkout import PaymentRequested
from libs.common.messaging.headers import unpack
from libs.common.messaging.shell import Shell
from libs.common.sealing import MasterKey, MasterKeys
from libs.common.shared import Shared
from services.payments.domain.money.ledger import Account
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.outcome import SeenDispute, SeenIntent, SeenRefund, SeenTransaction
from services.payments.gateway.accounts import Access, Credentials, Gateways
from services.payments.gateway.stripe import Stripe
from services.payments.jobs.money.refunds import look_into_due
from services.payments.jobs.payment import look_at_due
from services.payments.jobs.provider.executor import Executor
from services.payments.jobs.provider.webhooks import Settler
from services.payments.repository.payment import PAYMENTS
from services.payments.repository.provider.accounts import loading
from tests.shared.callers import Person, edge, message, onboard
from tests.shared.events import order_confirmed_for, payment_requested
from tests.shared.paying import balances
from tests.shared.places import Place

HASTY_SECONDS = 0.5
"""For a call, where many hang: they are given up soon, so that the test need not wait."""
PATIENT_SECONDS = 10.0
"""Everywhere else: however busy the machine, no answer is given up."""
MISHAPS = ("reset_before", "reset_after", "500", "500_after", "hang", "409")
UNREADABLE = {"match": {"method": "GET"}, "fault": "500", "times": 1}
"""So that an answer that was lost is not made good at once by reading."""
FINAL = {PaymentState.CAPTURED, PaymentState.VOIDED, PaymentState.DECLINED, PaymentState.EXPIRED}
WEBHOOK_SECRET = "whsec_" + "t" * 32


@dataclass
class Till:
    """A tenant's payments, somebody to carry them out, and the provider with an account for this test alone."""

    place: Place
    client: httpx.AsyncClient
    shell: Shell
    executor: Executor
    gateways: Gateways
    stripe_url: str
    tenant_id: UUID

    @property
    def staff(self) -> dict[str, str]:
        return Person(self.tenant_id, subject=self.tenant_id, role=CLIENT).authorization

    # --- What is asked --------------------------------------------------------------------------------------------

    async def request(self, method: str = "pm_card_visa", **members: Any) -> PaymentRequested:
        [asked] = await self.request_many(1, method, **members)
        return asked

    async def request_many(self, count: int, method: str = "pm_card_visa", **members: Any) -> list[PaymentRequested]:
        """Ask for so many payments in one transaction."""
        asked = [payment_requested(method, **members) for _ in range(count)]
        await self.tell(*asked)
        return asked

    async def confirm(self, *asked: PaymentRequested) -> None:
        await self.tell(*map(order_confirmed_for, asked))

    async def tell(self, *events: Any) -> None:
        """Put commands or events to the service, in one transaction."""
        for answer in await self.shell.execute_many([message(each, self.tenant_id) for each in events]):
            if isinstance(error := getattr(answer, "error", None), Exception):
                raise error

    async def post(self, path: str, body: Any = None, key: str | None = None, **headers: str) -> httpx.Response:
        """As staff do over HTTP."""
        sent = {**self.staff, "Idempotency-Key": key or uuid4().hex, **headers}
        content = {} if body is None else {"json": body}
        return await self.client.post(f"/v1/payments/{path}", headers=sent, **content)

    # --- What is known --------------------------------------------------------------------------------------------

    async def known(self, payment_id: UUID) -> Payment:
        [payment] = await self.all_known([payment_id])
        return payment

    async def all_known(self, payment_ids: Sequence[UUID]) -> Sequence[Payment]:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            return await PAYMENTS.load(connection, [(self.tenant_id, each) for each in payment_ids], lock=False)

    async def until(self, payment_id: UUID, *states: PaymentState) -> Payment:
        """Wait until it is so; what lies in between has no duration that anybody promised."""
        [payment] = await self.all_until([payment_id], *states)
        return payment

    async def all_until(self, payment_ids: Sequence[UUID], *states: PaymentState, seconds: float = 120) -> Sequence[Payment]:
        async with asyncio.timeout(seconds):
            while True:
                found = await self.all_known(payment_ids)
                if all(payment.state in states for payment in found):
                    return found
                await asyncio.sleep(0.02)

    async def as_admin(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await self.place.as_admin()
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows
        finally:
            await connection.close()

    async def events(self, payment_id: UUID) -> list[tuple[str, str]]:
        """Type and actor of what was published, without the calls."""
        rows = await self.as_admin(
            "SELECT headers FROM outbox_event WHERE tenant_id = $1 AND topic = 'payment.v1' AND key = $2 ORDER BY id",
            self.tenant_id,
            f"{self.tenant_id}:{payment_id}".encode(),
        )
        found = [dict(unpack(row["headers"])) for row in rows]
        types = [(each["ce_type"].decode(), each["ce_actor"].decode()) for each in found]
        return [each for each in types if each[0] != "provider.called"]

    # --- Time -----------------------------------------------------------------------------------------------------

    async def hurry(self) -> None:
        """Let the ladder's waits be over."""
        # In the order in which the service locks them, or the two may deadlock.
        unknown = "SELECT id FROM operation WHERE tenant_id = $1 AND state = 'unknown' ORDER BY id FOR UPDATE"
        await self.as_admin(f"UPDATE operation SET due_at = now() WHERE id IN ({unknown})", self.tenant_id)

    async def look(self, *payment_ids: UUID) -> None:
        """Let the payments' own wait be over, and look at them."""
        await self.as_admin("UPDATE payment SET look_at = now() WHERE id = ANY ($1) AND look_at IS NOT NULL", list(payment_ids))
        while await look_at_due(self.shell, self.gateways.of):
            pass

    async def look_into_refunds(self) -> None:
        await self.as_admin("UPDATE refund SET due_at = now() WHERE tenant_id = $1 AND due_at IS NOT NULL", self.tenant_id)
        while await look_into_due(self.shell, self.gateways.of):
            pass

    async def settle_notices(self) -> None:
        """Settle what the provider has told of, again and again, until nothing of it waits."""
        settler = Settler(self.shell, self.gateways)
        hurry = "UPDATE webhook_event SET due_at = now() WHERE tenant_id = $1 AND due_at > now() RETURNING id"
        async with asyncio.timeout(60):
            while await settler.settle_due() or await self.as_admin(hurry, self.tenant_id):
                pass

    # --- The provider ---------------------------------------------------------------------------------------------

    async def faults(self, *rules: dict[str, Any]) -> list[int]:
        """The fault plan from now on; answers how often each rule of the last one struck."""
        url = f"{self.stripe_url}/_control/faults"
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                struck = [rule["struck"] for rule in (await response.json())["rules"]]
            async with session.put(url, json={"rules": list(rules)}) as response:
                assert response.status == 200, await response.text()
        return struck

    async def control(self, path: str, **body: object) -> Any:
        async with aiohttp.ClientSession() as session, session.post(f"{self.stripe_url}/_control/{path}", json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def at_provider(self) -> list[SeenIntent]:
        gateway = await self.gateways.of(self.tenant_id)
        return [seen async for seen in gateway.list_intents(*_about_now())]

    async def money_at_provider(self) -> tuple[list[SeenRefund], list[SeenDispute], list[SeenTransaction]]:
        """All that the provider has of this account, but for its payments."""
        gateway = await self.gateways.of(self.tenant_id)
        return (
            [each async for each in gateway.list_refunds(*_about_now())],
            [each async for each in gateway.list_disputes(*_about_now())],
            [each async for each in gateway.list_transactions(*_about_now())],
        )

    async def agreed_books(self) -> dict[str, int]:
        """Our books say what the provider's balance says, to the penny; answers our balances."""
        refunds, _, transactions = await self.money_at_provider()
        ours = await balances(self.shell, self.tenant_id)
        assert ours.get(Account.PROVIDER_BALANCE, 0) == sum(each.net_minor for each in transactions)
        assert ours.get(Account.REFUNDS, 0) == sum(each.amount_minor for each in refunds if each.status == "succeeded")
        fees = ours.get(Account.PROVIDER_FEES, 0) + ours.get(Account.DISPUTE_FEES, 0)
        assert fees == sum(each.fee_minor for each in transactions)
        return ours


def _about_now() -> tuple[Any, Any]:
    return now() - timedelta(days=30), now() + timedelta(days=30)


@asynccontextmanager
async def till_at(
    place: Place, stripe_url: str, *, works: bool = True, call_seconds: float = PATIENT_SECONDS
) -> AsyncIterator[Till]:
    """A till with a tenant of its own. Its edge's shell has no executor behind it in production; here one process is both.

    `works`: unless it only looks on, while other processes do the work. What earlier tests on this database have left
    undone is not taken up: it would be done in this till's account.
    """
    if works:
        admin = await place.as_admin()
        await admin.execute("UPDATE operation SET due_at = now() + interval '1 day' WHERE due_at IS NOT NULL")
        await admin.close()
    async with (
        edge(place) as (client, shell),
        running(shell, stripe_url, works=works, call_seconds=call_seconds) as (executor, gateways),
    ):
        transport: Any = client._transport
        transport.app.state.service.shared = Shared(Access(gateways, MASTER_KEYS, [SecretStr(WEBHOOK_SECRET)]))
        till = Till(place, client, shell, executor, gateways, stripe_url, await onboard(shell))
        yield till
        await till.faults()


MASTER_KEYS = MasterKeys(MasterKey(bytes(32)))


@asynccontextmanager
async def running(
    shell: Shell, stripe_url: str, api_key: str | None = None, *, works: bool = True, call_seconds: float = PATIENT_SECONDS
) -> AsyncIterator[tuple[Executor, Gateways]]:
    """A worker's part: calls for what is planned here, and for what nobody has any more."""
    gateways = Gateways(
        loading(lambda _: shell),
        Stripe(stripe_url, timeout_seconds=call_seconds),
        platform=Credentials(api_key or f"sk_test_{uuid4().hex}"),
        master_keys=MASTER_KEYS,
    )
    executor = Executor(shell, gateways.of)
    tasks = []
    if works:
        shell.after_commit.append(executor.committed)
        tasks = [asyncio.create_task(executor.record()), asyncio.create_task(executor.recover())]
    yield executor, gateways
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await executor.drain()
    await gateways.close()
