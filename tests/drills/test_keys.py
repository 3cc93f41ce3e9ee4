"""Keys change under a running stack, and nobody notices: signing keys under load, and the master key."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import jwt
import pytest

from deploy.cli.supply import supply
from tests.shared.market import OFFERS, Market
from tests.shared.verbs import cartwright

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("load at every door while keys rotate: two minutes; each step is in tests/integration/test_signing_keys.py"),
]

LISTS = {"cart": "/v1/products", "checkout": "/v1/orders", "payments": "/v1/payments"}
ASKING = 16
ENOUGH = 25
"""How often each token is asked with at each service after something has changed, before the next thing does."""


class Load:
    """Callers who ask all services for something with every token there is, and what they were answered."""

    def __init__(self, market: Market, session: aiohttp.ClientSession) -> None:
        self.tokens: list[str] = []
        self.answered: Counter[tuple[str, str, int]] = Counter()
        self._urls = {name: f"{market.api.stack.services[name].url}{path}" for name, path in LISTS.items()}
        self._session = session

    async def ask_for_ever(self, first: int) -> None:
        turn = first
        while True:
            turn += ASKING
            token = self.tokens[turn % len(self.tokens)]
            service, url = [*self._urls.items()][turn // len(self.tokens) % len(self._urls)]
            async with self._session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                self.answered[kid_of(token), service, answer.status] += 1
                await answer.read()

    async def enough(self) -> None:
        """Until each key's tokens were used so often at each service, from now on."""
        before = self.answered.copy()

        def count(kid: str, service: str) -> int:
            return sum(n - before[key] for key, n in self.answered.items() if key[:2] == (kid, service))

        while not all(count(kid_of(token), service) >= ENOUGH for token in self.tokens for service in self._urls):
            await asyncio.sleep(0.05)  # the callers are at work

    def refused(self, kid: str | None = None) -> int:
        return sum(n for (of, _, status), n in self.answered.items() if status == 401 and kid in {None, of})


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


@asynccontextmanager
async def loaded(market: Market) -> AsyncIterator[Load]:
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        load = Load(market, session)
        load.tokens.append(await market.shop.token())
        asking = [group.create_task(load.ask_for_ever(first)) for first in range(ASKING)]
        try:
            yield load
        finally:
            for task in asking:
                task.cancel()


async def _form(market: Market, **fields: str) -> tuple[int, dict[str, Any]]:
    url = f"{market.api.stack.services['identity'].url}/oauth/token"
    async with aiohttp.ClientSession() as session, session.post(url, data=fields) as answer:
        return answer.status, await answer.json()


async def _fresh(market: Market) -> str:
    """A token that was signed just now."""
    granted = await market.shop._client._issue()
    return str(granted["access_token"])


async def test_no_request_is_refused_while_keys_are_rotated_under_load_and_identity_dies(market: Market) -> None:
    begun = time.monotonic()
    async with loaded(market) as load:
        await load.enough()
        for dies in (False, True, False):
            said = await cartwright(market, "keys", "rotate", "signing", "--json")
            assert said.code == 0, said.out
            if dies:  # as soon as it is decided: what it had not done yet, nobody needs
                await market.stack.kill("identity.api")
                await market.stack.kill("identity.worker")
                await load.enough()
                await market.stack.start_process("identity.api")
                await market.stack.start_process("identity.worker")
            load.tokens.append(await _fresh(market))
            assert kid_of(load.tokens[-1]) == said.told["kid"] != said.told["previous_kid"] == kid_of(load.tokens[-2])
            await load.enough()
        assert len({kid_of(token) for token in load.tokens}) == 4
        assert {status for _, _, status in load.answered} == {200}, load.answered
        print(f"{load.answered.total()} answers, {load.answered.total() / (time.monotonic() - begun):.0f} a second")

        stolen = kid_of(load.tokens[0])
        assert (await cartwright(market, "keys", "revoke", stolen)).code == 0

        async def is_refused() -> bool:
            before = load.answered.copy()
            await load.enough()
            now = load.answered - before
            return all(now[stolen, service, 200] == 0 for service in LISTS)

        await market.until(is_refused)
        assert load.refused() == load.refused(stolen), "nobody else"
        signing = kid_of(load.tokens[-1])
        assert (await cartwright(market, "keys", "revoke", signing)).code == 0
        assert kid_of(await _fresh(market)) not in {kid_of(token) for token in load.tokens}


async def test_nobody_is_logged_out_while_identity_is_down(market: Market, request: pytest.FixtureRequest) -> None:
    """Nor by a service that starts meanwhile: keys come from the topic."""
    seconds = 120 if request.config.getoption("--long") else 15
    token = await _fresh(market)
    for kind in ("api", "worker"):
        await market.stack.stop_process(f"identity.{kind}")
    try:
        await market.stack.kill("cart.api")
        await market.stack.start_process("cart.api")
        async with aiohttp.ClientSession() as session:
            statuses: Counter[int] = Counter()
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                for service, path in LISTS.items():
                    url = f"{market.api.stack.services[service].url}{path}"
                    async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                        statuses[answer.status] += 1
                await asyncio.sleep(0.2)
        assert statuses.keys() == {200}
    finally:
        for kind in ("api", "worker"):
            await market.stack.start_process(f"identity.{kind}")


async def test_a_session_a_token_and_a_provider_account_outlive_the_master_key(market: Market) -> None:
    healing: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: healing.append(asyncio.create_task(market.stack.heal())))
    try:
        shop = await market.another_shop("sealed")
        await supply(shop, "GBP", OFFERS, print)
        account = {"api_key": f"sk_test_{uuid4().hex}", "webhook_secrets": [f"whsec_{uuid4().hex}"]}
        path = "/v1/provider-accounts/stripe"
        await market.api.call("payments", "PUT", path, token=await shop.token(), body=account)
        token, body = await shop.token(), {"shopper_ref": "s"}
        session = (await market.api.call("identity", "POST", "/v1/sessions", token=token, body=body)).body
        secret_file = market.stack.home.secret_file("master-key")
        before = secret_file.read_text()

        said = await cartwright(market, "keys", "rotate", "master", "--json")
        assert said.code == 0, said.out
        assert said.told["failed"] == 0
        assert said.told["payments"]["rewrapped"] == 1
        assert said.told["identity"]["rewrapped"] == 3
        assert secret_file.read_text() != before
        assert not market.stack.home.secret_file("previous-master-key").exists()
        assert len(healing) == 2, "identity and payments were started twice: with both keys, and with the new one alone"

        for service, path in LISTS.items():
            await market.api.call(service, "GET", path, token=token)
        refresh = session["refresh_token"]
        for _ in range(2):
            status, granted = await _form(market, grant_type="refresh_token", refresh_token=refresh)
            assert status == 200, granted
            refresh = granted["refresh_token"]
        shopper = shop.shopper("buyer")
        cart_id = await shopper.new_cart()
        await shopper.put_line(cart_id, "SKU-1", 1)
        started = await shopper.check_out(cart_id, key="sealed", method="pm_card_visa", wait_seconds=20)
        assert (await shopper.outcome(started, patience_seconds=60))["state"] == "confirmed"
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
