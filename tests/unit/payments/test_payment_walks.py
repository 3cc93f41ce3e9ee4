"""The payment machine against a provider that acts, answers, keeps silent, crashes us and lies."""

from collections.abc import Sequence
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.common.contracts.checkout import PaymentRequested
from services.payments.domain.payment.payment import OVER, Payment, PaymentState
from services.payments.domain.provider.operation import OPEN, Operation, following
from services.payments.domain.provider.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown
from tests.shared.events import AMOUNT
from tests.unit.payments.books import (
    BY_CLIENT,
    INTENT,
    REQUEST,
    WITHHELD,
    Books,
    Provider,
    as_asked,
    ask,
    heal,
    intent,
    is_withheld,
)

STEPS = (
    *("request", "void", "confirm", "cancel order", "answered", "answered", "answered", "lost before", "lost after"),
    *("stored error", "stored nothing", "lapse", "crash", "throttled", "late twin", "lost row", "capture part"),
    *("capture part and let go", "payer pays", "payer fails", "look", "read", "old look"),
    *("in one go", "in one go, lost after", "in one go, crash"),
)


@settings(max_examples=3_000, deadline=None)
@given(
    st.sampled_from(["answers", "declines", "challenges", "client"]),
    st.lists(st.sampled_from(STEPS), max_size=40),
)
@example("answers", ["answered", "answered", "capture part", "stored nothing", "answered", "late twin"])
@example("answers", ["void", "in one go", "late twin"])
@example("declines", ["lost after", "in one go, crash", "in one go", "late twin"])
@example("answers", ["in one go, crash", "stored nothing", "void", "in one go, lost after"])
def test_whatever_is_lost_or_late_our_verdict_is_what_the_provider_did(
    way: Literal["answers", "declines", "challenges", "client"], steps: Sequence[str]
) -> None:
    client = way == "client"
    books = Books(BY_CLIENT if client else REQUEST)
    provider = Provider(declines=way == "declines", challenges=way == "challenges", client=client)
    stale: list[tuple[Operation, Outcome]] = []
    seen: list[Outcome] = []
    tried: list[int] = []
    for step in ("request", *steps):
        take_a_step(step, books, provider, stale, seen)
        tried += [provider.charges] if books.known.is_unwanted else []
    come_to_rest(books, provider)
    payment = books.known
    assert provider.intents == 1
    if tried and way in {"answers", "declines"}:
        assert provider.charges == tried[0], "no card is put to its issuer for what nobody wants any more"
    assert provider.received == payment.captured_minor
    if payment.is_unwanted:
        assert payment.state in OVER
        assert provider.held == 0
    assert provider.status is not None
    assert payment.state in verdicts(provider, payment), (payment.state, provider.status)


def come_to_rest(books: Books, provider: Provider) -> None:
    for _ in range(3):
        heal(books, provider)
        if books.known.intent_id is not None:
            books.observe(provider.read())
        books.confirm_order()
    heal(books, provider)


def verdicts(provider: Provider, payment: Payment) -> set[PaymentState]:
    match provider.status:
        case IntentStatus.NEEDS_METHOD:
            return {PaymentState.REQUIRES_ACTION if payment.confirmation == "client" else PaymentState.DECLINED}
        case IntentStatus.NEEDS_ACTION:
            return {PaymentState.REQUIRES_ACTION}
        case IntentStatus.AUTHORIZED:
            return {PaymentState.AUTHORIZED}
        case IntentStatus.CAPTURED:
            return {PaymentState.CAPTURED}
        case IntentStatus.CANCELED:
            return {PaymentState.VOIDED, PaymentState.EXPIRED}
        case IntentStatus.NEEDS_CONFIRMATION | IntentStatus.PROCESSING | None:
            return set()


def take_a_step(step: str, books: Books, provider: Provider, stale: list[tuple[Operation, Outcome]], seen: list[Outcome]) -> None:
    match step:
        case "request" | "void" | "confirm" | "cancel order":
            ask_for(step, books)
        case "capture part" | "capture part and let go":
            books.capture(500, final=step != "capture part")
        case "late twin":
            assert not any(books.record(old, outcome) for old, outcome in stale)
        case "lost row":
            stale.clear()  # what was sent under a row that is gone has no row to be recorded on
            books.lose_row()
        case "lapse" | "payer pays" | "payer fails":
            happen(step, provider)
        case "read" | "look" | "old look" if provider.status is not None:
            look(step, books, provider, seen)
        case _:
            if books.open is not None:
                call(step, books, provider, books.open, stale)


