import base64
import hmac
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR, ROLES, SHOPPER, Verifier, bearer
from libs.common.clock import PLATFORM, now
from libs.common.errors import DeniedError, UnauthenticatedError, UnavailableError
from libs.common.jwk import thumbprint
from tests.shared.roots import certificate_of, keys_of, root_of

ISSUER, AUDIENCE = "https://issuer.test", "cart"
KEY, THIEF = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def jwk_of(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public key under its thumbprint."""
    public: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": thumbprint(public)}


PUBLIC_JWK, THIEFS_JWK = jwk_of(KEY), jwk_of(THIEF)
KID, THIEFS_KID = PUBLIC_JWK["kid"], THIEFS_JWK["kid"]
HEADER = {"typ": "at+jwt", "alg": "ES256", "kid": KID}
SUBJECT, TENANT = uuid4(), uuid4()
LEFT_OUT: Any = object()


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says, but for these."""
    issued_at = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": ["cart", "checkout"],
        "sub": str(SUBJECT),
        "client_id": "c",
        "iat": issued_at,
        "exp": issued_at + 600,
        "jti": "j",
        "tid": str(TENANT),
        "sid": "s",
        "scope": "carts:read carts:write",
        "roles": [SHOPPER],
        "ver": 1,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not LEFT_OUT}


def _part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(sign: Callable[[bytes], bytes], header: Any, payload: Any) -> str:
    """A token put together by hand: no library keeps us from nonsense."""
    head = f"{_part(header)}.{_part(payload)}"
    return f"{head}.{_part(sign(head.encode()))}"


def by(key: Any) -> Callable[[bytes], bytes]:
    """Signing ES256 with this key."""
    algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
    return lambda text: algorithm.sign(text, key)


def token(header: dict[str, Any] | None = None, *, key: Any = KEY, **changes: Any) -> str:
    return signed(by(key), {**HEADER, **(header or {})}, claims(**changes))


def verifier(audience: str = AUDIENCE) -> Verifier:
    return Verifier(keys_of(ISSUER, PUBLIC_JWK), issuer=ISSUER, audience=audience)


async def test_a_good_token_says_who_is_calling() -> None:
    principal = await verifier().verify(token())
    assert (principal.subject, principal.tenant_id, principal.client_id) == (SUBJECT, TENANT, "c")
    assert principal.permissions == {"carts:read", "carts:write"}
    assert principal.is_shopper
    assert (await verifier().verify(token({"typ": "AT+JWT"}))).subject == SUBJECT
    assert (await verifier("checkout").verify(token())).subject == SUBJECT


NOW = int(time.time())
PUBLIC_BYTES = [
    KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    orjson.dumps(PUBLIC_JWK),
]
GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
RSA_KEY, ED_KEY = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
P384 = ec.generate_private_key(ec.SECP384R1())


def _flipped(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]


