"""Every handler touches what it declares and nothing else: what it reads was loaded, and what it changes was locked.

Each is played against worlds made of what its own refs name, each aggregate there or not and in any state at all. Most of
those states could never be; that only means that more of the handler is walked through. A play is repeated by its seed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from deploy.composition import parts_of
from libs.common.clock import new_id
from libs.common.contracts import Event, payments
from libs.common.contracts.cart import CartFrozen
from libs.common.contracts.checkout import CheckoutRequested
from libs.common.decision import Aggregate, Handler, Handlers, Identity, IdentityMap, Message, NotLoadedError, Ref, World
from libs.common.errors import CartwrightError
from libs.common.sealing import MasterKey, MasterKeys, SealError
from services import SERVICES
from services.cart.domain import Cart, Product
from services.checkout.domain.note import Note
from services.checkout.domain.order import Order, OrderCounter
from services.checkout.domain.refund import Refund
from services.checkout.domain.saga import Checkout
from services.checkout.domain.stock import Allocation, Stock
from services.checkout.domain.timeline import TimelineEntry
from services.identity.domain.invitation import Invitation
from services.identity.domain.member import Member
from services.identity.domain.session import Session
from services.identity.domain.sign_in import AuthorizationCode
from services.identity.handlers.signing_in import RedeemCode
from services.payments.domain.money.ledger import Entry
from services.payments.domain.money.refund import Refund as MoneyBack
from services.payments.domain.payment.attempt import Attempt
from services.payments.domain.payment.payment import OrderPayment
from services.payments.domain.provider.operation import Operation
from services.payments.domain.reconciliation.comparison import Found, Side
from services.payments.handlers.observations import LookAtPayment, ObserveIntent
from services.payments.handlers.outcomes import RecordOutcome
from tests.shared.roots import root_of
from tests.unit.anything import NOW, Anything, Known

PLAYS = 600
"""Of each handler."""
PATIENCE = 6_000
"""After so many plays in which nothing was found missing nothing is; the ref that is hardest to miss is missed within 2,000."""
FEW = 60
"""Enough to see which kinds a handler declares."""
TENANT = UUID(int=0xA)
KEYS = MasterKeys(MasterKey(bytes(32)))
ROOT = root_of("a")
JWK = ROOT.public
REQUEST = {"amount_minor": 100, "currency": "GBP", "intent_id": "a", "metadata": {}, "final": True}


def _found(anything: Anything) -> Found:
    """A difference is of something: one side at least has it."""
    found: Found = anything.made(Found, theirs=anything.made(Side))
    return found


def _allocated(anything: Anything) -> tuple[Allocation, ...]:
    """A checkout and its order are of the same goods."""
    return (anything.made(Allocation, sku="a"),)


KNOWN: dict[str, Known] = {
    "allocations": _allocated,
    "tenant_id": (TENANT,),
    "currency": ("GBP", "EUR"),
    "country": ("GB", "FR"),
    "request": (REQUEST,),
    "total_minor": (0, 100),
    "expires_at": (NOW - timedelta(days=1), NOW + timedelta(days=1)),
    "sees_all": (True, True, False),
    "master_keys": (KEYS,),
    "root": (ROOT,),
    "jwk": (JWK,),
    "found": lambda anything: (_found(anything), _found(anything)),
    "repaired": lambda anything: (_found(anything),),
}
MADE_ANEW = {Attempt, Cart, Checkout, Entry, MoneyBack, Note, Operation, Order, OrderPayment, Refund, Session, TimelineEntry}
MADE_ANEW |= {AuthorizationCode, Invitation, Member}
"""Made under an id that is new or follows from what is locked: there is nothing to look up."""
UNREAD = {(LookAtPayment, Attempt), (RedeemCode, Member)}
"""Declared and never asked for: the one shares its second round with `ObserveIntent`, the other is there to be locked."""
REFUSALS = (CartwrightError, SealError)

A = TypeVar("A", bound=Aggregate)
Declare = Callable[[Iterable[Ref]], Iterable[Ref]]


class UndeclaredError(Exception):
    """A handler saved what it had not declared, or had only declared to look at."""


class Watched(World):
    """A world that knows what was declared."""

    def __init__(self, aggregates: IdentityMap, message: Message[Any], declared: Mapping[Identity, bool]) -> None:
        super().__init__(aggregates, message, NOW, new_id)
        self._may_save = declared

    def save(self, state: A, *events: Event) -> A:
        identity = (type(state), state.tenant_id, state.key)
        is_made = type(state) in MADE_ANEW and (state.version == 0 or self._aggregates.entries[identity] in self._saved)
        if not self._may_save.get(identity, is_made):
            raise UndeclaredError(f"{type(state).__name__} {state.key} is saved and not among the refs, or only to look at")
        return super().save(state, *events)


@dataclass(frozen=True)
class Played:
    """A handler, and what it is called in a report."""

    name: str
    data_type: type[Any]
    handler: Handler[Any, Any]

    def play(self, seed: int, declare: Declare = lambda refs: refs) -> set[type[Aggregate]]:
        """One message in one world; answers the kinds that were declared. Raises what a handler must never come to."""
        anything = Anything(seed, KNOWN)
        message = anything.made(Message, data=anything.made(self.data_type), tenant_id=TENANT, time=NOW, traceparent=None)
        aggregates, declared = IdentityMap(), dict[Identity, bool]()

        def load(refs: Iterable[Ref]) -> None:
            for ref in declare(refs):
                identity = (ref.kind, TENANT, ref.key)
                if identity not in declared:
                    aggregates.put_loaded(ref.kind, [aggregates.entries[identity]], _rows(anything, ref))
                declared[identity] = declared.get(identity, False) or not ref.shared

        try:
            load(self.handler.refs(message))
            if self.handler.more is not None:
                load(list(self.handler.more(Watched(aggregates, message, declared), message)))
            self.handler.decide(Watched(aggregates, message, declared), message)
        except REFUSALS:
            pass
        return {kind for kind, _, _ in declared}

    def is_caught(self, declare: Declare) -> bool:
        """Whether some play finds that its refs are not what they should be."""
        for seed in range(PATIENCE):
            try:
                self.play(seed, declare)
            except (NotLoadedError, UndeclaredError):
                return True
        return False


def _rows(anything: Anything, ref: Ref) -> list[Aggregate]:
    """What the database has of it: three times in four, something."""
    if anything.random.random() < 1 / 4:
        return []
    version, sequence = anything.random.choice([(1, 0), (1, 1), (2, 2)])
    place = {"tenant_id": TENANT, ref.kind.KEY: ref.key}
    return [anything.made(ref.kind, version=version, sequence=sequence, **place)]


def _tables() -> Iterator[tuple[str, Mapping[type[Any], Handler[Any, Any]]]]:
    def told(name: str, handlers: Handlers) -> Iterator[tuple[str, Mapping[type[Any], Handler[Any, Any]]]]:
        yield name, handlers.table
        yield f"{name}.discarded", handlers.discards

    for service in sorted(SERVICES):
        parts = parts_of(service)
        yield from told(service, parts.handlers)
        for group, handlers in parts.handlers_apart.items():
            yield from told(f"{service}.{group}", handlers)


PLAYED = [
    Played(f"{table}-{data_type.__module__.rpartition('.')[2]}.{data_type.__name__}", data_type, handler)
    for table, handlers in _tables()
    for data_type, handler in handlers.items()
]


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Worlds that could never be are worth many a warning."""
    with capture_logs():
        yield


