"""A broker that lets everybody write, and somebody who announces signing keys on it in identity's name; and forged tokens."""

import time
from typing import Any
from uuid import uuid4

import aiohttp
import jwt
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.cli.api import RefusedError
from deploy.cli.publisher import client_arguments
from libs.common.certificates import RootKey, public_jwk
from libs.common.clock import now
from libs.common.jwk import ALGORITHM
from services import SERVICES
from tests.shared.doors import DOORS, doors, is_believed, told
from tests.shared.forging import Forger
from tests.shared.market import Market

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("what it proves of one process is in tests/unit and tests/integration; this is all eight together"),
]

LISTS = {"identity": "/v1/clients", "cart": "/v1/products", "checkout": "/v1/orders", "payments": "/v1/payments"}


async def _announced(market: Market) -> Any:
    """Identity's own announcement of its key."""
    stack = market.api.stack
    topic = stack.topic_prefix + "signing-key.v1"
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **client_arguments(stack)) as consumer:
        return await consumer.getone()


async def _newest(market: Market, kid: str) -> dict[str, Any]:
    """What the topic says last of a key."""
    stack, newest = market.api.stack, dict[str, Any]()
    topic = stack.topic_prefix + "signing-key.v1"
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **client_arguments(stack)) as consumer:
        [(partition, end)] = (await consumer.end_offsets(consumer.assignment())).items()
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(timeout_ms=1_000)).get(partition, []):
                value = orjson.loads(record.value)
                newest = value if value["kid"] == kid else newest
    return newest


async def _announce(market: Market, like: Any, jwk: dict[str, str], **changes: Any) -> None:
    """Say the same of another key, but for what is changed."""
    kid = jwk["kid"]
    genuine = orjson.loads(like.value)
    value = orjson.dumps({**genuine, "kid": kid, "jwk": jwk, **changes}, option=orjson.OPT_SORT_KEYS)
    other = genuine["kid"].encode(), kid.encode()
    headers = [(name, str(uuid4()).encode() if name == "ce_id" else text.replace(*other)) for name, text in like.headers]
    key = like.key.replace(*other)
    async with AIOKafkaProducer(**client_arguments(market.api.stack)) as producer:
        await producer.send_and_wait(like.topic, value, key=key, headers=headers)


async def _refused(market: Market, reason: str) -> dict[str, float]:
    """How many keys each service has refused for this."""
    line, found = f'cartwright_keys_refused_total{{reason="{reason}"}} ', dict[str, float]()
    async with aiohttp.ClientSession() as session:
        for service in SERVICES:
            found[service] = 0
            for url in market.api.stack.services[service].ops:
                async with session.get(f"{url}/metrics") as answer:
                    text = await answer.text()
                found[service] += sum(float(each.removeprefix(line)) for each in text.splitlines() if each.startswith(line))
    return found


async def _believe(market: Market, token: str) -> set[bool]:
    """Whether each service believes whoever has this token; what he may there is another matter."""
    statuses = set()
    for service, path in LISTS.items():
        try:
            statuses.add((await market.api.call(service, "GET", path, token=token)).status)
        except RefusedError as error:
            statuses.add(error.status)
    assert statuses <= {200, 401, 403}
    return {status != 401 for status in statuses}


