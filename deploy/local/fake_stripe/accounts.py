"""One account's memory: its objects, its idempotency keys, what happened in it, and the endpoints told of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from deploy.local.fake_stripe.idempotency import Keys
from deploy.local.fake_stripe.records import Change, Charge, Dispute, Intent, Refund, Settlement, Transaction, WebhookEndpoint
from deploy.local.fake_stripe.shelf import Shelf

Subject = Intent | Charge | Refund | Dispute


@dataclass(frozen=True, slots=True)
class Happened:
    """A change as it was when it happened: the events are made from it when somebody asks."""

    id: str
    at: int
    change: Change
    request_id: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell the world: its type and the object as it was at that moment."""

    id: str
    type: str
    created: int
    subject: Subject
    request_id: str | None
    key: str | None


class Account:
    """All that was made with one API key (and, where a request names one, one connected account)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connected = name.partition("/")[2]
        self.platform = ""
        """The name of the account that acts for this one, which is connected to it."""
        self.settlement: Settlement | None = None
        """None: each payment is settled in its own currency."""
        self.keys = Keys()
        self.intents = Shelf[Intent]("payment_intent", "customer")
        self.charges = Shelf[Charge]("charge", "payment_intent")
        self.refunds = Shelf[Refund]("refund", "charge", "payment_intent")
        self.disputes = Shelf[Dispute]("dispute", "charge", "payment_intent")
        self.transactions = Shelf[Transaction]("balance_transaction", "source", "type", "currency")
        self.endpoints = Shelf[WebhookEndpoint]("webhook endpoint")
        self.history: list[Happened] = []
        self.owed_count: Counter[str] = Counter()
        self._events = Shelf[Event]("event")
        self._told_count = 0

    @property
    def public_id(self) -> str:
        """What Stripe calls the account: a connected one by the id the platform knows."""
        return self.connected or self.name

    def charge_of(self, intent: Intent) -> Charge | None:
        """Return the latest charge of an intent."""
        return self.charges.find(intent.latest_charge)

    def apply(self, change: Change) -> None:
        """Take over what one call did."""
        if change.intent is not None:
            self.intents.put(change.intent)
        if change.charge is not None:
            self.charges.put(change.charge)
        if change.refund is not None:
            self.refunds.put(change.refund)
        for dispute in change.disputes:
            self.disputes.put(dispute)
        for transaction in change.transactions:
            self.transactions.put(transaction)
        if change.endpoint is not None:
            self._apply_endpoint(change.endpoint)

    def events(self) -> Shelf[Event]:
        """Return all events, made here from what happened since somebody asked last."""
        for happened in self.history[self._told_count :]:
            for event in events_of(happened):
                self._events.put(event)
        self._told_count = len(self.history)
        return self._events

    def subject(self, object_id: str | None) -> Subject | None:
        """Return the intent, charge, refund or dispute of this id."""
        return (
            self.intents.find(object_id)
            or self.charges.find(object_id)
            or self.refunds.find(object_id)
            or self.disputes.find(object_id)
        )

    def metadata_of(self, subject: Subject) -> Mapping[str, str]:
        """Return an object's metadata over that of the intent it belongs to."""
        if isinstance(subject, Intent):
            return subject.metadata
        intent = self.intents.find(subject.payment_intent)
        return {**(intent.metadata if intent else {}), **subject.metadata}

    def _apply_endpoint(self, endpoint: WebhookEndpoint) -> None:
        if not endpoint.deleted:
            self.endpoints.put(endpoint)
        elif self.endpoints.find(endpoint.id):
            self.endpoints.remove(endpoint.id)


def events_of(happened: Happened) -> Iterator[Event]:
    """Make the events of one change, under ids that are the same whenever they are made."""
    number = 0
    for kind in happened.change.events:
        for subject in _subjects(kind, happened.change):
            event_id = f"{happened.id}{number:02x}"
            yield Event(event_id, kind, happened.at, subject, happened.request_id, happened.key)
            number += 1


def _subjects(kind: str, change: Change) -> tuple[Subject, ...]:
    """Return what an event of this type tells of."""
    if kind.startswith("charge.dispute."):
        return change.disputes
    subject: Subject | None = change.charge
    if kind.startswith("payment_intent."):
        subject = change.intent
    elif kind.startswith("refund.") or kind == "charge.refund.updated":
        subject = change.refund
    return () if subject is None else (subject,)
