"""The edge of payments with a provider behind it, and payments taken as far as a test wants them."""

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
from pydantic import SecretStr

from libs.common.auth import CLIENT
from libs.common.clock import now
from libs.common.messaging.shell import Shell
from libs.common.sealing import MasterKey, MasterKeys
from libs.common.shared import Shared
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.account import STRIPE, ProviderAccount
from services.payments.gateway.accounts import Access, Credentials, Gateways
from services.payments.gateway.stripe import Stripe
from services.payments.jobs.provider.executor import Executor
from services.payments.repository import ACCOUNTS, PAYMENTS
from services.payments.repository.provider.accounts import loading
from tests.shared.callers import Person, edge, message, onboard
from tests.shared.events import AMOUNT, order_confirmed, payment_requested
from tests.shared.places import Place

OLD, NEW = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
SHARED_SECRET, CONNECT_SECRET, OWN_SECRET, NEXT_SECRET = (
    f"whsec_{name}{uuid4().hex}" for name in ("shared", "connect", "own", "next")
)
ACCOUNT = "/v1/provider-accounts/stripe"


@dataclass
class Edge:
    """Payments as its clients and Stripe meet it, with what its composition root makes."""

    client: httpx.AsyncClient
    shell: Shell
    gateways: Gateways
    platform_key: str
    tenant_id: UUID
    place: Place
    fake: str

    async def ask(
        self, method: str, path: str, *, tenant_id: UUID | None = None, role: str = CLIENT, **request: Any
    ) -> httpx.Response:
        person = Person(tenant_id or self.tenant_id, role=role)
        return await self.client.request(method, path, headers=person.authorization, **request)

    async def put(self, tenant_id: UUID | None = None, **given: Any) -> httpx.Response:
        return await self.ask("PUT", ACCOUNT, tenant_id=tenant_id, json=given)

    async def code(self, account: str | None = None) -> str:
        """An account's owner says yes on Stripe's page."""
        async with httpx.AsyncClient() as browser:
            said = await browser.post(f"{self.fake}/_control/connections", json={"account": account} if account else {})
        return str(said.json()["code"])

    async def begin(self, person: Person) -> str:
        begun = await self.client.post(f"{ACCOUNT}/connections", headers=person.authorization)
        assert begun.status_code == 201, begun.text
        return str(begun.json()["state"])

    async def complete(self, person: Person, state: str, code: str) -> httpx.Response:
        return await self.client.post(f"{ACCOUNT}/connections/{state}", headers=person.authorization, json={"code": code})

    async def connect(self, account: str | None = None, *, tenant_id: UUID | None = None) -> str:
        """The account, proven to be the tenant's."""
        person = Person(tenant_id or self.tenant_id, role=CLIENT)
        done = await self.complete(person, await self.begin(person), await self.code(account))
        assert done.status_code == 200, done.text
        return str(done.json()["account"])

    async def stored(self, tenant_id: UUID | None = None) -> ProviderAccount:
        tenant_id = tenant_id or self.tenant_id
        async with self.shell.database.transaction([tenant_id]) as connection:
            [account] = await ACCOUNTS.load(connection, [(tenant_id, STRIPE)], lock=False)
        return account

    async def payment(self, payment_id: UUID) -> Payment:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            [payment] = await PAYMENTS.load(connection, [(self.tenant_id, payment_id)], lock=False)
        return payment

    async def notices(self, tenant_id: UUID | None = None) -> list[dict[str, Any]]:
        async with self.shell.database.transaction([tenant_id or self.tenant_id]) as connection:
            return [dict(row) for row in await connection.fetch("SELECT * FROM webhook_event ORDER BY id")]

    async def tell(self, body: bytes, *secrets: str, tenant_id: UUID | None = None, at: float | None = None) -> httpx.Response:
        """Send an event to a tenant's address, as Stripe would."""
        return await self._post(f"/v1/webhooks/stripe/{tenant_id or self.tenant_id}", body, secrets, at)

    async def tell_platform(self, body: bytes, *secrets: str, at: float | None = None) -> httpx.Response:
        """Send an event to the address of the whole account."""
        return await self._post("/v1/webhooks/stripe", body, secrets, at)

    async def _post(self, path: str, body: bytes, secrets: Sequence[str], at: float | None) -> httpx.Response:
        seconds = int(at or now().timestamp())
        signed = f"{seconds}.".encode() + body
        made = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets or [SHARED_SECRET]]
        headers = {"Stripe-Signature": ",".join([f"t={seconds}", *(f"v1={each}" for each in made)])}
        return await self.client.post(path, content=body, headers=headers)


@asynccontextmanager
async def payments_edge(place: Place, fake: str, master_keys: MasterKeys) -> AsyncIterator[Edge]:
    async with AsyncExitStack() as stack:
        client, shell = await stack.enter_async_context(edge(place))
        transport: Any = client._transport
        service = transport.app.state.service
        platform_key = f"sk_test_{uuid4().hex}"
        gateways = Gateways(
            loading(service.shell_of),
            Stripe(fake),
            platform=Credentials(platform_key),
            master_keys=master_keys,
            connect_client_id="ca_test",
        )
        stack.push_async_callback(gateways.close)
        service.shared = Shared(Access(gateways, master_keys, [SecretStr(SHARED_SECRET), SecretStr(CONNECT_SECRET)]))
        yield Edge(client, shell, gateways, platform_key, await onboard(shell), place, fake)


async def pay(payments: Edge, method: str = "pm_card_visa") -> Payment:
    """A payment that the executor has taken as far as it goes."""
    requested = payment_requested(method)
    async with carried_out(payments):
        await payments.shell.execute(message(requested, payments.tenant_id))
        await until(payments, requested.payment_id, PaymentState.AUTHORIZED)
    return await payments.payment(requested.payment_id)


@asynccontextmanager
async def carried_out(payments: Edge) -> AsyncIterator[None]:
    """What is planned meanwhile is asked of the fake, and recorded."""
    executor = Executor(payments.shell, payments.gateways.of)
    payments.shell.after_commit.append(executor.committed)
    recording = asyncio.create_task(executor.record())
    try:
        yield
    finally:
        payments.shell.after_commit.remove(executor.committed)
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)


async def until(payments: Edge, payment_id: UUID, state: PaymentState) -> None:
    async with asyncio.timeout(20):
        while (await payments.payment(payment_id)).state is not state:
            await asyncio.sleep(0.01)


async def capture(payments: Edge, payment: Payment) -> Payment:
    """The order is confirmed, so the money is taken."""
    whose = {"order_id": payment.order_id, "checkout_id": payment.checkout_id, "subject_id": payment.subject_id}
    order = order_confirmed(AMOUNT, payment_id=payment.id, **whose)
    async with carried_out(payments):
        await payments.shell.execute(message(order, payments.tenant_id))
        await until(payments, payment.id, PaymentState.CAPTURED)
    return await payments.payment(payment.id)


def a_key() -> str:
    return f"sk_test_{uuid4().hex}"
