"""One account's memory: its objects, its idempotency keys, what happened in it, and the endpoints told of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from deploy.local.fake_stripe import restoring
from deploy.local.fake_stripe.history import Events, Subject
from deploy.local.fake_stripe.idempotency import Keys
from deploy.local.fake_stripe.records import Change, Charge, Dispute, Intent, Refund, Settlement, Transaction, WebhookEndpoint
from deploy.local.fake_stripe.shelf import Shelf
from deploy.local.fake_stripe.store import Store


class Account:
    """All that was made with one API key (and, where a request names one, one connected account)."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self.connected = name.partition("/")[2]
        self.platform = ""
        """The name of the account that acts for this one, which is connected to it."""
        self.settlement: Settlement | None = None
        """None: each payment is settled in its own currency."""
        self.keys = Keys(store, name)
        of_payment = ("charge", "payment_intent")
        self.intents = Shelf[Intent](store, name, "payment_intent", restoring.read_intent, ("customer",))
        self.charges = Shelf[Charge](store, name, "charge", restoring.read_charge, ("payment_intent",))
        self.refunds = Shelf[Refund](store, name, "refund", restoring.read_refund, of_payment)
        self.disputes = Shelf[Dispute](store, name, "dispute", restoring.read_dispute, of_payment)
        self.transactions = Shelf[Transaction](
            store, name, "balance_transaction", restoring.read_transaction, ("source", "type", "currency")
        )
        self.endpoints = Shelf[WebhookEndpoint](store, name, "webhook endpoint", restoring.read_endpoint)
        self.owed_count: Counter[str] = Counter()
        self.events = Events(store, name)
        self._told: list[WebhookEndpoint] | None = None

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

    def told(self) -> Sequence[WebhookEndpoint]:
        """Return the endpoints: asked for with every change, and few."""
        if self._told is None:
            self._told = list(self.endpoints)
        return self._told

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
        self._told = None
        if not endpoint.deleted:
            self.endpoints.put(endpoint)
        elif self.endpoints.find(endpoint.id):
            self.endpoints.remove(endpoint.id)