@pytest.mark.parametrize("played", PLAYED, ids=lambda played: played.name)
def test_a_handler_reads_what_it_declares_and_saves_what_it_locks(played: Played) -> None:
    for seed in range(PLAYS):
        try:
            played.play(seed)
        except (NotLoadedError, UndeclaredError) as error:
            pytest.fail(f"seed {seed}: {error}")


def _without(kind: type[Aggregate]) -> Declare:
    return lambda refs: (ref for ref in refs if ref.kind is not kind)


@pytest.mark.parametrize("played", PLAYED, ids=lambda played: played.name)
def test_no_kind_can_be_taken_from_a_handlers_refs_unnoticed(played: Played) -> None:
    declared = set[type[Aggregate]]().union(*(played.play(seed) for seed in range(FEW)))
    read = {kind for kind in declared if (played.data_type, kind) not in UNREAD}
    assert {kind for kind in read if not played.is_caught(_without(kind))} == set()


CAUGHT = [
    (CheckoutRequested, Product, "cart"),
    (CartFrozen, OrderCounter, "checkout"),
    (payments.PaymentVoided, Order, "checkout"),
    (payments.RefundSucceeded, Stock, "checkout"),
    (ObserveIntent, Attempt, "payments"),
    (RecordOutcome, MoneyBack, "payments"),
]


@pytest.mark.parametrize(("data_type", "kind", "service"), CAUGHT, ids=lambda each: getattr(each, "__name__", each))
def test_a_ref_that_is_forgotten_is_found_by_playing(data_type: type[Any], kind: type[Aggregate], service: str) -> None:
    played = Played(service, data_type, parts_of(service).handlers[data_type])
    assert played.is_caught(_without(kind))


def test_a_ref_that_is_only_looked_at_and_saved_all_the_same_is_found_by_playing() -> None:
    played = Played("checkout", CartFrozen, parts_of("checkout").handlers[CartFrozen])
    assert played.is_caught(lambda refs: (Ref(ref.kind, ref.key, shared=True) for ref in refs))


def test_every_handler_of_every_service_is_played() -> None:
    handled = {(service, each) for service in SERVICES for each in parts_of(service).handlers.table}
    assert handled <= {(played.name.partition("-")[0], played.data_type) for played in PLAYED}
    assert any(played.name.startswith("checkout.timeline-") for played in PLAYED)
    assert any(played.name.startswith("checkout.discarded-") for played in PLAYED)
