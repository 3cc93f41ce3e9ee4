"""An account that is settled in another currency than its payments', against the fake Stripe: books that agree in each."""

import asyncio
import csv
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import aiohttp
import orjson
import pytest

from libs.common.clock import new_id, now
from services.payments.domain.money.ledger import Account, Entry, EntryKind
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.reconciliation.reconciliation import Break
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.reconciliation import RequestReconciliation
from services.payments.handlers.refunds import ObserveRefund
from services.payments.jobs.reconciliation.reconciler import Reconciler
from services.payments.repository import BREAKS, ENTRIES
from services.payments.repository.money import ledger
from tests.shared.callers import message
from tests.shared.events import AMOUNT
from tests.shared.fakes import Process, started
from tests.shared.paying import wanted
from tests.shared.places import Places
from tests.shared.till import Till, till_at

FIRST, LATER = "1.2725", "1.3001"
FEES = (Account.PROVIDER_FEES, Account.DISPUTE_FEES)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Process]:
    """A fake of the test's own, whose clock may be put forward."""
    process = started(tmp_path / "journal")
    yield process
    process.kill()


@pytest.fixture
async def till(empty: Places, provider: Process) -> AsyncIterator[Till]:
    async with till_at(empty("payments"), provider.url) as till:
        await settle(till, FIRST)
        yield till


async def settle(till: Till, rate: str) -> None:
    """Have the account, which is paid in pounds, settled in dollars."""
    wanted = {"api_key": till.gateways.platform.api_key, "currency": "usd", "rates": {"gbp": rate}}
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{till.stripe_url}/_control/settlement", json=wanted) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def captured(till: Till, method: str = "pm_card_visa") -> UUID:
    asked = await till.request(method)
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    await till.until(asked.payment_id, PaymentState.CAPTURED)
    return asked.payment_id


async def refund(till: Till, payment_id: UUID, amount_minor: int | None) -> UUID:
    asked = await till.shell.execute(message(wanted(payment_id, amount_minor), till.tenant_id))
    refund_id: UUID = asked.id
    over = "SELECT state FROM refund WHERE id = $1 AND state = 'succeeded'"
    async with asyncio.timeout(30):
        while not await till.as_admin(over, refund_id):
            await asyncio.sleep(0.05)
    return refund_id


async def observe(till: Till) -> None:
    """See every refund and dispute as it stands, as upon a notice; twice, for news comes twice."""
    refunds, disputes, _ = await till.money_at_provider()
    payments = await till.as_admin("SELECT id, intent_id FROM payment WHERE tenant_id = $1", till.tenant_id)
    of_intent = {row["intent_id"]: row["id"] for row in payments}
    for _ in range(2):
        await till.tell(*(ObserveRefund(payment_id=of_intent[each.intent_id], seen=each) for each in refunds))
        await till.tell(*(ObserveDispute(payment_id=of_intent[each.intent_id], seen=each) for each in disputes))


async def entries(till: Till) -> list[Entry]:
    async with till.shell.database.transaction([till.tenant_id]) as connection:
        return list(await ENTRIES.page(connection, till.tenant_id, after=None, limit=100_000))


async def agreed(till: Till) -> dict[str, Counter[str]]:
    """Each currency by itself: as much debited as credited, and at the provider what the provider has. Answers the balances."""
    async with till.shell.database.transaction([till.tenant_id]) as connection:
        found = await ledger.balances(connection, till.tenant_id)
    _, _, moved = await till.money_at_provider()
    ours: defaultdict[str, Counter[str]] = defaultdict(Counter)
    beyond, theirs, kept = Counter[str](), Counter[str](), Counter[str]()
    for each in found:
        ours[each.currency][each.code] = each.balance_minor
        beyond[each.currency] += each.debited_minor - each.credited_minor
    for movement in moved:
        theirs[movement.currency.upper()] += movement.net_minor
        kept[movement.currency.upper()] += movement.fee_minor
    assert set(beyond.values()) <= {0}
    for currency in ours.keys() | theirs.keys():
        assert ours[currency][Account.PROVIDER_BALANCE] == theirs[currency], currency
        assert sum(ours[currency][fee] for fee in FEES) == kept[currency], currency
    return ours


async def reconcile(till: Till) -> tuple[dict[str, dict[str, dict[str, int]]], Counter[str]]:
    """The totals of a comparison, and the breaks it found."""
    moment, run_id = now(), new_id()
    await till.tell(
        RequestReconciliation(
            reconciliation_id=run_id,
            window_from=moment - timedelta(days=1),
            window_to=moment + timedelta(days=1),
            grace=timedelta(0),
            requested_by="test",
        )
    )
    assert await Reconciler(till.shell, till.gateways.of).run_one(None)
    async with till.shell.database.transaction([till.tenant_id]) as connection:
        totals = await connection.fetchval("SELECT totals FROM reconciliation WHERE id = $1 AND state = 'finished'", run_id)
        breaks: list[Break] = [BREAKS.decode(row) for row in await connection.fetch("SELECT * FROM reconciliation_break")]
    return orjson.loads(totals), Counter(f"{each.subject} {each.kind} {each.state}" for each in breaks)


