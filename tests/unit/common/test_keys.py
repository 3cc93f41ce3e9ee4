import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from libs.common.auth import Verifier
from libs.common.certificates import RootKey, Roots
from libs.common.clock import now
from libs.common.errors import UnauthenticatedError, UnavailableError
from libs.common.jwk import thumbprint
from libs.common.keys import FETCH_SECONDS, MAX_JWKS_BYTES, Keys
from tests.shared.roots import certificate_of, keys_of, none_revoked, root_of

ASKERS = 200
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def made_key() -> tuple[ec.EllipticCurvePrivateKey, dict[str, str]]:
    private = ec.generate_private_key(ec.SECP256R1())
    public: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return private, {**public, "kid": thumbprint(public)}


def token(private: ec.EllipticCurvePrivateKey, kid: str) -> str:
    now = int(time.time())
    names = {"sub": "00000000-0000-0000-0000-000000000001", "client_id": "c", "jti": "j", "iss": "i", "aud": "cart"}
    return jwt.encode({**names, "iat": now, "exp": now + 600}, private, algorithm="ES256", headers={"typ": "at+jwt", "kid": kid})


class Issuer:
    """Somebody at the address of the keys, who answers as he is told to."""

    def __init__(self, answering: Answering) -> None:
        self.asked = 0
        self._answering = answering

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        try:
            await reader.readuntil(b"\r\n\r\n")  # closed with something unread, a connection is reset
            await self._answering(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def issuing(answering: Answering) -> AsyncIterator[tuple[Issuer, Keys]]:
    issuer = Issuer(answering)
    server = await asyncio.start_server(issuer.meet, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield issuer, keys_of("i", url=f"http://{host}:{port}/jwks.json")
    finally:
        server.close()


async def hanging(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1_000):
        pass


async def refusing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)
    for _n in range(MAX_JWKS_BYTES // 1_000 * 4):
        writer.write(b" " * 1_000)
        await writer.drain()


async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)
    for _n in range(100):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.2)


def saying(body: Any) -> Answering:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER + orjson.dumps(body))
        await writer.drain()

    return answer


NO_ANSWERS = [hanging, refusing, endless, dripping, *map(saying, ([], {}, {"keys": 7}, {"keys": None}, "keys"))]


@pytest.mark.parametrize("answering", NO_ANSWERS)
async def test_many_unknown_keys_ask_an_issuer_that_is_away_once_and_disturb_nobody(answering: Answering) -> None:
    private, jwk = made_key()
    strangers, _ = made_key()
    async with issuing(answering) as (issuer, keys):
        gate = Verifier(keys, none_revoked(), issuer="i", audience="cart")
        with pytest.raises(UnavailableError, match="keys-unavailable"):
            await gate.verify(token(private, jwk["kid"]))
        assert issuer.asked == 1
        keys.learn(jwk, certificate_of(jwk, "i"))
        keys._ask_at = 0.0  # the pause is over

        async def forged(number: int) -> None:
            with pytest.raises(UnauthenticatedError, match="nobody knows its key"):
                await gate.verify(token(strangers, f"unknown-{number}"))

        begun = time.monotonic()
        asking = asyncio.gather(*map(forged, range(ASKERS)))
        await asyncio.sleep(0)
        await gate.verify(token(private, jwk["kid"]))  # while they wait
        await asking
        assert time.monotonic() - begun < FETCH_SECONDS * 10, "one after the other they take minutes"
        assert issuer.asked == 2
        await asyncio.gather(*map(forged, range(ASKERS)))
        assert issuer.asked == 2, "in the pause nobody asks"
        await gate.verify(token(private, jwk["kid"]))


async def test_the_pauses_grow_and_end_with_an_answer() -> None:
    keys = keys_of("i")
    pauses = []
    for _ in range(5):
        keys._ask_at = 0.0
        await keys.fetch()
        pauses.append(round(keys._ask_at - time.monotonic()))
    assert pauses == [1, 2, 5, 10, 10]


