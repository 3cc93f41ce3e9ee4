"""What the fake Stripe remembers: all that it answered, through any crash, until it is told to forget."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from deploy.local.fake_stripe.books import Books
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS, Ask, Stored
from deploy.local.fake_stripe.listing import Window
from deploy.local.fake_stripe.records import Change, Status, WebhookEndpoint
from tests.shared.fakes import INTENTS, ROOT, VISA, Account, Process, account_at, intent_of


async def buy(account: Account, number: int) -> str:
    """Create, confirm and capture under fixed keys; the answer of the last step as it was received."""
    form = {"payment_method": VISA, "metadata[tenant_id]": account.api_key, "metadata[order]": str(number)}
    intent = (await account.create(f"create-{number}", **form)).json["id"]
    await account.ask("POST", f"{INTENTS}/{intent}/confirm", key=f"confirm-{number}")
    return (await account.ask("POST", f"{INTENTS}/{intent}/capture", key=f"capture-{number}")).raw.decode()


def _tear(state: Path) -> None:
    """As if the crash had come in the middle of a line."""
    with state.open("ab") as journal:
        journal.write(b'{"account":"acct_torn","intent":{"id":"pi_')


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
    _tear(running.state)

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


def test_a_state_file_is_held_by_one_process_and_a_second_says_so(process: Process) -> None:
    """Exit 3, the environment prevents it, with what to do about it."""
    command = [sys.executable, "-m", "deploy.local.fake_stripe", "--port", "0", "--state", str(process.state)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
    assert second.returncode == 3
    assert "in use by another fake Stripe" in second.stderr


def test_what_is_changed_a_thousand_times_takes_no_more_room_and_what_is_over_gives_its_room_back(tmp_path: Path) -> None:
    """Objects are as they are, in their order; of a day that is over no key and no event is left."""
    now, path = 1_000_000, tmp_path / "state"
    books = Books(path)
    account = books.account("sk_test_x")
    for number in range(3):
        books.record(account, Change(intent_of(f"pi_{number}", created=now)), None, at=now)

    books.close()

    def day(number: int) -> int:
        at, books = now + number * LIFETIME_SECONDS, Books(path)
        account = books.account("sk_test_x")
        books.tidy(at)
        for change in range(1_000):
            answer = Stored(Ask(f"k{number}-{change}", INTENTS, "f"), 200, "req_1", at, b'{"n":%d}' % change)
            changed = replace(intent_of("pi_0", created=now), description=str(change))
            books.record(account, Change(changed, events=("payment_intent.amount_capturable_updated",)), answer, at=at)
        books.close()
        return sum(file.stat().st_size for file in tmp_path.iterdir())

    sizes = [day(number) for number in range(6)]
    assert sizes[5] < 1.5 * sizes[1]
    for _ in range(2):
        books = Books(path)
        account = books.account("sk_test_x")
        assert [each.id for each in account.intents] == ["pi_0", "pi_1", "pi_2"]
        assert account.intents.listing().page(Window()).ids == ["pi_2", "pi_1", "pi_0"]
        assert account.intents.get("pi_0").description == "999"
        at = now + 5 * LIFETIME_SECONDS
        assert account.keys.begin(Ask("k4-1", INTENTS, "f"), at) is None
        stored = account.keys.begin(Ask("k5-500", INTENTS, "f"), at)
        assert stored is not None
        assert stored.body == b'{"n":500}'
        account.keys.end(Ask("k4-1", INTENTS, "f"))
        books.close()


def test_a_start_reads_as_much_after_a_long_history_as_after_a_short_one(tmp_path: Path) -> None:
    """Pages of memory that a start fills, counted by what it reads of the file."""

    def read_at_start(payments: int) -> int:
        path = tmp_path / f"state-{payments}"
        books = Books(path)
        account = books.account("sk_test_x")
        for number in range(payments):
            held = Change(intent_of(f"pi_{payments}_{number}", created=number), events=("payment_intent.created",))
            answer = Stored(Ask(f"k{number}", INTENTS, "f"), 200, "req_1", number, b"{}")
            books.record(account, held, answer, at=number)
        books.close()
        script = (
            "import sys; from pathlib import Path; from deploy.local.fake_stripe.books import Books; "
            "count = lambda: "
            "int(dict(l.split(': ') for l in Path('/proc/self/io').read_text().splitlines())['rchar']); before = count(); "
            "books = Books(Path(sys.argv[1])); print(count() - before, books.latest_at)"
        )
        said = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
        bytes_read, latest_at = said.stdout.split()
        assert int(latest_at) == payments - 1
        return int(bytes_read)

    assert read_at_start(2_000) < read_at_start(50) + 65_536


async def test_a_journal_of_an_earlier_release_is_taken_over_with_all_that_it_says(
    start: Callable[[Path], Process], tmp_path: Path
) -> None:
    """Objects, keys to the byte, who is to be told; but not the line that a crash tore."""
    at, key = int(time.time()), "sk_test_old"
    old = intent_of("pi_old", created=at, status=Status.REQUIRES_CONFIRMATION)
    books = Books(tmp_path / "names")
    name = books.account(key).name
    books.close()
    ask = {"key": "k1", "path": INTENTS, "fingerprint": "f", "status": 200, "request_id": "req_1", "stored_at": at}
    endpoint = WebhookEndpoint("we_1", "http://127.0.0.1:9/", ("whsec_1",), ("*",), at)
    lines: list[tuple[dict[str, Any], bytes]] = [
        ({"ahead_seconds": 5}, b""),
        ({"account": name, "events": [], "endpoint": endpoint, "at": at}, b""),
        (
            {"account": name, "events": ["payment_intent.created"], "intent": old, "at": at, "event": "evt_1", "stored": ask},
            b"{}",
        ),
        ({"account": name, "events": [], "intent": replace(old, description="again"), "at": at}, b""),
    ]
    path = tmp_path / "state"
    whole = b"".join(b"%b\t%b\n" % (orjson.dumps(record), body) for record, body in lines)
    path.write_bytes(whole + b'{"account":"acct_torn"')
    running = start(path)
    async with account_at(running.url, key) as account:
        [row] = (await account.ask("GET", INTENTS)).json["data"]
        assert (row["id"], row["description"]) == ("pi_old", "again")
        assert (await account.create("k1")).error["type"] == "idempotency_error"
        [event] = (await account.ask("GET", "/v1/events")).json["data"]
        assert (event["id"], event["pending_webhooks"]) == ("evt_100", 1)
        async with account.session.get(account.url + "/_control/clock") as clock:
            assert (await clock.json())["ahead_seconds"] == 5


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
