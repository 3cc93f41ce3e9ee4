"""What every endpoint is given and gives back, and the expansion of ids into the objects they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, TypeVar

from deploy.local.fake_stripe.accounts import Account
from deploy.local.fake_stripe.balance import settled
from deploy.local.fake_stripe.errors import invalid
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.listing import Listing, read_window
from deploy.local.fake_stripe.objects.money import dispute_object, refund_object, transaction_object
from deploy.local.fake_stripe.objects.payments import charge_object, intent_object
from deploy.local.fake_stripe.objects.telling import list_object
from deploy.local.fake_stripe.records import Change, Charge, Dispute, Intent, Refund, Transaction
from deploy.local.fake_stripe.shelf import Shelf, Thing

Json = dict[str, Any]
Path = tuple[str, ...]
T = TypeVar("T", bound=Thing)

PAGE = frozenset({"created", "ending_before", "expand", "limit", "starting_after"})

_EXPANDABLE: dict[str, dict[str, str]] = {
    "payment_intent": {"latest_charge": "charge"},
    "charge": {"balance_transaction": "transaction", "payment_intent": "payment_intent"},
    "refund": {
        "balance_transaction": "transaction",
        "charge": "charge",
        "failure_balance_transaction": "transaction",
        "payment_intent": "payment_intent",
    },
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "transaction": {"source": "source"},
    "source": {},
    "event": {},
}
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One request past the door.

    Whose it is, the id in its path, its parameters, when, Stripe's API version, the address this fake was called by,
    and whether it came with a publishable key.
    """

    account: Account
    object_id: str
    form: Form
    now: int
    version: str
    base: str = ""
    public: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a call and the effect it has once recorded."""

    body: Json
    status: int = 200
    change: Change | None = None


Endpoint = Callable[[Call], Done]


def new_id(prefix: str) -> str:
    """Make an id in Stripe's form: `pi_` and 24 characters."""
    return f"{prefix}_{token_hex(12)}"


def expansions(form: Form, kind: str, *, within: str = "") -> list[Path]:
    """Read `expand[]`, refusing what an object of this kind (or of a list of them) cannot expand."""
    if "expand" not in form:
        return []
    paths = []
    for name in form.strings("expand"):
        path, at = tuple(name.removeprefix(within).split(".")), kind
        if not name.startswith(within) or len(path) > _DEEPEST:
            raise invalid(f"This property cannot be expanded ({name}).", param="expand")
        for step in path:
            if step not in _EXPANDABLE[at]:
                raise invalid(f"This property cannot be expanded ({name}).", param="expand")
            at = _EXPANDABLE[at][step]
        paths.append(path)
    return paths


class View:
    """How one call sees the objects: as they are, or as the change it is about to record leaves them."""

    def __init__(self, call: Call, change: Change | None = None) -> None:
        self._account, self._now = call.account, call.now
        self._change = None if change is None else settled(change, call.account.settlement)

    def render(self, thing: Thing, paths: Iterable[Path] = ()) -> Json:
        """Render an object, ids replaced by objects along the paths."""
        body = self._body(thing)
        for path in paths:
            self._expand(body, path)
        return body

    def _body(self, thing: Thing) -> Json:
        if isinstance(thing, Intent):
            return intent_object(thing)
        if isinstance(thing, Charge):
            return charge_object(thing)
        if isinstance(thing, Refund):
            return refund_object(thing)
        if isinstance(thing, Dispute):
            transactions = (self._find(transaction) for transaction in thing.transactions)
            return dispute_object(thing, [found for found in transactions if isinstance(found, Transaction)], self._now)
        assert isinstance(thing, Transaction)
        return transaction_object(thing, self._now)

    def _expand(self, body: Json, path: Path) -> None:
        name, *rest = path
        if isinstance(body.get(name), str) and (found := self._find(body[name])) is not None:
            body[name] = self._body(found)
        if rest and isinstance(body.get(name), dict):
            self._expand(body[name], tuple(rest))

    def _find(self, object_id: str) -> Thing | None:
        for thing in self._changed():
            if thing.id == object_id:
                return thing
        shelves: dict[str, Shelf[Any]] = {
            "pi": self._account.intents,
            "ch": self._account.charges,
            "re": self._account.refunds,
            "du": self._account.disputes,
            "txn": self._account.transactions,
        }
        found: Thing | None = shelves[object_id.partition("_")[0]].find(object_id)
        return found

    def _changed(self) -> Iterable[Thing]:
        change = self._change
        if change is None:
            return ()
        single = (change.intent, change.charge, change.refund)
        return (*(thing for thing in single if thing is not None), *change.disputes, *change.transactions)


def page_of(call: Call, shelf: Shelf[T], listing: Listing, kind: str, *, url: str, expandable: bool = True) -> Done:
    """Answer a list request: one page of the listing, newest first, rendered and expanded."""
    paths = expansions(call.form, kind, within="data.") if expandable else []
    page = listing.page(read_window(call.form, listing, shelf.kind))
    view = View(call)
    rows = [view.render(thing, paths) for thing in shelf.those(page.ids)]
    return Done(list_object(url, rows, has_more=page.has_more))
