"""What the fake remembers: per account its intents, charges and keys, kept in memory and in the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from deploy.local.fake_stripe.errors import missing_object
from deploy.local.fake_stripe.idempotency import Ask, Keys, Place, Stored
from deploy.local.fake_stripe.intents import Change, Charge, Decline, Intent, Status
from deploy.local.fake_stripe.journal import Journal
from deploy.local.fake_stripe.listing import Listing

_WORTH_COMPACTING = 10_000
"""Journal lines below which a start never rewrites the file."""


class Account:
    """All that was made with one API key (and, where a request names one, one connected account)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.intents: dict[str, Intent] = {}
        self.charges: dict[str, Charge] = {}
        self.keys = Keys()
        self.intent_order = Listing()
        self.charge_order = Listing()
        self.intents_of_customer: defaultdict[str, Listing] = defaultdict(Listing)
        self.charges_of_intent: defaultdict[str, Listing] = defaultdict(Listing)

    def intent(self, intent_id: str) -> Intent:
        """Return an intent of this account or refuse as Stripe does."""
        try:
            return self.intents[intent_id]
        except KeyError:
            raise missing_object("payment_intent", intent_id, param="intent") from None

    def charge(self, charge_id: str) -> Charge:
        """Return a charge of this account or refuse as Stripe does."""
        try:
            return self.charges[charge_id]
        except KeyError:
            raise missing_object("charge", charge_id, param="id") from None

    def charge_of(self, intent: Intent) -> Charge | None:
        """Return the latest charge of an intent."""
        return None if intent.latest_charge is None else self.charges[intent.latest_charge]

    def apply(self, change: Change) -> None:
        """Take over what one call did."""
        self.add_intent(change.intent)
        if change.charge is not None:
            self.add_charge(change.charge)

    def add_intent(self, intent: Intent) -> None:
        """Take over an intent, new or changed."""
        self.intents[intent.id] = intent
        self.intent_order.add(intent.id, intent.created)
        if intent.customer is not None:
            self.intents_of_customer[intent.customer].add(intent.id, intent.created)

    def add_charge(self, charge: Charge) -> None:
        """Take over a charge, new or changed."""
        self.charges[charge.id] = charge
        self.charge_order.add(charge.id, charge.created)
        self.charges_of_intent[charge.payment_intent].add(charge.id, charge.created)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be stored under its key."""

    ask: Ask
    status: int
    request_id: str
    stored_at: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Line:
    """One journal record: the effect and the answer stored for it stand or fall together."""

    account: str
    intent: Intent | None = None
    charge: Charge | None = None
    stored: dict[str, Any] | None = None


class Books:
    """All accounts, written to the journal before they are believed."""

    def __init__(self, journal: Journal, now: int) -> None:
        self._journal = journal
        self._accounts: dict[str, Account] = {}
        self._names: dict[tuple[str, str], str] = {}
        self.latest_at = 0
        if self._restore_all() > max(_WORTH_COMPACTING, 2 * self._living(now)):
            journal.rewrite(self._dump(now))
            self._accounts.clear()
            self._restore_all()

    def account(self, api_key: str, connected: str = "") -> Account:
        """Return the account a key opens; the key itself is never written down."""
        name = self._names.get((api_key, connected))
        if name is None:
            digest = blake2b(f"{api_key}\n{connected}".encode(), digest_size=9)
            name = self._names[api_key, connected] = "acct_" + digest.hexdigest()
        return self._open(name)

    def accounts(self) -> list[Account]:
        """Return every account that ever made a request."""
        return list(self._accounts.values())

    def moment(self, clock: float) -> int:
        """Turn the clock into Unix seconds that never fall, since the listings are ordered by them."""
        self.latest_at = max(self.latest_at, int(clock))
        return self.latest_at

    def record(self, account: Account, change: Change | None, answer: Answer | None) -> None:
        """Make an effect and its stored answer durable, then visible."""
        if change is None and answer is None:
            return
        line = _Line(
            account=account.name,
            intent=change.intent if change else None,
            charge=change.charge if change else None,
            stored=_stored_record(answer) if answer else None,
        )
        place = self._journal.append(orjson.dumps(line), answer.body if answer else b"")
        if change is not None:
            account.apply(change)
        if answer is not None:
            account.keys.store(Stored(answer.ask, answer.status, answer.request_id, answer.stored_at, place))

    def body_of(self, stored: Stored) -> bytes:
        """Return the body of a stored answer, as it was sent."""
        return self._journal.body(stored.place)

    def clear(self) -> None:
        """Forget every account, on disk too."""
        self._journal.clear()
        self._accounts.clear()

    def close(self) -> None:
        """Release the journal."""
        self._journal.close()

    def _open(self, name: str) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name)
        return account

    def _restore_all(self) -> int:
        lines = 0
        for record, place in self._journal.read():
            self._restore(record, place)
            lines += 1
        return lines

    def _restore(self, record: Mapping[str, Any], place: Place) -> None:
        account = self._open(record["account"])
        if (intent := record["intent"]) is not None:
            account.add_intent(_intent_from(intent))
            self.latest_at = max(self.latest_at, intent["created"])
        if (charge := record["charge"]) is not None:
            account.add_charge(_charge_from(charge))
            self.latest_at = max(self.latest_at, charge["created"])
        if (stored := record["stored"]) is not None:
            ask = Ask(stored["key"], stored["path"], stored["fingerprint"])
            account.keys.store(Stored(ask, stored["status"], stored["request_id"], stored["stored_at"], place))

    def _living(self, now: int) -> int:
        return sum(
            len(account.intents) + len(account.charges) + len(account.keys.living(now)) for account in self._accounts.values()
        )

    def _dump(self, now: int) -> Iterator[tuple[bytes, bytes]]:
        for account in self._accounts.values():
            for intent in account.intents.values():
                yield orjson.dumps(_Line(account.name, intent=intent)), b""
            for charge in account.charges.values():
                yield orjson.dumps(_Line(account.name, charge=charge)), b""
            for stored in account.keys.living(now):
                yield orjson.dumps(_Line(account.name, stored=_stored_record(stored))), self.body_of(stored)


def _stored_record(stored: Stored | Answer) -> dict[str, Any]:
    return {
        "key": stored.ask.key,
        "path": stored.ask.path,
        "fingerprint": stored.ask.fingerprint,
        "status": stored.status,
        "request_id": stored.request_id,
        "stored_at": stored.stored_at,
    }


def _intent_from(record: Mapping[str, Any]) -> Intent:
    changed = {"status": Status(record["status"]), "last_error": _decline_from(record["last_error"])}
    return Intent(**{**record, **changed})


def _charge_from(record: Mapping[str, Any]) -> Charge:
    return Charge(**{**record, "decline": _decline_from(record["decline"])})


def _decline_from(record: Mapping[str, Any] | None) -> Decline | None:
    return None if record is None else Decline(**record)
