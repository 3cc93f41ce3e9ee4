"""What the fake Stripe remembers: all that it answered, through any crash, until it is told to forget."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from deploy.local.fake_stripe.books import Answer, Books
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS, Ask
from deploy.local.fake_stripe.journal import Journal
from deploy.local.fake_stripe.listing import Window
from deploy.local.fake_stripe.records import Change, Intent, Status
from tests.shared.fakes import INTENTS, ROOT, VISA, Account, Process, account_at


async def buy(account: Account, number: int) -> str:
    """Create, confirm and capture under fixed keys; the answer of the last step as it was received."""
    form = {"payment_method": VISA, "metadata[tenant_id]": account.api_key, "metadata[order]": str(number)}
    intent = (await account.create(f"create-{number}", **form)).json["id"]
    await account.ask("POST", f"{INTENTS}/{intent}/confirm", key=f"confirm-{number}")
    return (await account.ask("POST", f"{INTENTS}/{intent}/capture", key=f"capture-{number}")).raw.decode()


async def test_kill_9_under_load_loses_nothing_answered_and_doubles_nothing_retried(
    start: Callable[[Path], Process], tmp_path: Path
) -> None:
    """What was answered is found again; what was cut off, sent again under its key, takes effect once."""
    running, answered = start(tmp_path / "journal"), dict[int, str]()
    api_key, orders = f"sk_test_{uuid4().hex}", 300

    async def buyer(account: Account, number: int) -> None:
        answered[number] = await buy(account, number)
        if len(answered) == orders // 3:
            running.child.send_signal(signal.SIGKILL)

    async with account_at(running.url, api_key) as account:
        await asyncio.gather(*(buyer(account, number) for number in range(orders)), return_exceptions=True)
    running.kill()
    assert orders // 3 <= len(answered) < orders
    with running.state.open("ab") as journal:
        journal.write(b'{"account":"acct_torn","intent":{"id":"pi_')  # a line the crash tore

    running = start(running.state)
    async with account_at(running.url, api_key) as account:
        again = {number: await buy(account, number) for number in range(orders)}
        assert {number: again[number] for number in answered} == answered
        late = again.keys() - answered.keys()
        assert {number: await buy(account, number) for number in late} == {number: again[number] for number in late}
        async with account.session.get(account.url + "/_control/ledger") as ledger:
            rows = (await ledger.json())["rows"]
    assert [(row["intents"], row["captured_count"], row["captured_minor"]) for row in rows] == [(orders, orders, orders * 1250)]

    running.kill()  # what was written after the torn line must be as readable as what stood before it
    running = start(running.state)
    async with account_at(running.url, api_key) as account:
        assert await buy(account, orders - 1) == again[orders - 1]


def test_a_journal_is_held_by_one_process_and_a_second_says_so(process: Process) -> None:
    """Exit 3, the environment prevents it, with what to do about it."""
    command = [sys.executable, "-m", "deploy.local.fake_stripe", "--port", "0", "--state", str(process.state)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
    assert second.returncode == 3
    assert "in use by another fake Stripe" in second.stderr


def test_a_journal_of_superseded_lines_shrinks_at_the_next_start(tmp_path: Path) -> None:
    """And what it means stays the same: objects, their order and the keys that still live."""
    now, path = 1_000_000, tmp_path / "journal"
    books = Books(Journal(path), now)
    account = books.account("sk_test_x")
    intent = Intent(
        id="pi_0",
        client_secret="secret",
        amount=5,
        currency="gbp",
        created=now,
        status=Status.REQUIRES_PAYMENT_METHOD,
        capture_method="manual",
        confirmation_method="automatic",
        metadata={},
        payment_method_types=["card"],
        automatic=False,
    )
    for number in range(3):
        books.record(account, Change(replace(intent, id=f"pi_{number}")), None, at=now)
    for number in range(10_000):
        asked = Ask(f"k{number}", INTENTS, "f")
        stored_at = now - (LIFETIME_SECONDS if number < 8000 else 0)
        answer = Answer(asked, 200, "req_1", stored_at, b'{"n":%d}' % number)
        books.record(account, Change(replace(intent, id="pi_0", description=str(number))), answer, at=now)
    books.close()
    before = path.stat().st_size

    for _ in range(2):
        books = Books(Journal(path), now)
        account = books.account("sk_test_x")
        assert [intent.id for intent in account.intents] == ["pi_0", "pi_1", "pi_2"]
        assert account.intents.listing().page(Window()).ids == ["pi_2", "pi_1", "pi_0"]
        assert account.intents.get("pi_0").description == "9999"
        assert len(account.keys) == 2000
        stored = account.keys.begin(Ask("k9000", INTENTS, "f"), now)
        assert stored is not None
        assert books.body_of(stored) == b'{"n":9000}'
        books.close()
        assert path.stat().st_size < before / 4


async def test_reset_forgets_objects_and_keys_for_good(start: Callable[[Path], Process], tmp_path: Path) -> None:
    """Also after a restart."""
    running = start(tmp_path / "journal")
    async with account_at(running.url) as account:
        old = await account.create("k1")
        async with account.session.post(account.url + "/_control/reset") as answer:
            assert answer.status == 200
        new = await account.create("k1", amount="2")
        assert (old.status, new.status) == (200, 200)
        running.kill()
        running = start(running.state)
        account.url = running.url
        assert [row["amount"] for row in (await account.ask("GET", INTENTS)).json["data"]] == [2]
    assert running.state.stat().st_mode & 0o077 == 0