async def test_whatever_happens_to_money_that_is_exchanged_the_books_agree_in_each_currency(till: Till) -> None:
    paid, failing = await captured(till), await captured(till, "pm_card_refundFail")
    await captured(till, "pm_card_createDispute")
    await captured(till, "pm_card_createDispute")
    await observe(till)
    await agreed(till)
    await settle(till, LATER)
    for amount_minor in (333, 1):
        await refund(till, paid, amount_minor)
    await refund(till, failing, None)
    await till.control("clock", advance_seconds=10)
    await observe(till)
    assert (await till.known(failing)).refunded_minor == 0, "it came back"
    _, [first, second], _ = await till.money_at_provider()
    for case, status in ((first, "won"), (second, "lost")):
        await agreed(till)
        await till.control(f"disputes/{case.provider_id}", status=status)
        await observe(till)
    ours = await agreed(till)
    pounds, dollars = ours["GBP"], ours["USD"]
    assert (pounds[Account.SALES], pounds[Account.REFUNDS], pounds[Account.CHARGEBACKS]) == (4 * AMOUNT, 334, AMOUNT)
    assert pounds[Account.PROVIDER_BALANCE] == 0, "all of it was exchanged"
    assert not pounds[Account.PROVIDER_FEES] + pounds[Account.DISPUTE_FEES], "the provider charges in dollars"
    assert dollars[Account.DISPUTE_FEES] == 2 * 1_500
    assert set(dollars) <= {Account.PROVIDER_BALANCE, Account.EXCHANGE, *FEES}

    pairs: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in await entries(till):
        if entry.kind in {EntryKind.EXCHANGE_IN, EntryKind.EXCHANGE_OUT}:
            pairs[entry.reference].append(entry)
        else:
            assert entry.exchange_rate is None
    assert len(pairs) == 4 + 3 + 1 + 2 + 1, "captures, refunds, one that came back, withdrawals, one given back"
    for pair in pairs.values():
        assert sorted(entry.currency for entry in pair) == ["GBP", "USD"]
        assert {entry.kind for entry in pair} == {EntryKind.EXCHANGE_IN, EntryKind.EXCHANGE_OUT}
        assert len({entry.exchange_rate for entry in pair}) == 1
    assert Counter(pair[0].exchange_rate for pair in pairs.values()) == {FIRST: 6, LATER: 5}

    totals, breaks = await reconcile(till)
    assert breaks == {}
    assert totals["USD"]["ours"]["fees"] == totals["USD"]["theirs"]["fees"] == dollars[Account.PROVIDER_FEES] + 3_000
    assert totals["GBP"]["ours"] == totals["GBP"]["theirs"]
    assert totals["GBP"]["ours"]["fees"] == 0


async def test_an_exchange_that_the_books_lack_is_found_and_posted_once_and_a_wrong_one_is_for_a_person(till: Till) -> None:
    """As an answer that did not tell of the movement, or a version from before leaves it."""
    unheard, wrong = await captured(till), await captured(till)
    await refund(till, unheard, 500)
    for statement in (
        f"DELETE FROM ledger_entry WHERE payment_id = '{unheard}' AND (kind LIKE 'exchange%' OR kind = 'fee')",
        f"UPDATE ledger_entry SET amount_minor = amount_minor + 1 WHERE payment_id = '{wrong}' AND kind = 'exchange_in'",
    ):
        await till.as_admin(f"DO $$ BEGIN SET session_replication_role = replica; {statement}; END $$")
    _, breaks = await reconcile(till)
    assert breaks == {"transaction amount repaired": 2, "transaction amount open": 1}
    again = await reconcile(till)
    assert again[1] == breaks
    await till.as_admin(
        "DO $$ BEGIN SET session_replication_role = replica; UPDATE ledger_entry SET amount_minor = amount_minor - 1"
        f" WHERE payment_id = '{wrong}' AND kind = 'exchange_in'; END $$"
    )
    await agreed(till)
    assert Counter(entry.kind for entry in await entries(till) if entry.payment_id == unheard) == {
        EntryKind.CAPTURE: 1,
        EntryKind.FEE: 1,
        EntryKind.REFUND: 1,
        EntryKind.EXCHANGE_IN: 2,
        EntryKind.EXCHANGE_OUT: 2,
    }


async def test_the_ledger_shows_and_exports_the_currency_of_every_entry_and_the_rate_of_an_exchange(till: Till) -> None:
    await captured(till)
    found = await till.client.get("/v1/ledger/entries", params={"kind": "exchange_in"}, headers=till.staff)
    [shown] = found.json()["items"]
    assert (shown["debit"], shown["credit"], shown["currency"], shown["exchange_rate"]) == (
        "provider_balance",
        "exchange",
        "USD",
        FIRST,
    )
    exported = await till.client.get("/v1/ledger/entries", headers={**till.staff, "Accept": "text/csv"})
    rows = list(csv.DictReader(exported.text.splitlines()))
    told = {row["kind"]: (row["currency"], row["exchange_rate"]) for row in rows}
    assert told == {
        "capture": ("GBP", ""),
        "exchange_out": ("GBP", FIRST),
        "exchange_in": ("USD", FIRST),
        "fee": ("USD", ""),
    }
    listed = (await till.client.get("/v1/ledger/accounts", headers=till.staff)).json()["items"]
    assert {(each["code"], each["currency"]) for each in listed} == {
        ("provider_balance", "GBP"),
        ("provider_balance", "USD"),
        ("sales", "GBP"),
        ("provider_fees", "USD"),
        ("exchange", "GBP"),
        ("exchange", "USD"),
    }
