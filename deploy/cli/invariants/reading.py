"""Where the facts come from: a reader of its own on the topics, the provider's lists, and two books that are open over HTTP.

No service's database, and no consumer group: it reads from the beginning, and moves nobody's position.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import TopicPartition
from asyncpg.pgproto import pgproto

from deploy.cli.api import Api, RefusedError
from deploy.cli.invariants.facts import Account, Books, Charge, Level
from deploy.cli.invariants.notes import NOTES
from deploy.cli.invariants.store import COMMON, Store
from deploy.cli.invariants.violation import Violation
from deploy.cli.publisher import client_arguments
from deploy.cli.shop import Shop
from deploy.local.description import StackDescription
from libs.common.clock import now
from libs.common.messaging.envelope import Invalid, Reader, Received
from libs.common.messaging.reading import Consumer

OURS: Final = ("cart.v1", "checkout.v1", "order.v1", "payment.v1")
"""Topics on which every record must be readable: nobody but us may write there."""
OTHERS: Final = ("inventory.v1", "fulfilment.v1")
CLIENT_ID: Final = "checkout.invariants"
PRINCIPAL: Final = "invariants"
"""Who it is at a broker that asks."""
_NOT_FOUND: Final = 404
_EVERY_RECORD: Final = 5_000
_TENANTS_AT_ONCE: Final = 16


class Topics:
    """What all tenants' events have said so far."""

    def __init__(self, consumer: Consumer, prefix: str, store: Store) -> None:
        """Read with a started consumer, from the beginning of what there is, and write down what counts."""
        self.store = store
        self.unreadable: list[Violation] = []
        self.is_whole = True
        self._consumer = consumer
        self._reader = Reader(NOTES, topic_prefix=prefix)
        self._ours = {prefix + topic for topic in OURS}

    async def begin(self) -> None:
        """Find out whether anything has left the topics already."""
        beginnings = await self._consumer.beginning_offsets(self._consumer.assignment())
        self.is_whole = not any(beginnings.values())

    async def catch_up(self) -> None:
        """Read on to where the topics ended when this was called."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        while behind := [each for each, end in ends.items() if await self._consumer.position(each) < end]:
            for partition, records in (await self._consumer.getmany(*behind, timeout_ms=500, max_records=_EVERY_RECORD)).items():
                for record in records:
                    self._take(partition, record)
            await asyncio.sleep(0)  # what is read beside this goes on

    def _take(self, partition: TopicPartition, record: Any) -> None:
        found = self._reader.read(record)
        if isinstance(found, Received):
            message = found.message
            self.store.take(message.data, message.tenant_id, message.time, message.sequence)
        elif isinstance(found, Invalid) and partition.topic in self._ours:
            place = f"{partition.topic}:{partition.partition}:{record.offset}"
            detail = f"{found.reason}: {found.detail}"
            self.unreadable.append(Violation(tenant="-", invariant="unreadable-record", subject=place, detail=detail))


@asynccontextmanager
async def topics(stack: StackDescription) -> AsyncIterator[Topics]:
    """Yield a reader of the stack's topics."""
    names = [stack.topic_prefix + topic for topic in (*OURS, *OTHERS)]
    consumer = Consumer(
        *names, client_id=CLIENT_ID, auto_offset_reset="earliest", enable_auto_commit=False, **client_arguments(stack, PRINCIPAL)
    )
    with closing(Store()) as store:
        await consumer.start()
        try:
            found = Topics(consumer, stack.topic_prefix, store)
            await found.begin()
            yield found
        finally:
            await consumer.stop()


# --- The provider's lists -----------------------------------------------------------------------------------------


async def read_account(api: Api, store: Store, account: str = COMMON) -> None:
    """Read one account's payments, refunds and disputes, and what each has moved on its balance, whatever the currency.

    Movements come first: what they are for is on the lists that are read after them.
    """
    at = account or None
    async for each in api.provider_list("/v1/balance_transactions", account=at):
        store.list_money(each["source"] or "", each["currency"].upper(), each["amount"])
    async for refund in api.provider_list("/v1/refunds", account=at):
        store.list_refund(refund["id"], refund["payment_intent"] or "", refund["amount"], refund["status"])
    async for dispute in api.provider_list("/v1/disputes", account=at):
        store.list_dispute(dispute["id"], dispute["payment_intent"] or "")
    async for intent in api.provider_list("/v1/payment_intents", account=at):
        tenant_id = _id(intent, "tenant_id")
        if tenant_id is not None:
            store.list_charge(account, tenant_id, _charge(intent), intent["latest_charge"])


