"""What the fake remembers: every account, the clock and the deliveries still owed, in the journal and then in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import Any

import orjson

from deploy.local.fake_stripe import history
from deploy.local.fake_stripe.accounts import Account
from deploy.local.fake_stripe.balance import settled
from deploy.local.fake_stripe.history import Event, Happened, events_of
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS, Ask, Stored
from deploy.local.fake_stripe.journal import Journal
from deploy.local.fake_stripe.records import Change, Settlement, WebhookEndpoint
from deploy.local.fake_stripe.restoring import change_from, change_record
from deploy.local.fake_stripe.store import Store

_MANY_CHANGES = 2_000
_SAVE_SECONDS = 5
"""So long, or so many changes, until the database has what the journal has: a start reads so much."""

_KEEP = "INSERT OR REPLACE INTO account VALUES (?, ?, ?)"
_PLAN = "INSERT INTO due VALUES (?, ?, ?, ?)"
_OWE = "INSERT OR IGNORE INTO owed VALUES (?, ?, ?)"
_LET_GO = "DELETE FROM owed WHERE event = ? AND endpoint = ?"


@dataclass(frozen=True, slots=True)
class Owed:
    """An event that an endpoint is to be told of."""

    account: Account
    event: Event
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class Due:
    """Something that time does to an object: a hold lapses, a test card's refund settles, evidence comes too late."""

    at: int
    account: str
    kind: str
    object_id: str


