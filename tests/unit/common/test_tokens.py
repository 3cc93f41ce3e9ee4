import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from libs.common.auth import CLIENT, GUEST, MAX_LIFETIME_SECONDS, PERMISSIONS, PLATFORM_OPERATOR, ROLES, SHOPPER, Verifier, bearer
from libs.common.clock import PLATFORM, now
from libs.common.errors import DeniedError, UnauthenticatedError, UnavailableError
from libs.common.jwk import thumbprint
from tests.shared.forging import LEFT_OUT, P384, Forger
from tests.shared.roots import certificate_of, keys_of, none_revoked, root_of

ISSUER, AUDIENCE = "https://issuer.test", "cart"
KEY = ec.generate_private_key(ec.SECP256R1())
SUBJECT, TENANT = uuid4(), uuid4()
FORGER = Forger(
    KEY,
    {
        "iss": ISSUER,
        "aud": ["cart", "checkout"],
        "sub": str(SUBJECT),
        "client_id": "c",
        "jti": "j",
        "tid": str(TENANT),
        "sid": "s",
        "scope": "carts:read carts:write",
        "roles": [SHOPPER],
        "ver": 1,
    },
)
THIEF, PUBLIC_JWK, THIEFS_JWK = FORGER.thief, FORGER.jwk, FORGER.thiefs_jwk
KID, THIEFS_KID = PUBLIC_JWK["kid"], THIEFS_JWK["kid"]
token = FORGER.token


def verifier(audience: str = AUDIENCE) -> Verifier:
    return Verifier(keys_of(ISSUER, PUBLIC_JWK), none_revoked(), issuer=ISSUER, audience=audience)


async def test_a_good_token_says_who_is_calling() -> None:
    principal = await verifier().verify(token())
    assert (principal.subject, principal.tenant_id, principal.client_id) == (SUBJECT, TENANT, "c")
    assert principal.permissions == {"carts:read", "carts:write"}
    assert principal.is_shopper
    assert (await verifier().verify(token({"typ": "AT+JWT"}))).subject == SUBJECT
    assert (await verifier("checkout").verify(token())).subject == SUBJECT


FORGERIES = tuple(FORGER.forgeries())
GOOD = token()


@pytest.mark.parametrize("wrong", FORGERIES)
async def test_a_forgery_is_refused_with_what_is_wrong_and_leaves_nothing_behind(wrong: str) -> None:
    gate = verifier()
    forgery = FORGER.forgeries()[wrong]  # of this moment: ten minutes into a run, "issued in the future" would be past
    for _ in range(2):
        with pytest.raises(UnauthenticatedError) as refusal:
            await gate.verify(forgery)
        assert (refusal.value.status, refusal.value.code) == (401, "invalid-token")
        assert refusal.value.detail.startswith("the access token is refused: ")
    await gate.verify(token())


async def test_a_token_is_good_until_its_end_and_not_longer_also_when_it_is_known() -> None:
    gate = verifier()
    longest = token(iat=int(time.time()), exp=int(time.time()) + MAX_LIFETIME_SECONDS)
    assert (await gate.verify(longest)).subject == SUBJECT
    short = token(iat=int(time.time()) - 890, exp=int(time.time()) - 4)
    assert (await gate.verify(short)).subject == SUBJECT, "a few seconds are the clocks' own"
    assert short not in {known for known, seen in gate._seen.items() if seen.expires_at > time.time()}


async def test_a_key_that_is_forgotten_opens_nothing_any_more_not_even_for_tokens_that_it_has_opened_for() -> None:
    gate = verifier()
    gate.keys.learn(THIEFS_JWK, certificate_of(THIEFS_JWK, ISSUER))
    known = token({"kid": THIEFS_KID}, key=THIEF)
    assert (await gate.verify(known)).subject == SUBJECT
    assert await gate.verify(known) is await gate.verify(known)
    gate.keys.forget(THIEFS_KID, root_of(ISSUER).revoke(THIEFS_KID, now()))
    for stolen in (known, token({"kid": THIEFS_KID}, key=THIEF, jti="another")):
        with pytest.raises(UnauthenticatedError):
            await gate.verify(stolen)


