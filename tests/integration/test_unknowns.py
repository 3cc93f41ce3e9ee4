"""Every unknown has an end, nobody is asked for money that nobody wants any more, and whatever is answered is recorded."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.clock import now
from libs.common.contracts.checkout import PaymentRequested, PaymentVoidRequested
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.provider.operation import CALL_SECONDS, OperationKind, OperationState
from services.payments.domain.provider.outcome import Declined, IntentStatus, Outcome, Succeeded, Unknown
from services.payments.gateway.protocol import PaymentGateway
from services.payments.handlers.outcomes import Call, RecordOutcome
from services.payments.jobs.provider.calling import carry_out
from services.payments.jobs.provider.executor import Executor
from services.payments.repository.provider.operations import OPERATIONS
from tests.shared.callers import problem
from tests.shared.events import AMOUNT, payment_requested
from tests.shared.fakes import Process, started
from tests.shared.places import Places
from tests.shared.till import UNREADABLE, Till, till_at

PART = 1_000


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield process
    process.kill()


@pytest.fixture
async def till(shared: Places, provider: Process) -> AsyncIterator[Till]:
    async with till_at(shared("payments"), provider.url) as till:
        yield till


def void(asked: PaymentRequested) -> PaymentVoidRequested:
    return PaymentVoidRequested(checkout_id=asked.checkout_id, payment_id=asked.payment_id, reason="canceled")


# --- Money that nobody wants any more -----------------------------------------------------------------------------


@pytest.mark.parametrize("heard", ["with the request", "while the provider turns us away", "while the confirm is held back"])
async def test_no_card_is_put_to_its_issuer_once_its_checkout_wants_nothing_any_more(till: Till, heard: str) -> None:
    asked = payment_requested()
    path = "*/confirm" if heard == "while the confirm is held back" else "/v1/payment_intents"
    if heard == "with the request":
        await till.tell(asked, void(asked))
    else:
        # Twice: a confirm is sent with its create, and again by itself.
        await till.faults({"match": {"method": "POST", "path": path}, "fault": "429", "times": 2})
        await till.tell(asked)
        answered = "SELECT FROM operation WHERE payment_id = $1 AND outcome IS NOT NULL"
        async with asyncio.timeout(120):
            while not await till.as_admin(answered, asked.payment_id):
                await asyncio.sleep(0.02)
        await till.tell(void(asked))
    await till.until(asked.payment_id, PaymentState.VOIDED)
    [seen] = await till.at_provider()
    assert (seen.status, seen.charge_id) == ("canceled", None), "no charge was tried"
    assert [kind for kind, _ in await till.events(asked.payment_id)] == ["payment.voided"]


# --- Unknowns and their ends --------------------------------------------------------------------------------------


async def test_a_part_that_nobody_knows_of_and_all_taken_by_hand_at_the_dashboard_come_to_what_was_taken(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.faults({"match": {"method": "POST", "path": "*/capture"}, "fault": "reset_before", "times": 1}, UNREADABLE)
    assert (await till.post(f"{asked.payment_id}/capture", {"amount_minor": PART})).status_code == 202
    payment = await till.until(asked.payment_id, PaymentState.UNKNOWN)
    await till.faults()
    await (await till.gateways.of(till.tenant_id)).capture_intent("dashboard", payment.intent_id or "", AMOUNT)
    said = await till.post(f"{asked.payment_id}/resolve", {"verdict": "read-again", "reason": "taken by hand"})
    assert said.status_code == 202, said.text
    payment = await till.until(asked.payment_id, PaymentState.CAPTURED)
    assert payment.captured_minor == AMOUNT
    await till.agreed_books()


async def test_a_person_is_told_what_is_in_the_way_where_no_look_can_do_anything_and_what_to_do(till: Till) -> None:
    await till.faults({"match": {"path": "*/confirm"}, "fault": "reset_before", "times": 1}, UNREADABLE)
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.UNKNOWN)
    path, key = f"{asked.payment_id}/resolve", "once"
    # The payment as a restore left it: of another amount than the provider's.
    await till.as_admin("UPDATE payment SET amount_minor = amount_minor + 1 WHERE id = $1", asked.payment_id)
    later = "UPDATE operation SET due_at = now() + interval '1 hour' WHERE payment_id = $1 AND due_at IS NOT NULL"
    await till.as_admin(later, asked.payment_id)
    await till.faults({"match": {"method": "GET"}, "fault": "500", "times": 1})
    away = problem(await till.post(path, {"verdict": "read-again", "reason": "x"}))
    assert (away["status"], away["code"]) == (503, "provider-unavailable")
    await till.faults()
    intent_id = (await till.known(asked.payment_id)).intent_id or ""
    gateway = await till.gateways.of(till.tenant_id)
    assert isinstance(await gateway.confirm_intent("by hand", intent_id, "pm_card_visa"), Succeeded)
    refused = problem(await till.post(path, {"verdict": "read-again", "reason": "x"}))
    assert (refused["status"], refused["code"]) == (409, "provider-differs")
    assert "did-not-happen" in refused["detail"], "it says what to do"
    word = {"verdict": "did-not-happen", "reason": "that hold is not this payment's"}
    assert (await till.post(path, word, key)).status_code == 202
    await till.until(asked.payment_id, PaymentState.DECLINED)
    assert (await till.post(path, word, key)).headers["Idempotent-Replayed"] == "true"


# --- Whatever is answered -----------------------------------------------------------------------------------------

ODD = "pm_card_mastercard"
ANSWERS: dict[str, tuple[Outcome, PaymentState]] = {
    "zero": (Declined("nul\0", None), PaymentState.DECLINED),
    "lone surrogate": (Declined("half\ud800", None), PaymentState.DECLINED),
    "endless": (Declined("long" * 1_000, None), PaymentState.DECLINED),
    "no amount": (Succeeded("pi_1", IntentStatus.AUTHORIZED, AMOUNT, "gbp", 2**70, 0), PaymentState.UNKNOWN),
}
"""What no column can keep, and what becomes of a payment whose confirmation is answered so."""


@dataclass
class Garbling:
    """A provider that answers the confirmation of one card with what nobody can keep, and cannot be read about it."""

    gateway: PaymentGateway
    answer: Outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gateway, name)

    async def confirm_intent(self, key: str, intent_id: str, method: str, *, return_url: str | None = None) -> Outcome:
        return self.answer if method == ODD else await self.gateway.confirm_intent(key, intent_id, method, return_url=return_url)

    async def retrieve_intent(self, _: str) -> Outcome:
        return self.answer


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_that_cannot_be_kept_is_recorded_in_a_safe_form_and_holds_up_no_other(
    shared: Places, provider: Process, answer: str
) -> None:
    told, state = ANSWERS[answer]
    async with till_at(shared("payments"), provider.url, works=False) as till:

        async def gateway_of(tenant_id: UUID) -> Any:
            return Garbling(await till.gateways.of(tenant_id), told)

        executor = Executor(till.shell, gateway_of)
        till.shell.after_commit.append(executor.committed)
        recorder = asyncio.create_task(executor.record())
        try:
            odd, *others = [await till.request(ODD), *await till.request_many(3)]
            payment = await till.until(odd.payment_id, state)
            await till.all_until([each.payment_id for each in others], PaymentState.AUTHORIZED)
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
            await executor.drain()
        calls = await till.as_admin("SELECT tries FROM operation WHERE payment_id = $1 AND kind = 'confirm'", payment.id)
        assert [row["tries"] for row in calls] == [1], "it was sent once, and recorded"
        if isinstance(told, Declined):
            assert (payment.decline_code or "")[:3] == told.code[:3], "what is kept says what stood there"


async def test_what_the_database_will_never_take_is_not_taken_for_a_database_that_is_away(
    shared: Places, provider: Process
) -> None:
    async with till_at(shared("payments"), provider.url, works=False) as till:
        odd, other = await till.request_many(2)
        executor = Executor(till.shell, till.gateways.of)
        no_text: Any = 7
        for asked, outcome in ((odd, Declined("generic_decline", no_text)), (other, Declined("generic_decline", None))):
            [row] = await till.as_admin("SELECT id FROM operation WHERE payment_id = $1", asked.payment_id)
            executor._outcomes.append(till.shell.command(recorded(asked.payment_id, row["id"], outcome), till.tenant_id))
        async with asyncio.timeout(120):
            await executor._record_waiting()
        states = [(await till.known(each.payment_id)).state for each in (odd, other)]
        assert states == [PaymentState.AUTHORIZING, PaymentState.DECLINED], "the one stays open, and holds up no other"


def recorded(payment_id: UUID, operation_id: UUID, outcome: Outcome) -> RecordOutcome:
    """An outcome of a create as it came from somewhere that keeps no form."""
    kind = OperationKind.CREATE
    about: dict[str, Any] = {"payment_id": payment_id, "operation_id": operation_id, "refund_id": None}
    return RecordOutcome(kind=kind, ordinal=1, tries=1, outcome=outcome, calls=(), **about)


# --- What else was suspected --------------------------------------------------------------------------------------


async def test_a_process_whose_clock_is_ahead_of_the_databases_takes_up_what_nobody_has_and_carries_it_out(
    shared: Places, provider: Process
) -> None:
    async with till_at(shared("payments"), provider.url, works=False) as till:
        asked = await till.request_many(3)
        await till.as_admin("UPDATE operation SET due_at = now() WHERE tenant_id = $1", till.tenant_id)
        executor = Executor(till.shell, till.gateways.of, clock=lambda: now() + timedelta(seconds=25))
        tasks = [asyncio.create_task(executor.record()), asyncio.create_task(executor.recover())]
        try:
            await till.all_until([each.payment_id for each in asked], PaymentState.AUTHORIZED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await executor.drain()


async def test_a_release_that_asks_for_other_parameters_under_an_old_key_makes_no_second_payment(till: Till) -> None:
    """The provider refuses the old key for another request; what was made under it is found, and gone on with."""
    await till.faults({"match": {"method": "POST", "path": "/v1/payment_intents"}, "fault": "reset_after", "times": 1})
    asked = payment_requested()
    changed = """UPDATE operation SET request = jsonb_set(request, '{metadata,quote_hash}', '"of the next release"')
        WHERE payment_id = $1 RETURNING tries"""
    await till.tell(asked)
    await till.until(asked.payment_id, PaymentState.UNKNOWN)
    assert len(await till.as_admin(changed, asked.payment_id)) == 1
    await till.hurry()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    [seen] = await till.at_provider()
    assert seen.metadata["quote_hash"] == asked.quote_hash, "it is the first one"


async def test_a_tenants_own_account_is_not_taken_while_a_payment_is_being_made_in_the_platforms(till: Till) -> None:
    await till.faults({"match": {"method": "POST", "path": "/v1/payment_intents"}, "fault": "reset_after", "times": 1})
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.UNKNOWN)
    given = {"api_key": f"sk_test_{uuid4().hex}", "webhook_secrets": ["whsec_" + "o" * 32]}
    path = "/v1/provider-accounts/stripe"
    refused = problem(await till.client.put(path, json=given, headers=till.staff))
    assert (refused["status"], refused["code"]) == (409, "provider-account-in-use")
    await till.hurry()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    assert len(await till.at_provider()) == 1


async def test_a_list_that_is_too_long_to_be_read_within_a_lease_is_told_of_and_not_begun_again_for_ever(till: Till) -> None:
    """As where many tenants share a busy account: a payment that may be there is looked for among all of them."""

    @dataclass
    class Busy(Garbling):
        async def create_intent(self, *_: Any, **__: Any) -> Outcome:
            return self.answer

        async def find_intent(self, *_: Any) -> Outcome:
            await asyncio.sleep(60)
            return self.answer

    [asked] = await till.request_many(1)
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    [row] = await till.as_admin("SELECT * FROM operation WHERE payment_id = $1 AND kind = 'create'", asked.payment_id)
    lease = timedelta(seconds=CALL_SECONDS + 0.5)
    again = replace(OPERATIONS.decode(row), state=OperationState.SENDING, tries=2, due_at=now() + lease)
    busy = Busy(await till.gateways.of(till.tenant_id), Unknown("reset"))

    async def gateway_of(_: UUID) -> Any:
        return busy

    calls: list[Call] = []
    async with asyncio.timeout(lease.total_seconds() + 5):
        outcome = await carry_out(again, gateway_of, calls)
    assert isinstance(outcome, Unknown)
    assert "not read to its end" in outcome.reason
