"""Disputes and the ledger on a real Postgres: balanced whatever is heard how often, and never changed by anybody."""

import asyncio
import csv
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from libs.common.messaging.shell import Shell
from services.payments.api.ledger import EXPORTS, JSON, acceptable
from services.payments.domain.money.ledger import Account
from services.payments.domain.provider.outcome import DisputeStatus
from services.payments.handlers.disputes import ObserveDispute
from tests.shared.callers import Person, edge, message, onboard, problem, shell_of
from tests.shared.paying import (
    AMOUNT,
    FEE,
    answer,
    balances,
    captured,
    dispute_seen,
    entry_kinds,
    published,
    wanted,
)
from tests.shared.places import Places


@pytest.fixture
async def payments(shared: Places) -> AsyncIterator[Shell]:
    async with shell_of(shared("payments")) as shell:
        yield shell


# --- Disputes ------------------------------------------------------------------------------------------------------


async def test_a_dispute_heard_of_many_times_at_once_moves_its_money_once(shared: Places) -> None:
    async with edge(shared("payments")) as (client, shell):
        tenant_id = await onboard(shell)
        payment_id = await captured(shell, tenant_id)
        staff = Person(tenant_id, role="client").authorization
        for seen, left in (
            (dispute_seen(DisputeStatus.NEEDS_RESPONSE, AMOUNT, 0, 1_500), -FEE - 1_500),
            (dispute_seen(DisputeStatus.WON, AMOUNT, AMOUNT, 0), AMOUNT - FEE),
        ):
            told = message(ObserveDispute(payment_id=payment_id, seen=seen), tenant_id)
            await asyncio.gather(*(shell.execute_many([told, told]) for _ in range(10)))
            assert (await balances(shell, tenant_id)).get(Account.PROVIDER_BALANCE) == left
        told_once = ["capture", "fee", "chargeback", "chargeback_return", "dispute_fee", "dispute_fee_return"]
        assert await entry_kinds(shell, tenant_id) == Counter(told_once)
        [listed] = (await client.get("/v1/disputes", params={"payment_id": str(payment_id)}, headers=staff)).json()["items"]
        assert (listed["state"], listed["withdrawn_minor"], listed["reinstated_minor"]) == ("won", AMOUNT, AMOUNT)
        assert (await client.get(f"/v1/disputes/{listed['id']}", headers=staff)).json() == listed
        stranger = Person(await onboard(shell), role="client").authorization
        assert (await client.get(f"/v1/disputes/{listed['id']}", headers=stranger)).status_code == 404
        events = await published(shared("payments"), tenant_id, "dispute.")
    assert events == ["dispute.opened", "dispute.closed"]


# --- The ledger ---------------------------------------------------------------------------------------------------


async def test_nobody_changes_the_ledger_neither_the_app_nor_its_owner(shared: Places) -> None:
    place = shared("payments")
    async with shell_of(place) as shell:
        tenant_id = await onboard(shell)
        await captured(shell, tenant_id)
        changes = [
            f"{verb} {table}{rest}"
            for table in ("ledger_entry", "ledger_account")
            for verb, rest in (("UPDATE", " SET tenant_id = tenant_id"), ("DELETE FROM", ""), ("TRUNCATE", " CASCADE"))
        ]
        for change in changes:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                async with shell.database.transaction([tenant_id]) as connection:
                    await connection.execute(change)
        for connection in (await asyncpg.connect(place.url("owner")), await place.as_admin()):
            for change in changes:
                with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="the ledger is never changed"):
                    await connection.execute(change)
            await connection.close()
        assert (await balances(shell, tenant_id))[Account.SALES] == AMOUNT


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("debit = 'sales', credit = 'provider_balance'", "ledger_entry_kind"),
        ("amount_minor = 0", "ledger_entry_amount"),
        ("amount_minor = -5", "ledger_entry_amount"),
        ("currency = 'EUR'", "ledger_entry_debits"),
        ("payment_id = gen_random_uuid()", "ledger_entry_of_payment"),
    ],
)
async def test_no_entry_can_be_posted_that_is_not_one_of_ours(payments: Shell, change: str, refusal: str) -> None:
    tenant_id = await onboard(payments)
    await captured(payments, tenant_id)
    columns = "tenant_id, id, payment_id, kind, debit, credit, amount_minor, currency, reference, posted_at"
    changed = dict(part.split(" = ") for part in change.split(", "))
    values = ", ".join(changed.get(column, column) for column in columns.replace("id, payment_id", "_, payment_id").split(", "))
    insert = f"INSERT INTO ledger_entry ({columns}) SELECT {values.replace('_, ', 'gen_random_uuid(), ', 1)} FROM ledger_entry"
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=refusal):
        async with payments.database.transaction([tenant_id]) as connection:
            await connection.execute(f"{insert} WHERE kind = 'capture'")