OTHERS_POINT = {name: THIEFS_JWK[name] for name in ("x", "y")}
OFF_THE_CURVE = {**PUBLIC_JWK, "y": THIEFS_JWK["y"]}
NO_KEYS: list[Any] = [
    *(None, [], "key", 7, {}, {"kid": KID}),
    jwt.algorithms.ECAlgorithm.to_jwk(KEY, as_dict=True) | {"kid": KID},
    jwt.algorithms.ECAlgorithm.to_jwk(P384.public_key(), as_dict=True) | {"kid": KID},
    {"kty": "oct", "k": "AAAA", "kid": KID},
    {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": KID},
    {**OFF_THE_CURVE, "kid": thumbprint(OFF_THE_CURVE)},
    {**PUBLIC_JWK, "x": None},
    {**PUBLIC_JWK, "x": 7},
    {**PUBLIC_JWK, "x": ["A"] * 43},
    {**PUBLIC_JWK, "x": "A" * 1_000_000},
    {**PUBLIC_JWK, "y": PUBLIC_JWK["y"][:-1]},
    {**PUBLIC_JWK, "kid": "k1"},
    {**PUBLIC_JWK, "kid": None},
    {**PUBLIC_JWK, "kid": ["k1"]},
    {**PUBLIC_JWK, "use": "enc"},
    {**PUBLIC_JWK, "alg": "ES384"},
    {**PUBLIC_JWK, "alg": {}},
    {name: member for name, member in PUBLIC_JWK.items() if name != "kid"},
]


@pytest.mark.parametrize("jwk", NO_KEYS, ids=range(len(NO_KEYS)))
async def test_what_is_no_key_of_ours_is_not_learned_and_fails_nobody_but_itself(jwk: Any) -> None:
    keys = keys_of(ISSUER)
    keys.learn(jwk, certificate_of(PUBLIC_JWK, ISSUER))
    assert not keys
    with pytest.raises(UnavailableError, match="keys-unavailable"):
        await Verifier(keys, none_revoked(), issuer=ISSUER, audience=AUDIENCE).verify(token())


async def test_a_key_that_is_known_is_never_replaced() -> None:
    gate = verifier()
    for jwk in ({**PUBLIC_JWK, **OTHERS_POINT}, {**THIEFS_JWK, "kid": KID}):
        gate.keys.learn(jwk, certificate_of(jwk, ISSUER))
    await gate.verify(token())
    with pytest.raises(UnauthenticatedError):
        await gate.verify(token(key=THIEF))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("asked", [PERMISSIONS, frozenset(), frozenset(["carts:read", "tenants:manage", "orders:refund"])])
async def test_a_token_may_what_both_its_scope_and_its_role_allow(role: str, asked: frozenset[str]) -> None:
    whose: dict[str, Any] = {"tid": LEFT_OUT} if role == PLATFORM_OPERATOR else {}
    principal = await verifier().verify(token(roles=[role], scope=" ".join(asked), **whose))
    assert principal.permissions == ROLES[role] & asked
    for permission in PERMISSIONS:
        if permission in ROLES[role] & asked:
            principal.demand(permission)
        else:
            with pytest.raises(DeniedError) as refusal:
                principal.demand(permission)
            assert (refusal.value.status, refusal.value.members) == (403, {"permission": permission})


async def test_several_roles_add_up_an_unknown_one_is_nothing_and_no_scope_is_no_permission() -> None:
    everything = " ".join(PERMISSIONS)
    both = await verifier().verify(token(roles=[CLIENT, SHOPPER, "emperor"], scope=everything))
    assert both.permissions == ROLES[CLIENT] | ROLES[SHOPPER]
    for changes in ({"roles": ["emperor"]}, {"roles": LEFT_OUT}, {"scope": LEFT_OUT}, {"scope": "*"}, {"roles": "client"}):
        assert (await verifier().verify(token(**{"scope": everything, **changes}))).permissions == set()


async def test_a_role_that_does_not_go_with_the_tokens_tenant_allows_nothing() -> None:
    mixed: dict[str, Any] = {"roles": [CLIENT, PLATFORM_OPERATOR], "scope": " ".join(PERMISSIONS)}
    of_a_tenant, of_none = await verifier().verify(token(**mixed)), await verifier().verify(token(**mixed, tid=LEFT_OUT))
    assert of_a_tenant.permissions == ROLES[CLIENT]
    assert of_none.permissions == ROLES[PLATFORM_OPERATOR]
    assert (of_a_tenant.is_platform_operator, of_none.is_platform_operator) == (False, True)
    with pytest.raises(UnauthenticatedError, match="names a tenant that is none"):
        await verifier().verify(token(**mixed, tid=str(PLATFORM)))


async def test_what_is_the_platforms_is_for_its_operators_alone_whatever_else_a_token_says() -> None:
    everything: dict[str, Any] = {"scope": " ".join(PERMISSIONS)}
    operator = await verifier().verify(token(**everything, tid=LEFT_OUT, roles=[PLATFORM_OPERATOR]))
    operator.demand("ops:read", of_platform=True)
    for others in (
        {"tid": LEFT_OUT, "roles": []},
        {"tid": LEFT_OUT, "roles": [CLIENT]},
        {"roles": [CLIENT]},
        {"roles": [SHOPPER]},
    ):
        somebody = await verifier().verify(token(**everything, **others))
        with pytest.raises(DeniedError, match="platform-only"):
            somebody.demand("carts:read", of_platform=True)
        assert not somebody.is_platform_operator
    assert [(await verifier().verify(token(roles=roles))).is_guest for roles in ([SHOPPER], [SHOPPER, GUEST])] == [False, True]


async def test_who_has_no_tenant_is_of_the_platform_and_reaches_no_tenants_routes() -> None:
    operator = await verifier().verify(token(tid=LEFT_OUT, roles=[PLATFORM_OPERATOR], scope=" ".join(PERMISSIONS)))
    assert operator.tenant_id == PLATFORM == UUID(int=0)
    assert not operator.permissions & {"carts:read", "orders:read", "checkouts:write", "payments:read", "stock:read"}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "bearer", GOOD])
def test_anything_but_a_bearer_token_is_no_token(header: str | None) -> None:
    with pytest.raises(UnauthenticatedError, match="token-missing"):
        bearer(header)


def test_a_bearer_token_is_found_whatever_the_case_of_the_word() -> None:
    assert bearer("bearer x") == bearer("BEARER  x ") == "x"