async def test_what_is_no_key_in_an_answer_hides_none_that_is_and_whoever_gives_up_takes_it_from_nobody() -> None:
    private, jwk = made_key()
    listed = [None, 7, {"kty": "EC", "crv": "P-256", "x": {}, "kid": "x"}, {**jwk, "certificate": certificate_of(jwk, "i")}]
    async with issuing(saying({"keys": listed})) as (issuer, keys):
        impatient = asyncio.create_task(keys.get(jwk["kid"]))
        await asyncio.sleep(0)
        impatient.cancel()
        await Verifier(keys, none_revoked(), issuer="i", audience="cart").verify(token(private, jwk["kid"]))
        assert issuer.asked == 1


STRANGER = ec.generate_private_key(ec.SECP256R1())


def _said(key: ec.EllipticCurvePrivateKey, kid: Any, claims: Any, **headers: Any) -> str:
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "cartwright-key+jwt", "kid": kid, **headers})


def _not_certificates(jwk: dict[str, str]) -> list[Any]:
    """What others, or we about something else, may say of a key."""
    root, other = root_of("i"), made_key()[1]
    stranger, true = RootKey("i", STRANGER), certificate_of(jwk, "i")
    head, body, signature = true.split(".")
    claims = {"iss": "i", "kid": jwk["kid"], "jwk": jwk, "iat": 0}
    return [
        *(None, "", 7, {}, [true], true[:-4], "x" * 3_000, f"{head}.{body}.", f"{head}.{other['x']}.{signature}"),
        stranger.certify(jwk, now()),
        _said(STRANGER, root.public["kid"], claims),
        _said(STRANGER, jwk["kid"], claims, jwk=stranger.public),
        jwt.encode(claims, "", algorithm="none", headers={"typ": "cartwright-key+jwt", "kid": root.public["kid"]}),
        certificate_of(jwk, "another-issuer"),
        certificate_of(other, "i"),
        root.certify({**other, "kid": jwk["kid"]}, now()),
        root.revoke(jwk["kid"], now()),
    ]


@pytest.mark.parametrize("number", range(17))
async def test_a_key_is_learnt_with_the_roots_word_alone_and_forgotten_so(number: int) -> None:
    private, jwk = made_key()
    keys = keys_of("i")
    gate = Verifier(keys, none_revoked(), issuer="i", audience="cart")
    keys.learn(jwk, _not_certificates(jwk)[number])
    with pytest.raises(UnavailableError):
        await gate.verify(token(private, jwk["kid"]))
    keys.learn(jwk, certificate_of(jwk, "i"))
    await gate.verify(token(private, jwk["kid"]))
    keys.forget(jwk["kid"], [*_not_certificates(jwk)[:-1], certificate_of(jwk, "i")][number])
    await gate.verify(token(private, jwk["kid"]))
    keys.forget(jwk["kid"], root_of("i").revoke(jwk["kid"], now()))
    keys.learn(jwk, certificate_of(jwk, "i"))
    assert not keys, "what is revoked is not learnt again"


async def test_who_answers_for_the_jwks_adds_no_key_of_his_own() -> None:
    (thief, jwk), (_, genuine) = made_key(), made_key()
    listed = [{**jwk, "certificate": RootKey("i", STRANGER).certify(jwk, now())}, jwk]
    async with issuing(saying({"keys": [*listed, {**genuine, "certificate": certificate_of(genuine, "i")}]})) as (_, keys):
        with pytest.raises(UnauthenticatedError, match="nobody knows its key"):
            await Verifier(keys, none_revoked(), issuer="i", audience="cart").verify(token(thief, jwk["kid"]))
        assert genuine["kid"] in keys


def test_a_root_key_is_read_from_a_pem_and_from_a_jwk_and_several_may_be_believed() -> None:
    _, jwk = made_key()
    pem = STRANGER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    old, new = root_of("i"), RootKey.read("i", pem)
    assert RootKey.read("i", str(jwt.algorithms.ECAlgorithm.to_jwk(STRANGER))).public == new.public
    both = Roots("i", orjson.dumps([old.public, new.public]).decode())
    for root in (old, new):
        both.demand_certified(jwk, root.certify(jwk, now()))
    for text in ("", "x", "{}", "[]", "7", orjson.dumps({**new.public, "x": old.public["x"]}).decode()):
        with pytest.raises(ValueError, match=r".*"):
            Roots("i", text)
        with pytest.raises(ValueError, match=r"^it is n"):
            RootKey.read("i", text)