def _charge(intent: dict[str, Any]) -> Charge:
    return Charge(
        id=intent["id"],
        checkout_id=_id(intent, "checkout_id"),
        payment_id=_id(intent, "payment_id"),
        status=intent["status"],
        captured_minor=intent["amount_received"],
        refunded_minor=0,  # the list of refunds says what went back
        currency=intent["currency"].upper(),
        created_at=datetime.fromtimestamp(intent["created"], UTC),
    )


def _id(intent: dict[str, Any], name: str) -> UUID | None:
    """An id of ours in a payment's metadata; whoever else writes there may write anything."""
    try:
        found: UUID = pgproto.UUID(intent["metadata"].get(name, ""))
    except ValueError:
        return None
    return found


# --- Everything at one moment -------------------------------------------------------------------------------------


class Observer:
    """Looks at all sources, again and again."""

    def __init__(self, api: Api, read: Topics) -> None:
        """Look through the public APIs, with a reader of the topics."""
        self._api = api
        self._topics = read

    @property
    def unreadable(self) -> Sequence[Violation]:
        """What somebody wrote to our topics that nobody can read."""
        return self._topics.unreadable

    async def look(self, shops: Sequence[tuple[str, Shop]]) -> list[Books]:
        """The books of each of these tenants: the lists first and the topics last, which tell of what the lists have."""
        store = self._topics.store
        store.begin_lists()
        # What the topics had before is read meanwhile; once the lists are read, what they have had since.
        lists, _ = await asyncio.gather(self._lists(shops), self._topics.catch_up())
        await self._topics.catch_up()
        net, found = store.net_minor(), []
        for (slug, shop), (account, open_books) in zip(shops, lists, strict=True):
            place = COMMON if account is None else account
            found.append(
                Books(
                    tenant=slug,
                    at=now(),
                    noted=store.of(shop.tenant_id, place),
                    is_listed=account is not None,
                    provider_net_minor={} if account is None else dict(net[account, shop.tenant_id]),
                    is_whole=self._topics.is_whole,
                    **open_books,
                )
            )
        return found

    async def _lists(self, shops: Sequence[tuple[str, Shop]]) -> list[tuple[str | None, dict[str, Any]]]:
        """Where each tenant's money is, and its open books; every account is read once, however many tenants share it."""
        read = asyncio.create_task(read_account(self._api, self._topics.store))
        try:
            found = []
            for begin in range(0, len(shops), _TENANTS_AT_ONCE):
                some = shops[begin : begin + _TENANTS_AT_ONCE]
                found += await asyncio.gather(*(self._of(shop) for _, shop in some))
            await read
        finally:
            read.cancel()
        for account in sorted({account for account, _ in found if account}):
            await read_account(self._api, self._topics.store, account)
        return found

    async def _of(self, shop: Shop) -> tuple[str | None, dict[str, Any]]:
        return await self._account_of(shop), await self._open_books(shop)

    async def _open_books(self, shop: Shop) -> dict[str, Any]:
        levels = {level["sku"]: _level(level) async for level in shop.stock()}
        accounts = [_account(each) async for each in self._api.everything("payments", "/v1/ledger/accounts", await shop.token())]
        return {"stock": levels, "accounts": accounts}

    async def _account_of(self, shop: Shop) -> str | None:
        """The account at the provider where the tenant's money is; None: one whose key only the tenant has."""
        try:
            path = "/v1/provider-accounts/stripe"
            own = (await self._api.call("payments", "GET", path, token=await shop.token())).body
        except RefusedError as error:
            if error.status != _NOT_FOUND:
                raise
            return COMMON
        return str(own["account"]) if own.get("account") and not own.get("api_key") else None


def _level(level: dict[str, Any]) -> Level:
    return Level(
        on_hand=level["on_hand"],
        reserved=level["reserved"],
        sold=level["sold"],
        backordered=level["backordered"],
        is_tracked=level["policy"] != "untracked",
    )


def _account(account: dict[str, Any]) -> Account:
    return Account(
        code=account["code"],
        currency=account["currency"],
        debited_minor=account["debited_minor"],
        credited_minor=account["credited_minor"],
    )
