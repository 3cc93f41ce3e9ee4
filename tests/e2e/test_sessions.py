"""Sessions: seen, refreshed, ended and stolen; and tokens that are handed back or asked about."""

import asyncio
from typing import Any
from uuid import uuid4

import aiohttp
import jwt
import pytest

from deploy.cli.api import RefusedError
from deploy.cli.shop import Shop
from deploy.cli.tenants import Client, Wish, onboarded
from tests.shared.doors import is_believed, is_refused
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

RACERS = 20
PATIENCE_SECONDS = 60


async def _begin(market: Market, ref: str | None = None) -> dict[str, Any]:
    """A guest's session, or a shopper's."""
    if ref is None:
        body: dict[str, Any] = {"tenant_id": str(market.shop.tenant_id)}
        return dict((await market.api.call("identity", "POST", "/v1/sessions", body=body)).body)
    token = await market.shop.token()
    return dict((await market.api.call("identity", "POST", "/v1/sessions", token=token, body={"shopper_ref": ref})).body)


async def _ask(market: Market, method: str, path: str, token: str) -> tuple[int, Any]:
    try:
        reply = await market.api.call("identity", method, path, token=token)
    except RefusedError as error:
        return error.status, error.code
    return reply.status, reply.body


async def _post(market: Market, endpoint: str, client: Client | None = None, **form: str) -> tuple[int, Any]:
    """What an OAuth endpoint answers."""
    url = f"{market.stack.description().services['identity'].url}/oauth/{endpoint}"
    proof = {} if client is None else {"Authorization": aiohttp.encode_basic_auth(client.client_id, client.secret())}
    async with aiohttp.ClientSession() as session, session.post(url, data=form, headers=proof) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json() if answer.content_length else None


async def _refresh(market: Market, token: str) -> tuple[int, Any]:
    return await _post(market, "token", grant_type="refresh_token", refresh_token=token)


async def _client(market: Market, slug: str = "sessions") -> Client:
    return (await onboarded(market.api, Wish.of(slug))).client


async def _dies(market: Market, token: str) -> None:
    await market.until(lambda: is_refused(market, token), PATIENCE_SECONDS)


async def test_a_shopper_sees_their_own_sessions_and_ends_them_and_staff_any_shoppers(market: Market) -> None:
    first, second, other = await _begin(market, "seen"), await _begin(market, "seen"), await _begin(market, "other")
    staff = await market.shop.token()
    status, listed = await _ask(market, "GET", "/v1/sessions", first["access_token"])
    assert (status, {each["subject_id"] for each in listed["items"]}) == (200, {first["subject_id"]})
    assert len(listed["items"]) == 2
    _, current = await _ask(market, "GET", "/v1/sessions/current", second["access_token"])
    assert current in listed["items"]
    _, of_other = await _ask(market, "GET", f"/v1/sessions?subject_id={other['subject_id']}", staff)
    [theirs] = of_other["items"]

    strange = f"/v1/sessions/{theirs['session_id']}"
    assert await _ask(market, "DELETE", strange, first["access_token"]) == (404, "session-not-found")
    assert (await _ask(market, "GET", f"/v1/sessions?subject_id={other['subject_id']}", first["access_token"]))[0] == 404
    assert await _ask(market, "DELETE", strange, await (await market.another_shop("stranger")).token()) == (
        404,
        "session-not-found",
    )
    assert await is_believed(market, other["access_token"])
    assert (await _ask(market, "DELETE", strange, staff))[0] == 204
    assert await _ask(market, "DELETE", strange, staff) == (404, "session-not-found")
    await _dies(market, other["access_token"])
    assert (await _refresh(market, other["refresh_token"]))[1]["error"] == "invalid_grant"

    assert (await _ask(market, "DELETE", "/v1/sessions/current", second["access_token"]))[0] == 204
    assert (await _ask(market, "GET", "/v1/sessions/current", second["access_token"]))[0] == 401, "here at once"
    await _dies(market, second["access_token"])
    assert await is_believed(market, first["access_token"]), "another session of the same shopper goes on"
    assert (await _ask(market, "GET", "/v1/sessions/current", staff))[0] == 404, "a machine has none"
    for method, path in (("GET", ""), ("GET", "/current"), ("DELETE", "/current"), ("DELETE", f"/{theirs['session_id']}")):
        assert await _ask(market, method, f"/v1/sessions{path}", "") == (401, "token-missing")
    again = await _begin(market, "seen")
    assert again["subject_id"] == first["subject_id"]
    assert await is_believed(market, again["access_token"])