def happen(step: str, provider: Provider) -> None:
    """At the provider, without our doing."""
    if step == "lapse":
        provider.lapse()
    else:
        provider.payer(pays=step == "payer pays")


def look(step: str, books: Books, provider: Provider, seen: list[Outcome]) -> None:
    """What was read now, or long ago, is taken note of; while our id of it is not known, there is nobody to tell."""
    seen.append(provider.read())
    if step != "read" and books.known.intent_id is not None:
        books.observe(seen[-1] if step == "look" else seen[0])


def call(step: str, books: Books, provider: Provider, operation: Operation, stale: list[tuple[Operation, Outcome]]) -> None:
    """One try of the open operation, and what becomes of its answer."""
    if is_withheld(operation, books.known):
        assert books.record(operation, WITHHELD)
        return
    match step:
        case "answered":
            outcome = ask(provider, operation)
            assert books.record(operation, outcome)
            if books.operations[operation.id].state not in OPEN:
                stale.append((operation, outcome))  # of one that is still open nobody has made another try: nothing is late
        case "stored error" | "stored nothing":
            provider.store_error(operation, effect=step == "stored error")
        case "lost before":
            assert books.record(operation, Unknown("reset"))
        case "lost after":
            provider.send(operation)
            assert books.record(operation, Unknown("timeout"))
        case "throttled":
            assert books.record(operation, Throttled(1.0))
        case "crash":
            # The provider may have acted, nobody heard, and after its lease somebody else takes it up.
            stale.append((operation, provider.send(operation)))
            books.take_up()
        case _ if step.startswith("in one go"):
            call_both(step, books, provider, operation, stale)
        case _:
            assert step in STEPS


def call_both(step: str, books: Books, provider: Provider, operation: Operation, stale: list[tuple[Operation, Outcome]]) -> None:
    """A try that goes on to what its operation plans to follow; where nothing follows, it is recorded by itself."""
    made = ask(provider, operation)
    then = following(operation, made)
    if then is None or not isinstance(made, Succeeded) or is_withheld(then, books.known):
        call("answered", books, provider, operation, stale)
        return
    outcome = ask(provider, then)
    if step == "in one go, crash":
        stale.append((operation, made))
        books.take_up()
        return
    books.record_both(operation, made, then, Unknown("timeout") if step == "in one go, lost after" else outcome)
    stale.append((operation, made))
    if books.operations[then.id].state not in OPEN:
        stale.append((then, outcome))


OUTCOMES = st.one_of(
    st.builds(
        intent,
        st.sampled_from(IntentStatus),
        capturable=st.none() | st.integers(0, 2 * AMOUNT),
        received=st.none() | st.integers(0, 2 * AMOUNT),
        currency=st.sampled_from(["gbp", "gbp", "eur"]),
    ),
    st.builds(Declined, st.just("generic_decline"), st.sampled_from([None, INTENT]), st.sampled_from([None, "ch_1", "ch_2"])),
    st.builds(Rejected, st.sampled_from(["wrong-state", "unauthorized", "spent-key"]), st.just("")),
    st.builds(Unknown, st.just("timeout"), st.booleans()),
    st.builds(Throttled, st.none() | st.floats(0, 1e6)),
)
"""What a provider may say at all, of which much is not true."""


@settings(max_examples=3_000, deadline=None)
@given(
    st.sampled_from([REQUEST, BY_CLIENT]),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["answered", "answered", "seen"]), OUTCOMES),
            st.just("done"),
            st.just("done"),
            st.sampled_from(["request", "void", "confirm", "cancel order", "part", "part and let go", "lost row"]),
        ),
        max_size=30,
    ),
)
def test_even_a_lying_provider_opens_no_second_operation_and_takes_no_more_than_it_held(
    request_of: PaymentRequested, steps: Sequence[tuple[str, Outcome] | str]
) -> None:
    books = Books(request_of)
    for step in ("request", *steps):
        if isinstance(step, str):
            ask_for(step, books)
            continue
        how, outcome = step
        if how == "answered" and books.open is not None:
            books.record(books.open, outcome)
        elif how == "seen" and isinstance(outcome, Succeeded | Declined):
            books.observe(outcome)


def ask_for(step: str, books: Books) -> None:
    match step:
        case "request":
            books.request()
        case "void":
            books.void()
        case "confirm":
            books.confirm_order()
        case "cancel order":
            books.cancel_order()
        case "part" | "part and let go":
            books.capture(500, final=step != "part")
        case "lost row":
            books.lose_row()
        case _:
            if books.open is not None:
                books.record(books.open, as_asked(books.open))
