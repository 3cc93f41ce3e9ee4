"""A real process of the fake Stripe, and clients for it: the official SDK where it can say it, raw where not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import stripe

from deploy.local.fake_stripe.records import Intent, Status

ROOT = Path(__file__).parents[2]
INTENTS = "/v1/payment_intents"
BASIC = {"amount": "1250", "currency": "gbp", "capture_method": "manual", "allowed_payment_method_types[]": "card"}
VISA, DECLINED, POOR = "pm_card_visa", "pm_card_chargeDeclined", "pm_card_chargeDeclinedInsufficientFunds"


def intent_of(id_: str, *, created: int, status: Status = Status.REQUIRES_PAYMENT_METHOD) -> Intent:
    """An intent as the fake itself has it."""
    return Intent(
        id=id_,
        client_secret="secret",
        amount=5,
        currency="gbp",
        created=created,
        status=status,
        capture_method="manual",
        confirmation_method="automatic",
        metadata={},
        payment_method_types=["card"],
        automatic=False,
    )


@dataclass
class Process:
    """One running fake."""

    child: subprocess.Popen[str]
    url: str
    state: Path

    def kill(self) -> None:
        """End it as a crash would."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(10)
        if self.child.stdout is not None:
            self.child.stdout.close()


def started(state: Path, *options: str) -> Process:
    """Start a fake on a free port and wait for the line that names it."""
    command = [sys.executable, "-m", "deploy.local.fake_stripe", "--port", "0", "--state", str(state), *options]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    assert "http://" in line, f"the fake did not start: {line!r}, exit {child.poll()}"
    return Process(child, line.split()[-1], state)


@dataclass
class Reply:
    """A raw answer."""

    status: int
    headers: dict[str, str]
    raw: bytes
    json: dict[str, Any]

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        found: dict[str, Any] = self.json["error"]
        return found


class Account:
    """A raw client for one API key, and the SDK for the same."""

    def __init__(self, url: str, session: aiohttp.ClientSession, api_key: str | None = None) -> None:
        self.url, self.session = url, session
        self.api_key = api_key or f"sk_test_{uuid4().hex}"
        self.transport = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=5))
        self.sdk = stripe.StripeClient(
            self.api_key, base_addresses={"api": url}, http_client=self.transport, max_network_retries=0
        ).v1

    async def ask(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Make one request."""
        sent = {"Authorization": f"Bearer {self.api_key}"} | ({"Idempotency-Key": key} if key else {}) | (headers or {})
        query, body = (form, None) if method == "GET" else (None, form or {})
        async with self.session.request(method, self.url + path, headers=sent, params=query, data=body) as answer:
            raw = await answer.read()
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, raw, await answer.json())

    async def create(self, key: str | None = None, **form: str) -> Reply:
        """Create an intent with the usual parameters."""
        return await self.ask("POST", INTENTS, BASIC | form, key=key)

    async def faults(self, *rules: dict[str, Any]) -> None:
        """Put a fault plan in force."""
        async with self.session.put(self.url + "/_control/faults", json=list(rules)) as answer:
            assert answer.status == 200, await answer.text()


@asynccontextmanager
async def account_at(url: str, api_key: str | None = None) -> AsyncIterator[Account]:
    """Open an account and close its connections."""
    async with aiohttp.ClientSession() as session:
        opened = Account(url, session, api_key)
        yield opened
        await opened.transport.close_async()  # type: ignore[no-untyped-call]


async def control(account: Account, method: str, path: str, body: object = None) -> Any:
    """Make a control request that must succeed."""
    async with account.session.request(method, f"{account.url}/_control/{path}", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()