FORGERIES: dict[str, str] = {
    "no algorithm": signed(lambda _: b"", {**HEADER, "alg": "none"}, claims()),
    "no algorithm, in capitals": signed(lambda _: b"", {**HEADER, "alg": "NONE"}, claims()),
    "no algorithm, old signature": signed(
        lambda _: base64.urlsafe_b64decode(SIGNATURE + "=="), {**HEADER, "alg": "none"}, claims()
    ),
    "no signature": f"{HEAD}.{BODY}.",
    "signature left out": f"{HEAD}.{BODY}",
    "signature of another token": f"{HEAD}.{_part(claims(sub=str(uuid4())))}.{SIGNATURE}",
    "signature cut": GOOD[:-10],
    "signature flipped": f"{HEAD}.{BODY}.{_flipped(SIGNATURE)}",
    "signature all zero": signed(lambda _: bytes(64), HEADER, claims()),
    "signature in DER": signed(lambda text: KEY.sign(text, ec.ECDSA(SHA256())), HEADER, claims()),
    "header flipped": f"{_part({**HEADER, 'x': 1})}.{BODY}.{SIGNATURE}",
    "the thief's key under our id": token(key=THIEF),
    "the thief's key under its own id": token({"kid": THIEFS_KID}, key=THIEF),
    "no key id": signed(by(KEY), {"typ": "at+jwt", "alg": "ES256"}, claims()),
    "a key id that is a path": token({"kid": "../../dev/null"}),
    "a key id that is a number": token({"kid": 1}),
    "a key id that is null": token({"kid": None}),
    "the thief's key in jwk": token({"jwk": THIEFS_JWK}, key=THIEF),
    "the thief's key in jwk, under its id": token({"jwk": THIEFS_JWK, "kid": THIEFS_KID}, key=THIEF),
    "the thief's key at jku": token({"jku": "https://thief.test/jwks.json", "kid": THIEFS_KID}, key=THIEF),
    "the thief's chain in x5c": token({"x5c": [base64.b64encode(PUBLIC_BYTES[1]).decode()], "kid": THIEFS_KID}, key=THIEF),
    "the thief's chain at x5u": token({"x5u": "https://thief.test/chain.pem", "kid": THIEFS_KID}, key=THIEF),
    "RS256": signed(lambda text: RSA_KEY.sign(text, PKCS1v15(), SHA256()), {**HEADER, "alg": "RS256"}, claims()),
    "EdDSA": signed(ED_KEY.sign, {**HEADER, "alg": "EdDSA"}, claims()),
    "ES256K": token({"alg": "ES256K"}),
    "ES384 on another curve": signed(by(P384), {**HEADER, "alg": "ES384"}, claims()),
    "ES256 on another curve": signed(by(P384), HEADER, claims()),
    "an algorithm that is a list": token({"alg": ["ES256"]}),
    "an unknown critical header": token({"crit": ["exp"], "exp": NOW}),
    "a known critical header": token({"crit": ["b64"], "b64": True}),
    "an empty critical header": token({"crit": []}),
    "an ID token": token({"typ": "JWT"}),
    "no type": signed(by(KEY), {"alg": "ES256", "kid": KID}, claims()),
    "a type that is no text": token({"typ": 1}),
    "a type that is null": token({"typ": None}),
    "expired": token(iat=NOW - 700, exp=NOW - 61),
    "expired long ago": token(iat=0, exp=600),
    "not yet valid": token(nbf=NOW + 600),
    "issued in the future": token(iat=NOW + 600, exp=NOW + 900),
    "lives for ten years": token(exp=NOW + 10 * 365 * 86_400),
    "lives a second too long": token(iat=NOW, exp=NOW + 901),
    "issued for ever, made to look short": token(iat=NOW + 10 * 365 * 86_400 - 600, exp=NOW + 10 * 365 * 86_400),
    "an end that is text": token(exp="never"),
    "an end that is null": token(exp=None),
    "a beginning that is text": token(iat="now"),
    "another issuer": token(iss="https://thief.test"),
    "our issuer with a slash": token(iss=ISSUER + "/"),
    "issuers": token(iss=[ISSUER]),
    "another audience": token(aud=["checkout"]),
    "no audience in the list": token(aud=[]),
    "an audience that begins like ours": token(aud="cartwright"),
    "an audience that is a number": token(aud=1),
    "a subject that is no id": token(sub="root"),
    "a subject that is a number": token(sub=1),
    "a tenant that is no id": token(tid="*"),
    "a tenant that is null": token(tid=None),
    "roles that are lists": token(roles=[["client"]]),
    "roles that are a number": token(roles=1),
    "claims that are a list": signed(by(KEY), HEADER, []),
    "claims that are no JSON": signed(by(KEY), HEADER, b"{"),
    "a header that is a list": signed(by(KEY), [], claims()),
    "a header that is no JSON": signed(by(KEY), b"\xff", claims()),
    "five parts": f"{GOOD}.x.y",
    "nothing": "",
    "dots": "..",
    "not ASCII": "é.é.é",
    "very long": "a" * 100_000,
    **{
        f"the public key as a secret ({algorithm}, {number})": signed(
            lambda text, secret=secret, algorithm=algorithm: hmac.new(secret, text, f"sha{algorithm[2:]}").digest(),  # type: ignore[misc]
            {**HEADER, "alg": algorithm},
            claims(),
        )
        for number, secret in enumerate(PUBLIC_BYTES)
        for algorithm in ("HS256", "HS512")
    },
    **{f"{name} left out": token(**{name: LEFT_OUT}) for name in ("iss", "aud", "exp", "iat", "sub", "client_id", "jti")},
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=list(FORGERIES))
async def test_a_forgery_is_refused_with_what_is_wrong_and_leaves_nothing_behind(forgery: str) -> None:
    gate = verifier()
    for _ in range(2):
        with pytest.raises(UnauthenticatedError) as refusal:
            await gate.verify(forgery)
        assert (refusal.value.status, refusal.value.code) == (401, "invalid-token")
        assert refusal.value.detail.startswith("the access token is refused: ")
    await gate.verify(token())


async def test_a_token_is_good_until_its_end_and_not_longer_also_when_it_is_known() -> None:
    gate = verifier()
    short = token(iat=int(time.time()) - 890, exp=int(time.time()) - 4)
    assert (await gate.verify(short)).subject == SUBJECT, "a few seconds are the clocks' own"
    assert short not in {known for known, (end, *_) in gate._seen.items() if end > time.time()}


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
        await Verifier(keys, issuer=ISSUER, audience=AUDIENCE).verify(token())


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
