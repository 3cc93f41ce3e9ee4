"""What the fake remembers: every account, the clock and the deliveries still owed, in memory and in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from heapq import heappop, heappush
from secrets import token_hex
from typing import Any

import orjson

from deploy.local.fake_stripe.accounts import Account, Event, Happened, events_of
from deploy.local.fake_stripe.balance import settled
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS, Ask, Extent, Stored
from deploy.local.fake_stripe.journal import Journal
from deploy.local.fake_stripe.records import Change, Settlement, WebhookEndpoint
from deploy.local.fake_stripe.restoring import change_from, change_record

_WORTH_COMPACTING = 10_000
"""Journal lines below which a start never rewrites the file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be stored under its key."""

    ask: Ask
    status: int
    request_id: str
    stored_at: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Owed:
    """An event that an endpoint is to be told of."""

    account: Account
    event: Event
    endpoint_id: str


@dataclass(order=True, frozen=True, slots=True)
class Due:
    """Something that time does to an object: a hold lapses, a test card's refund settles, evidence comes too late."""

    at: int
    account: str
    kind: str
    object_id: str


class Books:
    """All accounts, written to the journal before they are believed."""

    def __init__(self, journal: Journal, now: int) -> None:
        self._journal = journal
        self._accounts: dict[str, Account] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._due: list[Due] = []
        self.owed: dict[tuple[str, str], Owed] = {}
        self.on_owed: Callable[[Owed], None] = lambda _: None
        self.latest_at = 0
        self.ahead_seconds = 0
        if self._restore_all() > max(_WORTH_COMPACTING, 2 * self._living(now)):
            journal.rewrite(self._dump(now))
            self._forget()
            self._restore_all()

    def account(self, api_key: str, connected: str = "") -> Account:
        """Return the account a key opens; the key itself is never written down."""
        name = self._names.get((api_key, connected))
        if name is None:
            digest = blake2b(f"{api_key}\n{connected}".encode(), digest_size=9)
            name = "acct_" + digest.hexdigest() + (f"/{connected}" if connected else "")
            self._names[api_key, connected] = name
        return self._open(name, self.account(api_key).name if connected else "")

    def accounts(self) -> list[Account]:
        """Return every account that ever made a request."""
        return list(self._accounts.values())

    def moment(self, clock: float) -> int:
        """Turn the clock into Unix seconds that never fall, since the listings are ordered by them."""
        self.latest_at = max(self.latest_at, int(clock) + self.ahead_seconds)
        return self.latest_at

    def advance(self, seconds: int) -> None:
        """Put the fake's own clock forward for good."""
        self.ahead_seconds += seconds
        self._write({"ahead_seconds": self.ahead_seconds})

    def record(
        self, account: Account, change: Change | None, answer: Answer | None, *, at: int, request_id: str | None = None
    ) -> None:
        """Make an effect and its stored answer durable, then visible, then due and owed what follows from it."""
        if change is None and answer is None:
            return
        change = None if change is None else settled(change, account.settlement)
        happened = None
        line: dict[str, Any] = _account_record(account)
        if change is not None:
            key = answer.ask.key if answer else None
            happened = Happened(f"evt_{token_hex(11)}", at, change, request_id, key)
            line |= _happened_record(happened)
        if answer is not None:
            line["stored"] = _stored_record(answer)
        extent = self._journal.append(orjson.dumps(line), answer.body if answer else b"")
        if happened is not None:
            for owed in self._apply(account, happened):
                self.on_owed(owed)
        if answer is not None:
            account.keys.store(Stored(answer.ask, answer.status, answer.request_id, answer.stored_at, extent))

    def settle_in(self, account: Account, settlement: Settlement | None) -> None:
        """Settle an account in one currency from now on; None: each payment in its own."""
        account.settlement = settlement
        self._write(_account_record(account) | {"settlement": settlement})

    def settle(self, owed: Owed) -> None:
        """Write down that an endpoint needs to be told of an event no more."""
        if self._let_go(owed.event.id, owed.endpoint_id):
            self._write({"settled": [owed.event.id, owed.endpoint_id]})

    def owe(self, account: Account, event: Event, endpoint: WebhookEndpoint) -> None:
        """Tell an endpoint of an event (again)."""
        self.on_owed(self._add(account, event, endpoint.id))

    def told(self, account: Account) -> Iterator[WebhookEndpoint]:
        """Yield the endpoints that are told of an account: its own, and its platform's for connected accounts."""
        yield from (endpoint for endpoint in account.endpoints if not endpoint.connect)
        platform = self._accounts.get(account.platform)
        yield from (endpoint for endpoint in platform.endpoints if endpoint.connect) if platform else ()

    def endpoint_of(self, owed: Owed) -> WebhookEndpoint | None:
        """Return the endpoint that is to be told, unless it is gone."""
        return next((endpoint for endpoint in self.told(owed.account) if endpoint.id == owed.endpoint_id), None)

    def due_at(self) -> int | None:
        """Return when time does something next."""
        return self._due[0].at if self._due else None

    def take_due(self, now: int) -> Iterator[Due]:
        """Yield what is due, each once."""
        while self._due and self._due[0].at <= now:
            yield heappop(self._due)

    def body_of(self, stored: Stored) -> bytes:
        """Return the body of a stored answer, as it was sent."""
        return self._journal.body(stored.extent)

    def clear(self) -> None:
        """Forget every account, on disk too."""
        self._journal.clear()
        self._forget()

    def close(self) -> None:
        """Release the journal."""
        self._journal.close()

    def _open(self, name: str, platform: str = "") -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name)
        if platform:
            account.platform = platform
        return account

    def _apply(self, account: Account, happened: Happened) -> list[Owed]:
        change = happened.change
        account.apply(change)
        self._schedule(account, change)
        if not change.events:
            return []
        account.history.append(happened)
        return self._owe(account, happened) if len(account.endpoints) or account.platform else []

    def _schedule(self, account: Account, change: Change) -> None:
        charge, refund = change.charge, change.refund
        if charge is not None and charge.capture_before is not None and not charge.capture_count:
            heappush(self._due, Due(charge.capture_before, account.name, "hold", charge.id))
        if refund is not None and refund.settles_at is not None:
            heappush(self._due, Due(refund.settles_at, account.name, "refund", refund.id))
        for dispute in change.disputes:
            heappush(self._due, Due(dispute.due_by, account.name, "dispute", dispute.id))

    def _owe(self, account: Account, happened: Happened) -> list[Owed]:
        return [
            self._add(account, event, endpoint.id)
            for endpoint in self.told(account)
            if endpoint.enabled
            for event in events_of(happened)
            if any(fnmatchcase(event.type, wanted) for wanted in endpoint.enabled_events)
        ]

    def _add(self, account: Account, event: Event, endpoint_id: str) -> Owed:
        if (event.id, endpoint_id) not in self.owed:
            account.owed_count[event.id] += 1
        owed = self.owed[event.id, endpoint_id] = Owed(account, event, endpoint_id)
        return owed

    def _let_go(self, event_id: str, endpoint_id: str) -> bool:
        owed = self.owed.pop((event_id, endpoint_id), None)
        if owed is None:
            return False
        owed.account.owed_count[event_id] -= 1
        if not owed.account.owed_count[event_id]:
            del owed.account.owed_count[event_id]
        return True

    def _write(self, line: dict[str, Any]) -> None:
        self._journal.append(orjson.dumps(line), b"")

    def _forget(self) -> None:
        self._accounts.clear()
        self._due.clear()
        self.owed.clear()
        self.ahead_seconds = 0

    def _restore_all(self) -> int:
        lines = 0
        for record, extent in self._journal.read():
            self._restore(record, extent)
            lines += 1
        return lines

    def _restore(self, record: Mapping[str, Any], extent: Extent) -> None:
        if "settled" in record:
            self._let_go(*record["settled"])
        elif "ahead_seconds" in record:
            self.ahead_seconds = record["ahead_seconds"]
        elif "settlement" in record:
            account = self._open(record["account"], record.get("platform", ""))
            account.settlement = None if record["settlement"] is None else Settlement(**record["settlement"])
        else:
            self._restore_account(self._open(record["account"], record.get("platform", "")), record, extent)

    def _restore_account(self, account: Account, record: Mapping[str, Any], extent: Extent) -> None:
        change = change_from(record)
        at = record.get("at", change.intent.created if change.intent else 0)
        self.latest_at = max(self.latest_at, at)
        happened = Happened(record.get("event", ""), at, change, record.get("request_id"), record.get("key"))
        if "past" not in record:
            self._apply(account, happened)
        else:  # told for its events alone; the objects as they are now stand in lines of their own
            account.history.append(happened)
            for event, endpoint in record["past"]:
                self._restore_owed(account, happened, event, endpoint)
        if (stored := record.get("stored")) is not None:
            ask = Ask(stored["key"], stored["path"], stored["fingerprint"])
            account.keys.store(Stored(ask, stored["status"], stored["request_id"], stored["stored_at"], extent))

    def _restore_owed(self, account: Account, happened: Happened, event_id: str, endpoint_id: str) -> None:
        for event in events_of(happened):
            if event.id == event_id:
                self._add(account, event, endpoint_id)

    def _living(self, now: int) -> int:
        return sum(
            len(account.intents) + len(account.charges) + len(account.keys.living(now)) + len(self._kept(account, now))
            for account in self._accounts.values()
        )

    def _kept(self, account: Account, now: int) -> list[Happened]:
        """Return what a rewrite keeps of the past: a day of it, and whatever somebody is still owed."""
        owed = {event_id[:-2] for event_id, _ in self.owed}
        since = now + self.ahead_seconds - LIFETIME_SECONDS
        return [happened for happened in account.history if happened.at > since or happened.id in owed]

    def _dump(self, now: int) -> Iterator[tuple[bytes, bytes]]:
        if self.ahead_seconds:
            yield orjson.dumps({"ahead_seconds": self.ahead_seconds}), b""
        for account in self._accounts.values():
            for record in self._records(account, now):
                yield orjson.dumps(_account_record(account) | record), b""
            for stored in account.keys.living(now + self.ahead_seconds):
                yield orjson.dumps(_account_record(account) | {"stored": _stored_record(stored)}), self.body_of(stored)

    def _records(self, account: Account, now: int) -> Iterator[dict[str, Any]]:
        """Return an account's objects as they are, its endpoints after all that they were not told of."""
        if account.settlement is not None:
            yield {"settlement": account.settlement}
        for intent in account.intents:
            yield {"intent": intent, "at": intent.created}
        for charge in account.charges:
            yield {"charge": charge, "at": charge.created}
        for refund in account.refunds:
            yield {"refund": refund, "at": refund.created}
        for dispute in account.disputes:
            yield {"disputes": [dispute], "at": dispute.created}
        for transaction in account.transactions:
            yield {"transactions": [transaction], "at": transaction.created}
        for endpoint in account.endpoints:
            yield {"endpoint": endpoint, "at": endpoint.created}
        owed: dict[str, list[tuple[str, str]]] = {}
        for event_id, endpoint_id in self.owed:
            owed.setdefault(event_id[:-2], []).append((event_id, endpoint_id))
        for happened in self._kept(account, now):
            yield _happened_record(happened) | {"past": owed.get(happened.id, [])}


def _account_record(account: Account) -> dict[str, Any]:
    return {"account": account.name} | ({"platform": account.platform} if account.platform else {})


def _happened_record(happened: Happened) -> dict[str, Any]:
    record = change_record(happened.change)
    record["at"], record["event"] = happened.at, happened.id
    if happened.request_id is not None:
        record["request_id"] = happened.request_id
    if happened.key is not None:
        record["key"] = happened.key
    return record


def _stored_record(stored: Stored | Answer) -> dict[str, Any]:
    return {
        "key": stored.ask.key,
        "path": stored.ask.path,
        "fingerprint": stored.ask.fingerprint,
        "status": stored.status,
        "request_id": stored.request_id,
        "stored_at": stored.stored_at,
    }