async def _everything(client: httpx.AsyncClient, headers: dict[str, str], **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = {**query, "limit": 200} if cursor is None else {**query, "limit": 200, "cursor": cursor}
        body = (await client.get("/v1/ledger/entries", params=page, headers=headers)).json()
        items += body["items"]
        cursor = body["next_cursor"]
        if cursor is None:
            return items


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/csv", "text/csv"),
        ("Text/CSV; charset=utf-8", "text/csv"),
        ("application/json;q=0.2, text/*;q=0.7", "text/csv"),
        ("*/*;q=0.1, application/x-ndjson", "application/x-ndjson"),
        ("*/*, application/json;q=0", "text/csv"),
        ("text/csv;q=0.5, application/x-ndjson;q=nonsense", "text/csv"),
    ],
)
def test_of_what_the_caller_accepts_it_gets_what_it_likes_best(accept: str, chosen: str) -> None:
    assert acceptable(accept, [JSON, *EXPORTS]) == chosen


MANY_FEES = """INSERT INTO ledger_entry
SELECT tenant_id, gen_random_uuid(), payment_id, kind, debit, credit, n, currency, 'txn_' || n,
    posted_at - (n / 3) * interval '1 ms'
FROM ledger_entry, generate_series(1, 2100) AS n WHERE kind = 'fee' AND payment_id = $1"""
"""Enough for an export of several pages, with several entries of one time."""


async def test_the_ledger_reads_the_same_by_the_page_as_csv_and_as_ndjson(shared: Places) -> None:
    async with edge(shared("payments")) as (client, shell):
        tenant_id = await onboard(shell)
        paid = [await captured(shell, tenant_id) for _ in range(3)]
        await shell.execute(message(wanted(paid[0], 400), tenant_id))
        await answer(shell, tenant_id)
        async with shell.database.transaction([tenant_id]) as connection:
            await connection.execute(MANY_FEES, paid[1])
        staff = Person(tenant_id, role="client").authorization
        entries = await _everything(client, staff)
        assert Counter(entry["kind"] for entry in entries) == {"capture": 3, "fee": 2_103, "refund": 1}
        assert [entry["posted_at"] for entry in entries] == sorted(entry["posted_at"] for entry in entries)
        as_csv = await client.get("/v1/ledger/entries", headers={**staff, "Accept": "text/csv"})
        assert as_csv.headers["content-type"].startswith("text/csv")
        told = [{name: value for name, value in row.items() if value} for row in csv.DictReader(as_csv.text.splitlines())]
        rows = [{**row, "amount_minor": int(row["amount_minor"])} for row in told]
        assert rows == entries
        as_lines = await client.get("/v1/ledger/entries", headers={**staff, "Accept": "application/x-ndjson;q=1, */*;q=0.1"})
        assert [orjson.loads(line) for line in as_lines.text.splitlines()] == entries
        of_one = await _everything(client, staff, payment_id=str(paid[0]))
        assert [entry["id"] for entry in of_one] == [entry["id"] for entry in entries if entry["payment_id"] == str(paid[0])]
        [refunded] = await _everything(client, staff, kind="refund")
        later = await _everything(client, staff, posted_after=refunded["posted_at"])
        before = await _everything(client, staff, posted_before=refunded["posted_at"])
        assert [entry["id"] for entry in before + later] == [entry["id"] for entry in entries]
        accounts = (await client.get("/v1/ledger/accounts", headers=staff)).json()["items"]
        assert {each["code"]: each["balance_minor"] for each in accounts} == await balances(shell, tenant_id)
        assert {each["currency"] for each in accounts} == {"GBP"}
        refusal = await client.get("/v1/ledger/entries", headers={**staff, "Accept": "application/xml"})
        assert (refusal.status_code, problem(refusal)["code"]) == (406, "not-acceptable")
        assert (await client.get("/v1/ledger/entries", params={"cursor": "!"}, headers=staff)).status_code == 400
        stranger = Person(await onboard(shell), role="client").authorization
        assert await _everything(client, stranger) == []
