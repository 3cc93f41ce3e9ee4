"""The way to the provider as companies have it: through a proxy that asks who comes, and past an authority of their own."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from services.payments.domain.provider.outcome import Succeeded
from services.payments.gateway.stripe import StripeGateway
from tests.shared.fakes import VISA, Account, account_at
from tests.shared.way import NAME, VARIABLES, Way, way_to_a_fake


@pytest.fixture
async def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Way]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    async with way_to_a_fake(tmp_path) as way:
        yield way


@pytest.fixture
async def account(way: Way) -> AsyncIterator[Account]:
    async with account_at(way.fake) as opened:
        yield opened


async def _created(account: Account, base: str) -> object:
    gateway = StripeGateway(account.api_key, base, timeout_seconds=20)
    try:
        return await gateway.create_intent(
            f"create-{uuid4()}", amount_minor=1250, currency="GBP", method=VISA, capture="manual", metadata={}
        )
    finally:
        await gateway.close()


async def test_through_a_proxy_to_a_provider_that_a_companys_authority_certifies(
    way: Way, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"https://{NAME}"
    monkeypatch.setenv("HTTPS_PROXY", way.proxy)
    assert not isinstance(await _created(account, base), Succeeded), "nobody said that this authority is to be trusted"
    monkeypatch.setenv("SSL_CERT_FILE", str(way.authority.file))
    assert isinstance(await _created(account, base), Succeeded)
    assert way.asked
    assert {*way.asked} == {f"CONNECT {NAME}:443 HTTP/1.1"}
    way.is_open = False
    assert not isinstance(await _created(account, base), Succeeded)


async def test_what_needs_no_proxy_goes_past_it(way: Way, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", way.proxy)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(way.authority.file))
    assert isinstance(await _created(account, f"https://localhost:{way.stripe_port}"), Succeeded)
    assert isinstance(await _created(account, account.url), Succeeded), "nor does what is not encrypted"
    assert way.asked == []