async def _identify(market: Market, ref: str, guest: dict[str, Any], shop: Shop | None = None) -> tuple[int, Any]:
    """Let in, as the shop's own machine, a shopper who was this guest."""
    body = {"shopper_ref": ref, "guest_refresh_token": guest["refresh_token"]}
    token = await (shop or market.shop).token()
    try:
        reply = await market.api.call("identity", "POST", "/v1/sessions", token=token, body=body)
    except RefusedError as error:
        return error.status, error.code
    return reply.status, reply.body


async def test_a_guest_who_is_known_at_last_takes_their_cart_along_once_and_is_a_guest_no_more(market: Market) -> None:
    guest, another = await _begin(market), await _begin(market)
    cart = (await market.api.call("cart", "POST", "/v1/carts", token=guest["access_token"], body={})).body["id"]
    assert await _identify(market, "known", guest, await market.another_shop("stranger")) == (422, "guest-token-refused")
    known = await asyncio.gather(*(_identify(market, "known", guest) for _ in range(5)))
    assert sorted(status for status, _ in known) == [201, 422, 422, 422, 422]
    [shopper] = [body for status, body in known if status == 201]
    await _dies(market, guest["access_token"])
    assert (await _refresh(market, guest["refresh_token"]))[1]["error"] == "invalid_grant"
    assert await _identify(market, "known", shopper) == (422, "guest-token-refused"), "that is no guest"

    async def claims(token: str) -> int:
        try:
            return (await market.api.call("cart", "POST", f"/v1/carts/{cart}/claim", token=token)).status
        except RefusedError as error:
            return error.status

    other = await _begin(market, "somebody else")
    assert [await claims(token) for token in (other["access_token"], another["access_token"])] == [404, 404]
    _, renewed = await _refresh(market, shopper["refresh_token"])
    assert [await claims(token) for token in (shopper["access_token"], renewed["access_token"])] == [200, 200]
    assert (await market.api.call("cart", "GET", f"/v1/carts/{cart}", token=shopper["access_token"])).body["id"] == cart


async def test_refreshes_that_race_get_one_successor_and_a_stolen_token_ends_its_family_everywhere(market: Market) -> None:
    begun, bystander = await _begin(market), await _begin(market)
    raced = await asyncio.gather(*(_refresh(market, begun["refresh_token"]) for _ in range(RACERS)))
    assert {status for status, _ in raced} == {200}
    assert len({body["refresh_token"] for _, body in raced}) == 1
    newest = raced[0][1]
    _, current = await _ask(market, "GET", "/v1/sessions/current", newest["access_token"])
    assert current["refresh_count"] == 1
    _, newest = await _refresh(market, newest["refresh_token"])

    status, refused = await _refresh(market, begun["refresh_token"])
    assert (status, refused["error"]) == (400, "invalid_grant")
    for token in (begun["refresh_token"], newest["refresh_token"]):
        assert (await _refresh(market, token))[1]["error"] == "invalid_grant"
    for token in (begun["access_token"], *(body["access_token"] for _, body in raced[:2]), newest["access_token"]):
        await _dies(market, token)
    assert await is_believed(market, bystander["access_token"])
    assert (await _refresh(market, bystander["refresh_token"]))[0] == 200


async def test_made_up_refresh_tokens_end_nobodys_session(market: Market) -> None:
    begun = await _begin(market)
    head, tenant, session, proof = begun["refresh_token"].split("_", 3)
    made_up = [
        f"{head}_{tenant}_{session}_{'A' * 48}",
        f"{head}_{tenant}_{session}_{proof[:-1]}{'A' if proof[-1] != 'A' else 'B'}",
    ]
    for token in [*made_up, "rt_", "", begun["access_token"], begun["refresh_token"].upper()]:
        assert (await _refresh(market, token))[0] == 400
        assert (await _post(market, "revoke", token=token or "x"))[0] in {200, 401}
    fresh = await _begin(market)
    assert (await _refresh(market, fresh["refresh_token"]))[0] == 200