async def test_only_what_the_root_key_certifies_is_believed_of_keys(market: Market) -> None:
    genuine, like = await market.shop.token(), await _announced(market)
    claims = jwt.decode(genuine, options={"verify_signature": False})
    root = RootKey.read(claims["iss"], market.stack.home.secret("issuer-root-key"))
    assert await _believe(market, genuine) == {True}

    def signed(key: ec.EllipticCurvePrivateKey) -> str:
        fresh = {**claims, "iat": int(time.time()), "exp": int(time.time()) + 600}
        headers = {"typ": "at+jwt", "kid": public_jwk(key.public_key())["kid"]}
        return jwt.encode(fresh, key, algorithm=ALGORITHM, headers=headers)

    thief, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    stolen, fresh = (public_jwk(key.public_key()) for key in (thief, new))
    genuine_jwk = orjson.loads(like.value)["jwk"]
    forgeries: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        ("no-certificate", stolen, {"certificate": None}),
        ("other-root", stolen, {"certificate": RootKey(claims["iss"], thief).certify(stolen, now())}),
        ("other-key", stolen, {}),
        ("other-key", genuine_jwk, {"state": "revoked"}),
        ("no-certificate", genuine_jwk, {"state": "revoked", "certificate": None}),
    ]
    for reason, jwk, changes in forgeries:
        before = await _refused(market, reason)
        await _announce(market, like, jwk, **changes)

        async def is_refused(reason: str = reason, before: dict[str, float] = before) -> bool:
            after = await _refused(market, reason)
            return all(after[service] > before[service] for service in SERVICES)

        await market.until(is_refused)
        assert await _believe(market, signed(thief)) == {False}
        assert await _believe(market, genuine) == {True}

    await _announce(market, like, fresh, certificate=root.certify(fresh, now()))

    async def is_learnt() -> bool:
        return await _believe(market, signed(new)) == {True}

    await market.until(is_learnt)
    await _announce(market, like, fresh, state="revoked", certificate=root.revoke(fresh["kid"], now()))

    async def is_forgotten() -> bool:
        return await _believe(market, signed(new)) == {False}

    await market.until(is_forgotten)
    assert await _believe(market, genuine) == {True}


async def test_a_key_that_the_topic_tells_without_a_certificate_is_told_again_when_the_worker_starts(market: Market) -> None:
    like = await _announced(market)
    genuine = orjson.loads(like.value)
    await _announce(market, like, genuine["jwk"], certificate=None)
    assert (await _newest(market, genuine["kid"]))["certificate"] is None
    await market.stack.kill("identity.worker")
    await market.stack.start_process("identity.worker")

    async def is_certified() -> bool:
        return bool((await _newest(market, genuine["kid"]))["certificate"])

    await market.until(is_certified)


OF_NO_TOKEN = {"very long"}
"""Refused before anybody looks at it: no header may be so long."""


async def test_no_forged_or_abused_token_passes_any_door_of_any_process(market: Market) -> None:
    good = await market.shop.token()
    claims = jwt.decode(good, options={"verify_signature": False})
    key = ec.generate_private_key(ec.SECP256R1())
    forger = Forger(key, {name: value for name, value in claims.items() if name != "iat_ms"})
    root = RootKey.read(claims["iss"], market.stack.home.secret("issuer-root-key"))
    await _announce(market, await _announced(market), forger.jwk, certificate=root.certify(forger.jwk, now()))
    await market.until(lambda: is_believed(market, forger.token()))

    forged = {name: token for name, token in forger.forgeries().items() if name not in OF_NO_TOKEN}
    assert len(forged) > 70
    passed = {name: await told(market, token) for name, token in forged.items()}
    assert {name: statuses for name, statuses in passed.items() if set(statuses.values()) != {401}} == {}
    assert {len(statuses) for statuses in passed.values()} == {DOORS}
    assert await is_believed(market, forger.token())
    assert await is_believed(market, good)


async def test_a_good_token_is_looked_for_in_its_one_place_alone(market: Market) -> None:
    good = await market.shop.token()
    elsewhere: list[dict[str, Any]] = [
        {"params": {"access_token": good}},
        {"cookies": {"access_token": good, "Authorization": f"Bearer {good}"}},
        {"headers": {"X-Access-Token": good, "X-Authorization": f"Bearer {good}", "Proxy-Authorization": f"Bearer {good}"}},
        {"headers": {"Authorization": f"Basic {good}"}},
        {"headers": {"Authorization": good}},
        {"headers": {"Authorization": f"Bearer{good}"}},
        {"headers": {"X-Tenant-Id": str(market.shop.tenant_id), "X-User-Id": str(uuid4()), "X-Jwt-Payload": good.split(".")[1]}},
    ]
    async with aiohttp.ClientSession() as session:
        for way in elsewhere:
            for door in doors(market):
                async with session.get(door, **way) as answer:
                    assert answer.status == 401, (door, way)
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