class Books:
    """All accounts, written to the journal before they are believed."""

    def __init__(self, path: Path) -> None:
        """Go on where the last one ended. Raises JournalError when the file is another's, or damaged."""
        self._journal = Journal(path)
        self._store = Store(path.with_name(f"{path.name}.db"))
        self._accounts: dict[str, Account] = {}
        self._names: dict[tuple[str, str], str] = {}
        self.owed: dict[tuple[str, str], Owed] = {}
        self.on_owed: Callable[[Owed], None] = lambda _: None
        self.latest_at = 0
        self.ahead_seconds = 0
        self._recall()
        self._changes = self._saved_at = 0
        for record, body in self._journal.read():
            self._restore(record, body)
            self._changed()
        self.save()

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
        self._go_ahead(self.ahead_seconds + seconds)
        self._write({"ahead_seconds": self.ahead_seconds})

    def record(
        self, account: Account, change: Change | None, answer: Stored | None, *, at: int, request_id: str | None = None
    ) -> None:
        """Make an effect and its stored answer durable, then visible, then due and owed what follows from it."""
        if change is None and answer is None:
            return
        change = None if change is None else settled(change, account.settlement)
        happened = None
        line: dict[str, Any] = _account_record(account)
        if change is not None:
            happened = Happened(f"evt_{token_hex(11)}", at, change, request_id, answer.ask.key if answer else None)
            line |= _happened_record(happened)
        if answer is not None:
            line["stored"] = _stored_record(answer)
        self._write(line, answer.body if answer else b"")
        if happened is not None:
            for owed in self._apply(account, happened):
                self.on_owed(owed)
        if answer is not None:
            account.keys.store(answer)

    def settle_in(self, account: Account, settlement: Settlement | None) -> None:
        """Settle an account in one currency from now on; None: each payment in its own."""
        account.settlement = settlement
        self._keep(account)
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
        yield from (endpoint for endpoint in account.told() if not endpoint.connect)
        platform = self._accounts.get(account.platform)
        yield from (endpoint for endpoint in platform.told() if endpoint.connect) if platform else ()

    def endpoint_of(self, owed: Owed) -> WebhookEndpoint | None:
        """Return the endpoint that is to be told, unless it is gone."""
        return next((endpoint for endpoint in self.told(owed.account) if endpoint.id == owed.endpoint_id), None)

    def due_at(self) -> int | None:
        """Return when time does something next."""
        return min((at for (at,) in self._store.read("SELECT at FROM due ORDER BY at LIMIT 1")), default=None)

    def take_due(self, now: int) -> Iterator[Due]:
        """Yield what is due, each once."""
        if any(row[0] <= now for row in self._store.gathered(_PLAN).values()):
            self._store.flush()
        while found := self._store.first("SELECT rowid, at, account, kind, object FROM due WHERE at <= ? ORDER BY at", now):
            self._store.delete("DELETE FROM due WHERE rowid = ?", found[0])
            yield Due(*found[1:])

    def tidy(self, now: int) -> None:
        """Have the database take what the journal has, now and then, and forget what is over: keys and events a day old."""
        before = now - LIFETIME_SECONDS
        with suppress(OSError):  # it did not fit, and is tried again
            if self._store.first("SELECT 1 FROM stored WHERE stored_at <= ?", before):
                self._store.delete("DELETE FROM stored WHERE stored_at <= ?", before)
            history.forget_old(self._store, before)
            if self._changes >= _MANY_CHANGES or now >= self._saved_at + _SAVE_SECONDS:
                self._saved_at = now
                self.save()

    def save(self) -> None:
        """Have the database take all that the journal has, which ends there. Raises OSError when it does not fit."""
        self._store.flush()
        if not self._journal.is_empty:
            self._journal.clear()
        self._changes = 0

    def clear(self) -> None:
        """Forget every account, on disk too."""
        self._store.clear()
        self._journal.clear()
        self._accounts.clear()
        self.owed.clear()
        self.ahead_seconds = 0

    def close(self) -> None:
        """Let another process have the files."""
        with suppress(OSError):  # the journal has it
            self.save()
        self._store.close()
        self._journal.close()

    def _open(self, name: str, platform: str = "") -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(self._store, name)
            self._keep(account)
        if platform and account.platform != platform:
            account.platform = platform
            self._keep(account)
        return account

    def _keep(self, account: Account) -> None:
        settlement = None if account.settlement is None else orjson.dumps(account.settlement)
        self._store.write(_KEEP, account.name, account.name, account.platform, settlement)

    def _apply(self, account: Account, happened: Happened) -> list[Owed]:
        change = happened.change
        account.apply(change)
        self._schedule(account, change)
        if not change.events:
            return []
        history.write(self._store, account.name, happened)
        return [
            self._add(account, event, endpoint.id)
            for endpoint in self.told(account)
            if endpoint.enabled
            for event in events_of(happened)
            if any(fnmatchcase(event.type, wanted) for wanted in endpoint.enabled_events)
        ]

    def _schedule(self, account: Account, change: Change) -> None:
        charge, refund = change.charge, change.refund
        if charge is not None and charge.capture_before is not None and not charge.capture_count:
            self._plan(charge.capture_before, account, "hold", charge.id)
        if refund is not None and refund.settles_at is not None:
            self._plan(refund.settles_at, account, "refund", refund.id)
        for dispute in change.disputes:
            self._plan(dispute.due_by, account, "dispute", dispute.id)

    def _plan(self, at: int, account: Account, kind: str, object_id: str) -> None:
        self._store.write(_PLAN, (at, object_id), at, account.name, kind, object_id)

    def _add(self, account: Account, event: Event, endpoint_id: str) -> Owed:
        key = event.id, endpoint_id
        if key not in self.owed:
            account.owed_count[event.id] += 1
            self._store.write(_OWE, key, *key, account.name)
            self._store.withdraw(_LET_GO, key)
        owed = self.owed[key] = Owed(account, event, endpoint_id)
        return owed

    def _let_go(self, event_id: str, endpoint_id: str) -> bool:
        key = event_id, endpoint_id
        owed = self.owed.pop(key, None)
        if owed is None:
            return False
        if not self._store.withdraw(_OWE, key):
            self._store.write(_LET_GO, key, *key)
        owed.account.owed_count[event_id] -= 1
        if not owed.account.owed_count[event_id]:
            del owed.account.owed_count[event_id]
        return True

    def _go_ahead(self, seconds: int) -> None:
        self.ahead_seconds = seconds
        self._store.write("INSERT OR REPLACE INTO meta VALUES ('ahead_seconds', ?)", "ahead_seconds", seconds)

    def _write(self, line: dict[str, Any], body: bytes = b"") -> None:
        self._journal.append(orjson.dumps(line), body)
        self._changes += 1

    def _changed(self) -> None:
        """A line of the journal was read: what is many goes into the database before the next is."""
        self._changes += 1
        if self._changes % _MANY_CHANGES == 0:
            self._store.flush()

    def _recall(self) -> None:
        """Know again what the database has: accounts, the clock, and who is still to be told of what."""
        store = self._store
        for name, platform, settlement in list(store.read("SELECT name, platform, settlement FROM account")):
            account = self._accounts[name] = Account(store, name)
            account.platform = platform
            account.settlement = None if settlement is None else Settlement(**orjson.loads(settlement))
        ahead = store.first("SELECT value FROM meta WHERE name = 'ahead_seconds'")
        self.ahead_seconds = ahead[0] if ahead else 0
        for table, moment in (("happened", "at"), ("thing", "created")):
            last = store.first(f"SELECT {moment} FROM {table} ORDER BY seq DESC LIMIT 1")  # noqa: S608 - names of our own
            self.latest_at = max(self.latest_at, last[0] if last else 0)
        for event_id, endpoint_id, name in list(store.read("SELECT event, endpoint, account FROM owed")):
            account = self._accounts[name]
            event = account.events.find(event_id)
            if event is not None:
                account.owed_count[event_id] += 1
                self.owed[event_id, endpoint_id] = Owed(account, event, endpoint_id)

    def _restore(self, record: Mapping[str, Any], body: bytes) -> None:
        """Take over what a line of the journal says; said twice, it is the same."""
        if "settled" in record:
            self._let_go(*record["settled"])
        elif "ahead_seconds" in record:
            self._go_ahead(record["ahead_seconds"])
        elif "settlement" in record:
            account = self._open(record["account"], record.get("platform", ""))
            account.settlement = None if record["settlement"] is None else Settlement(**record["settlement"])
            self._keep(account)
        else:
            self._restore_account(self._open(record["account"], record.get("platform", "")), record, body)

    def _restore_account(self, account: Account, record: Mapping[str, Any], body: bytes) -> None:
        change = change_from(record)
        at = record.get("at", change.intent.created if change.intent else 0)
        self.latest_at = max(self.latest_at, at)
        happened = Happened(record.get("event", ""), at, change, record.get("request_id"), record.get("key"))
        if "past" not in record:
            self._apply(account, happened)
        else:  # of an earlier release: told for its events alone; the objects as they are now stand in lines of their own
            history.write(self._store, account.name, happened)
            for event_id, endpoint_id in record["past"]:
                for event in events_of(happened):
                    if event.id == event_id:
                        self._add(account, event, endpoint_id)
        if (stored := record.get("stored")) is not None:
            ask = Ask(stored["key"], stored["path"], stored["fingerprint"])
            account.keys.store(Stored(ask, stored["status"], stored["request_id"], stored["stored_at"], body))


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


def _stored_record(stored: Stored) -> dict[str, Any]:
    return {
        "key": stored.ask.key,
        "path": stored.ask.path,
        "fingerprint": stored.ask.fingerprint,
        "status": stored.status,
        "request_id": stored.request_id,
        "stored_at": stored.stored_at,
    }
