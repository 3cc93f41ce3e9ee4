"""Pages of other hosts: those that a tenant names may read what is of that tenant, and no other page reads anything."""

from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import ValidationError

from services.identity.api.tenants import Settings
from tests.shared.callers import Person, edge, onboard
from tests.shared.places import Places

SHOP, OTHERS = "https://shop.example.com", "https://evil.example.com"
ALLOWED = "access-control-allow-origin"


def _named(client: httpx.AsyncClient, tenant_id: UUID, *origins: str, version: int = 1, is_open: bool = True) -> None:
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    service = transport.app.state.service  # type: ignore[attr-defined]  # ours, which httpx does not know
    service.choices.learn(tenant_id, version, {"allowed_origins": [*origins]}, is_open=is_open)


async def _preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}
    answer = await client.options("/v1/carts", headers=asked)
    assert answer.status_code == 204
    assert "Origin" in answer.headers["vary"]
    return answer


async def test_a_page_that_a_tenant_names_asks_and_reads_for_that_tenant_alone(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        ours, theirs = await onboard(shell), await onboard(shell)
        assert ALLOWED not in (await _preflight(client, SHOP)).headers, "by default no page may"
        _named(client, ours, SHOP)
        _named(client, theirs, "https://other.example.com")
        asked = await _preflight(client, SHOP)
        assert asked.headers[ALLOWED] == SHOP
        for needed in ("Authorization", "Idempotency-Key", "Prefer", "If-Match"):
            assert needed in asked.headers["access-control-allow-headers"]
        assert ALLOWED not in (await _preflight(client, OTHERS)).headers
        for who, origin, reads in ((ours, SHOP, True), (theirs, SHOP, False), (ours, OTHERS, False)):
            for path, status in (("/v1/carts", 200), (f"/v1/carts/{uuid4()}", 404)):
                answer = await client.get(path, headers={**Person(who).authorization, "Origin": origin})
                assert answer.status_code == status
                assert (answer.headers.get(ALLOWED) == origin) is reads
                assert answer.headers["vary"] == "Origin"
                assert "access-control-allow-credentials" not in answer.headers
                if reads:
                    assert {"ETag", "Retry-After", "RateLimit", "Location"} <= {
                        *answer.headers["access-control-expose-headers"].split(", ")
                    }
        assert "vary" not in (await client.get("/v1/carts", headers=Person(ours).authorization)).headers


async def test_the_latest_word_counts_and_a_tenant_that_is_not_open_lets_no_page_in(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        tenant_id = await onboard(shell)
        _named(client, tenant_id, SHOP, version=3)
        _named(client, tenant_id, version=2)
        assert (await _preflight(client, SHOP)).headers[ALLOWED] == SHOP
        _named(client, tenant_id, SHOP, version=4, is_open=False)
        assert ALLOWED not in (await _preflight(client, SHOP)).headers


async def test_what_a_stranger_asks_for_is_the_tenants_that_they_name(shared: Places) -> None:
    async with edge(shared("checkout")) as (client, shell):
        ours, theirs = await onboard(shell), await onboard(shell)
        _named(client, ours, SHOP)
        for tenant_id, reads in ((ours, True), (theirs, False)):
            body = {"tenant_id": str(tenant_id), "number": 1, "email": f"{uuid4()}@example.com"}
            answer = await client.post("/v1/order-lookups", json=body, headers={"Origin": SHOP})
            assert (answer.status_code, ALLOWED in answer.headers) == (202, reads)


@pytest.mark.parametrize(
    "origin", ["*", "http://shop.example.com", f"{SHOP}/", "null", "https://a b", "https://*.com", "https://"]
)
def test_an_origin_that_is_no_host_over_tls_is_not_to_be_chosen(origin: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"allowed_origins": [SHOP, origin]})
    for trial in (SHOP, "http://localhost:3000", "http://127.0.0.1", "https://shop.example.com:8443"):
        assert Settings.model_validate({"allowed_origins": [trial]}).allowed_origins == [trial]