async def test_what_is_handed_back_is_over_and_nobody_hands_back_what_is_anothers(market: Market) -> None:
    client, stranger = await _client(market), await _client(market, "stranger")
    by_refresh, by_access, kept = await _begin(market), await _begin(market), await _begin(market)
    assert await _post(market, "revoke", token=by_refresh["refresh_token"]) == (200, None)
    assert await _post(market, "revoke", token=by_access["access_token"], client_id="shopper") == (200, None)
    for session in (by_refresh, by_access):
        await _dies(market, session["access_token"])
        assert (await _refresh(market, session["refresh_token"]))[1]["error"] == "invalid_grant"
    assert await _post(market, "revoke", stranger, token=kept["refresh_token"]) == (200, None)
    assert await _post(market, "revoke", stranger, token=kept["access_token"]) == (200, None)
    assert await is_believed(market, kept["access_token"])

    returned, used = [(await market.api.grant(client.client_id, client.secret()))["access_token"] for _ in range(2)]
    assert (await _post(market, "revoke", token=returned))[0] == 401, "a machine proves itself"
    assert await _post(market, "revoke", stranger, token=returned) == (200, None)
    assert await is_believed(market, returned)
    assert await _post(market, "revoke", client, token=returned, token_type_hint="refresh_token") == (200, None)
    await _dies(market, returned)
    assert await is_believed(market, used), "one token and no other"
    for unknown in ("x", "a.b.c", returned, f"{used}x"):
        assert await _post(market, "revoke", client, token=unknown) == (200, None)
    assert (await _post(market, "revoke", client))[1]["error"] == "invalid_request"
    assert (await _post(market, "revoke", client_id=client.client_id, client_secret="wrong", token="x"))[0] == 401


async def test_a_gateway_is_told_of_its_own_tenants_good_tokens_alone(market: Market) -> None:
    client, stranger = await _client(market), await _client(market, "stranger")
    session = await _begin(market)
    machine = (await market.api.grant(client.client_id, client.secret()))["access_token"]
    for token in (machine, session["access_token"]):
        claims = jwt.decode(token, options={"verify_signature": False})
        status, told = await _post(market, "introspect", client, token=token)
        assert (status, told.pop("active"), told.pop("token_type")) == (200, True, "Bearer")
        assert told == {name: claims[name] for name in told}
        assert {"scope", "client_id", "sub", "exp", "iat", "iss", "aud", "jti", "tid"} <= {*told}
        assert await _post(market, "introspect", stranger, token=token) == (200, {"active": False})
    _, told = await _post(market, "introspect", client, token=session["refresh_token"])
    assert (told["active"], told["sub"], told["client_id"]) == (True, session["subject_id"], "shopper")
    assert await _post(market, "introspect", stranger, token=session["refresh_token"]) == (200, {"active": False})
    await _post(market, "revoke", token=session["refresh_token"])
    for token in (session["access_token"], session["refresh_token"], "x", str(uuid4()), f"{machine}x"):
        assert await _post(market, "introspect", client, token=token) == (200, {"active": False})
    status, refused = await _post(market, "introspect", token=machine)
    assert (status, refused["error"]) == (401, "invalid_client")


STAFFS = {
    "cart": ("/v1/cart-parked-messages", "parked:read"),
    "checkout": ("/v1/stock", "stock:read"),
    "payments": ("/v1/disputes", "disputes:read"),
    "identity": ("/v1/clients", "clients:manage"),
}
"""In each service, what no shopper may."""


async def _challenge(session: aiohttp.ClientSession, url: str, token: str | None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with session.get(url, headers=headers) as answer:
        return answer.status, answer.headers.get("WWW-Authenticate", "")


async def test_a_refusal_says_whether_another_token_would_do_and_which_scope(market: Market) -> None:
    shopper, services = (await _begin(market))["access_token"], market.stack.description().services
    async with aiohttp.ClientSession() as session:
        for service, (path, scope) in STAFFS.items():
            url = f"{services[service].url}{path}"
            expected = (403, f'Bearer error="insufficient_scope", scope="{scope}"')
            assert await _challenge(session, url, shopper) == expected
            assert await _challenge(session, url, "x") == (401, f'Bearer error="invalid_token", scope="{scope}"')
            assert await _challenge(session, url, None) == (401, f'Bearer scope="{scope}"')


REFUSALS = {(400, "invalid_request"), (401, "invalid_client")}


async def test_the_metadata_says_what_is_there(market: Market) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{market.stack.description().services['identity'].url}/.well-known/oauth-authorization-server"
        async with session.get(url) as answer:
            metadata = await answer.json()
        async with session.get(metadata.pop("authorization_endpoint")) as answer:
            assert answer.status == 400, "there, and nothing was asked"
        for name, endpoint in metadata.items():
            if name.endswith("_endpoint"):
                async with session.post(endpoint, data={}) as answer:
                    assert (answer.status, (await answer.json())["error"]) in REFUSALS, name
        for grant in metadata["grant_types_supported"]:
            async with session.post(metadata["token_endpoint"], data={"grant_type": grant}) as answer:
                assert (await answer.json())["error"] != "unsupported_grant_type"
        async with session.get(metadata["jwks_uri"]) as answer:
            assert (await answer.json())["keys"]
