"""Where the facts come from: a reader of its own on the topics, the provider's lists, and two books that are open over HTTP.

No service's database, and no consumer group: it reads from the beginning, and moves nobody's position.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import TopicPartition

from deploy.cli.api import Api, RefusedError
from deploy.cli.invariants.facts import NOTES, Account, Charge, Facts, Level, Published
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
_NOT_FOUND: Final = 404
_EVERY_RECORD: Final = 5_000


class Topics:
    """What all tenants' events have said so far."""

    def __init__(self, consumer: Consumer, prefix: str) -> None:
        """Read with a started consumer, from the beginning of what there is."""
        self.published: dict[UUID, Published] = defaultdict(Published)
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

    def _take(self, partition: TopicPartition, record: Any) -> None:
        found = self._reader.read(record)
        if isinstance(found, Received):
            message = found.message
            self.published[UUID(str(message.tenant_id))].take(message.data, message.time, message.sequence)
        elif isinstance(found, Invalid) and partition.topic in self._ours:
            place = f"{partition.topic}:{partition.partition}:{record.offset}"
            detail = f"{found.reason}: {found.detail}"
            self.unreadable.append(Violation(tenant="-", invariant="unreadable-record", subject=place, detail=detail))


@asynccontextmanager
async def topics(stack: StackDescription) -> AsyncIterator[Topics]:
    """Yield a reader of the stack's topics."""
    names = [stack.topic_prefix + topic for topic in (*OURS, *OTHERS)]
    consumer = Consumer(
        *names, client_id=CLIENT_ID, auto_offset_reset="earliest", enable_auto_commit=False, **client_arguments(stack)
    )
    await consumer.start()
    try:
        found = Topics(consumer, stack.topic_prefix)
        await found.begin()
        yield found
    finally:
        await consumer.stop()


# --- The provider's lists -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class ProviderBooks:
    """Everything on the lists of one of the provider's accounts."""

    charges: dict[UUID, list[Charge]] = field(default_factory=lambda: defaultdict(list))
    """By the tenant that their metadata names."""
    net_minor: dict[UUID, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


async def provider_account(api: Api, account: str | None = None) -> ProviderBooks:
    """Read one account's payments and refunds, and what each payment has moved on its balance, whatever the currency."""
    refunded, returning = Counter[str](), Counter[str]()
    async for refund in api.provider_list("/v1/refunds", account=account):
        sums = {"succeeded": refunded, "pending": returning}.get(refund["status"])
        if sums is not None:
            sums[refund["payment_intent"]] += refund["amount"]
    moved: defaultdict[str, Counter[str]] = defaultdict(Counter)
    async for each in api.provider_list("/v1/balance_transactions", account=account, expand="source"):
        source = each["source"]
        if isinstance(source, dict) and not _is_on_its_way(source):
            moved[source.get("payment_intent") or ""][each["currency"].upper()] += each["amount"]
    found = ProviderBooks()
    async for intent in api.provider_list("/v1/payment_intents", account=account):
        tenant_id = _id(intent, "tenant_id")
        if tenant_id is not None:
            charge = _charge(intent, refunded[intent["id"]], returning[intent["id"]])
            found.charges[tenant_id].append(charge)
            found.net_minor[tenant_id].update(moved[intent["id"]])
    return found


def _is_on_its_way(source: dict[str, Any]) -> bool:
    """A refund that has left the balance and may yet come back is in nobody's books."""
    return source["object"] == "refund" and source["status"] in {"pending", "requires_action"}


def _charge(intent: dict[str, Any], refunded_minor: int, returning_minor: int) -> Charge:
    return Charge(
        id=intent["id"],
        checkout_id=_id(intent, "checkout_id"),
        payment_id=_id(intent, "payment_id"),
        status=intent["status"],
        captured_minor=intent["amount_received"],
        refunded_minor=refunded_minor,
        returning_minor=returning_minor,
        currency=intent["currency"].upper(),
        created_at=datetime.fromtimestamp(intent["created"], UTC),
    )


def _id(intent: dict[str, Any], name: str) -> UUID | None:
    """An id of ours in a payment's metadata; whoever else writes there may write anything."""
    try:
        return UUID(intent["metadata"].get(name, ""))
    except ValueError:
        return None


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

    async def look(self, shops: Sequence[tuple[str, Shop]]) -> list[Facts]:
        """The facts of each of these tenants: the lists first and the topics last, which tell of what the lists have."""
        common = await provider_account(self._api)
        seen = [await self._outside(shop, common) for _, shop in shops]
        await self._topics.catch_up()
        return [
            Facts(
                tenant=slug,
                at=now(),
                published=self._topics.published[shop.tenant_id],
                is_whole=self._topics.is_whole,
                **outside,
            )
            for (slug, shop), outside in zip(shops, seen, strict=True)
        ]

    async def _outside(self, shop: Shop, common: ProviderBooks) -> dict[str, Any]:
        account = await self._account_of(shop, common)
        levels = {level["sku"]: _level(level) async for level in shop.stock()}
        accounts = [_account(each) async for each in self._api.everything("payments", "/v1/ledger/accounts", await shop.token())]
        return {
            "charges": None if account is None else account.charges[shop.tenant_id],
            "provider_net_minor": {} if account is None else dict(account.net_minor[shop.tenant_id]),
            "stock": levels,
            "accounts": accounts,
        }

    async def _account_of(self, shop: Shop, common: ProviderBooks) -> ProviderBooks | None:
        """Where the tenant's money is; None: at an account whose key only the tenant has."""
        try:
            path = "/v1/provider-accounts/stripe"
            own = (await self._api.call("payments", "GET", path, token=await shop.token())).body
        except RefusedError as error:
            if error.status != _NOT_FOUND:
                raise
            return common
        return await provider_account(self._api, own["account"]) if own.get("account") and not own.get("api_key") else None


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
