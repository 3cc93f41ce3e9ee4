"""What was revoked is refused, what was issued afterwards is not, however late, often or garbled it is told."""

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from libs.common.auth import MAX_LIFETIME_SECONDS, SHOPPER, InvalidTokenError, Verifier
from libs.common.certificates import public_jwk
from libs.common.errors import UnavailableError
from libs.common.revocations import (
    AHEAD_SECONDS,
    CLOCKS_MS,
    FIRST_SWEEP,
    KEPT_SECONDS,
    PATIENCE_SECONDS,
    Issued,
    Revocations,
    mark,
)
from tests.shared.roots import keys_of, none_revoked

ISSUER, AUDIENCE = "https://issuer.test", "cart"
KEY = ec.generate_private_key(ec.SECP256R1())
JWK = public_jwk(KEY.public_key())
IDS = {"tenant": str(uuid4()), "subject": str(uuid4()), "session": str(uuid4()), "client": "cl_1"}


def now_ms() -> int:
    return int(time.time() * 1_000)


def token(at_ms: int, **changes: Any) -> str:
    """A token of this moment, for all of them."""
    ids: Mapping[str, str] = {**IDS, **changes}
    claims = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": ids["subject"],
        "client_id": ids["client"],
        "iat": at_ms // 1_000,
        "iat_ms": at_ms,
        "exp": at_ms // 1_000 + 600,
        "jti": str(uuid4()),
        "tid": ids["tenant"],
        "sid": ids["session"],
        "scope": "carts:read",
        "roles": [SHOPPER],
    }
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"typ": "at+jwt", "kid": JWK["kid"]})


def verifier(revocations: Revocations) -> Verifier:
    return Verifier(keys_of(ISSUER, JWK), revocations, issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("kind", IDS)
async def test_an_epoch_ends_what_was_issued_before_it_also_when_it_was_let_in_already_and_nothing_else(kind: str) -> None:
    revocations = none_revoked()
    gate = verifier(revocations)
    now = now_ms()
    before, at, others = token(now - 1), token(now), token(now - 1, **{kind: str(uuid4())})
    for good in (before, at, others):
        assert (await gate.verify(good)) is (await gate.verify(good))
    revocations.learn(kind, IDS[kind].upper() if kind == "tenant" else IDS[kind], now)
    for stranger in (gate, verifier(revocations)):
        with pytest.raises(InvalidTokenError) as refusal:
            await stranger.verify(before)
        assert (refusal.value.status, refusal.value.reason) == (401, "revoked")
        await stranger.verify(at)
        await stranger.verify(others)


async def test_a_token_that_says_no_milliseconds_is_as_old_as_its_second() -> None:
    revocations = none_revoked()
    at_ms = now_ms() // 1_000 * 1_000
    said = jwt.decode(token(at_ms), options={"verify_signature": False})
    bare = jwt.encode(
        {name: value for name, value in said.items() if name != "iat_ms"},
        KEY,
        algorithm="ES256",
        headers={"typ": "at+jwt", "kid": JWK["kid"]},
    )
    revocations.learn("client", IDS["client"], at_ms)
    await verifier(revocations).verify(bare)
    revocations.learn("client", IDS["client"], at_ms + 1)
    with pytest.raises(InvalidTokenError):
        await verifier(revocations).verify(bare)


@given(st.lists(st.integers(-5_000, 5_000), min_size=1), st.randoms())
def test_whatever_the_order_and_however_often_it_is_told_the_highest_epoch_holds(offsets: list[int], chance: Any) -> None:
    revocations, now = none_revoked(), now_ms()
    epochs = [now + offset for offset in offsets]
    told = [*epochs, *epochs]
    chance.shuffle(told)
    for epoch in told:
        before = revocations.latest([mark("session", "s")])
        revocations.learn("session", "s", epoch)
        assert revocations.latest([mark("session", "s")]) >= before
    assert revocations.refuse(Issued(max(epochs) - 1, (mark("session", "s"),)))
    assert not revocations.refuse(Issued(max(epochs), (mark("session", "s"),)))


def test_an_epoch_is_kept_for_as_long_as_a_token_lives_and_memory_is_bounded() -> None:
    at = 1_000_000.0
    revocations = Revocations(lambda: at)
    for number in range(10 * FIRST_SWEEP):
        revocations.learn("session", f"s{number}", int(at * 1_000))
        at += 1.0
        live = revocations.latest([mark("session", f"s{max(0, number - MAX_LIFETIME_SECONDS)}")])
        assert live, "a token of its time may still live"
    assert len(revocations) <= 2 * max(FIRST_SWEEP, KEPT_SECONDS)


def test_an_epoch_that_lies_far_ahead_is_not_believed() -> None:
    at = 1_000_000.0
    revocations = Revocations(lambda: at)
    revocations.learn("tenant", "t", int((at + AHEAD_SECONDS + 1) * 1_000))
    assert not revocations.refuse(Issued(0, (mark("tenant", "t"),)))
    revocations.learn("tenant", "t", int((at + AHEAD_SECONDS - 1) * 1_000))
    assert revocations.refuse(Issued(0, (mark("tenant", "t"),)))


async def test_until_the_topic_was_read_only_tokens_of_since_the_process_began_are_judged() -> None:
    revocations = Revocations()
    gate = verifier(revocations)
    old = token(now_ms() - 60_000)
    with pytest.raises(UnavailableError, match="revocations-unavailable"):
        await gate.verify(old)
    at = time.time()
    later = Revocations(lambda: at)
    later._began_at = at - 10
    await verifier(later).verify(token(int(at * 1_000)))
    revocations.read_to_its_end()
    await gate.verify(old)


def test_what_was_issued_as_the_process_began_counts_as_before_for_as_much_as_clocks_differ() -> None:
    at = 1_000_000.0
    revocations = Revocations(lambda: at)
    for early_ms in (-1, 0, CLOCKS_MS - 1):
        with pytest.raises(UnavailableError):
            revocations.demand_known(Issued(int(at * 1_000) + early_ms, ()))
    revocations.demand_known(Issued(int(at * 1_000) + CLOCKS_MS, ()))


def test_the_latest_of_several_is_the_highest_and_of_none_there_is_none() -> None:
    revocations, now = none_revoked(), now_ms()
    assert (revocations.latest([]), revocations.latest(["session:s"])) == (0, 0)
    revocations.learn("session", "s", now)
    revocations.learn("client", "c", now + 1)
    assert revocations.latest(["session:s", "client:c", "tenant:t"]) == now + 1
    revocations.learn("tenant", "t", now - KEPT_SECONDS * 1_000 * 2)
    assert (len(revocations), revocations.latest(["tenant:t"])) == (2, 0), "no token of that time lives"
    assert not revocations.refuse(Issued(0, ("tenant:t",)))


def test_a_process_that_never_hears_of_the_topic_is_whole_once_every_older_token_is_over() -> None:
    at = 1_000_000.0
    revocations = Revocations(lambda: at)
    assert (revocations.is_whole, revocations.is_awaited) == (False, True)
    at += PATIENCE_SECONDS
    assert (revocations.is_whole, revocations.is_awaited) == (False, False)
    at += MAX_LIFETIME_SECONDS
    assert not revocations.is_whole
    at += KEPT_SECONDS - MAX_LIFETIME_SECONDS
    assert revocations.is_whole
