"""One tenant's payments, its account at the provider, and what a comparison of both finds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from libs.common.clock import new_id, now
from libs.common.messaging.shell import Shell
from libs.common.shared import Shared
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.reconciliation.reconciliation import Break, Reconciliation, RunState
from services.payments.gateway.accounts import Access, Credentials, Gateways
from services.payments.gateway.protocol import PaymentGateway
from services.payments.gateway.stripe import Stripe, StripeGateway
from services.payments.handlers.reconciliation import RequestReconciliation
from services.payments.jobs.provider.executor import Executor
from services.payments.jobs.reconciliation.audit import PAGE
from services.payments.jobs.reconciliation.reconciler import Reconciler
from services.payments.repository import BREAKS, PAYMENTS, RECONCILIATIONS
from services.payments.repository.provider.accounts import loading
from tests.shared.callers import message, onboard, shell_of
from tests.shared.events import order_confirmed_for, payment_requested
from tests.shared.places import Place
from tests.shared.till import MASTER_KEYS

AMOUNT, MANY = 10_000, PAGE + 5
NOW_GRACE = timedelta(0)
"""Everything that differs counts, however young: these tests plant what they look for."""


@dataclass
class Bank:
    """One tenant's payments and its account at the provider."""

    place: Place
    shell: Shell
    gateway: PaymentGateway
    api_key: str
    tenant_id: UUID

    async def pay(self, count: int, *, confirm: bool = True, method: str = "pm_card_visa") -> list[UUID]:
        """Authorize this many payments, and capture them."""
        asked = [payment_requested(method, amount_minor=AMOUNT) for _ in range(count)]
        await self.shell.execute_many([message(each, self.tenant_id) for each in asked])
        await self.until(count, PaymentState.AUTHORIZED, [each.payment_id for each in asked])
        if confirm:
            await self.shell.execute_many([message(order_confirmed_for(each), self.tenant_id) for each in asked])
            await self.until(count, PaymentState.CAPTURED, [each.payment_id for each in asked])
        return [each.payment_id for each in asked]

    async def until(self, count: int, state: PaymentState, keys: list[UUID]) -> None:
        async with asyncio.timeout(120):
            while sum([(await self.payment(key)).state is state for key in keys]) < count:
                await asyncio.sleep(0.02)

    async def payment(self, key: UUID) -> Payment:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            [payment] = await PAYMENTS.load(connection, [(self.tenant_id, key)], lock=False)
        return payment

    async def as_admin(self, *statements: str) -> None:
        """Do what nobody may: tables as a lossy restore or a careless person would leave them."""
        admin = await self.place.as_admin()
        await admin.execute("SET session_replication_role = replica")
        for statement in statements:
            await admin.execute(statement)
        await admin.close()

    async def reconcile(self, *, grace: timedelta = NOW_GRACE) -> tuple[Reconciliation, list[Break]]:
        """Have the books compared; answers the run, and every break there was."""
        run_id, moment = new_id(), now()
        command = RequestReconciliation(
            reconciliation_id=run_id,
            window_from=moment - timedelta(days=1),
            window_to=moment + timedelta(seconds=2),
            grace=grace,
            requested_by="test",
        )
        await self.shell.execute(message(command, self.tenant_id))
        assert await Reconciler(self.shell, self.gateway_of).run_one()
        run = await self.run(run_id)
        assert run.error is None
        assert run.state is RunState.FINISHED
        return run, await self.breaks()

    def lend(self, http: httpx.AsyncClient, fake: str) -> Gateways:
        """Let the edge behind this client read the bank's account too."""
        provider = Stripe(fake)
        platform = Credentials(self.api_key)
        gateways = Gateways(loading(lambda _: self.shell), provider, platform=platform, master_keys=MASTER_KEYS)
        transport: Any = http._transport
        transport.app.state.service.shared = Shared(Access(gateways, MASTER_KEYS))
        return gateways

    async def gateway_of(self, _: UUID) -> PaymentGateway:
        return self.gateway

    async def run(self, run_id: UUID) -> Reconciliation:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            [run] = await RECONCILIATIONS.load(connection, [(self.tenant_id, run_id)], lock=False)
        return run

    async def last_run(self) -> Reconciliation:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            row = await connection.fetchrow("SELECT * FROM reconciliation ORDER BY started_at DESC LIMIT 1")
        return RECONCILIATIONS.decode(row)

    async def scheduled_runs(self) -> int:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            count: int = await connection.fetchval("SELECT count(*) FROM reconciliation WHERE requested_by = 'schedule'")
        return count

    async def breaks(self) -> list[Break]:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            rows = await connection.fetch("SELECT * FROM reconciliation_break ORDER BY first_seen_at, id")
        return [BREAKS.decode(row) for row in rows]


@asynccontextmanager
async def bank_of(place: Place, fake: str) -> AsyncIterator[Bank]:
    async with shell_of(place) as shell:
        api_key = f"sk_test_{uuid4().hex}"
        gateway = StripeGateway(api_key, fake)
        tenant_id = await onboard(shell)
        bank = Bank(place, shell, gateway, api_key, tenant_id)
        executor = Executor(shell, bank.gateway_of)
        shell.after_commit.append(executor.committed)
        tasks = [asyncio.create_task(work) for work in (executor.record(), executor.recover())]
        try:
            yield bank
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await executor.drain()
            await gateway.close()
