"""The time is what we are told it is, once it is further off than answers take."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from libs.common.auth import Verifier
from libs.common.clock import go_by, now
from libs.common.errors import UnauthenticatedError
from tests.shared.forging import Forger
from tests.shared.roots import keys_of, none_revoked

FAR = timedelta(minutes=5)
ISSUER = "https://issuer.test"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    go_by(datetime.now(UTC))
    _is_the_machines()


def _is_the_machines() -> None:
    before = datetime.now(UTC)
    assert before <= now() <= datetime.now(UTC)


@pytest.mark.parametrize("off", [FAR, -FAR])
def test_a_clock_that_is_far_off_is_corrected_and_believed_again_when_it_was_set_right(off: timedelta) -> None:
    begun = datetime.now(UTC)
    theirs = begun - off
    ahead = go_by(theirs)
    found, ended = now(), datetime.now(UTC)
    assert theirs <= found <= theirs + (ended - begun)
    assert off <= ahead <= off + (ended - begun)
    go_by(datetime.now(UTC))
    _is_the_machines()


def test_a_clock_that_is_off_by_less_than_an_answer_may_take_is_left_alone() -> None:
    go_by(datetime.now(UTC) + timedelta(milliseconds=500))
    _is_the_machines()


@pytest.mark.parametrize(("off", "refusal"), [(FAR, "not yet valid"), (-3 * FAR, "expired")])
async def test_a_token_is_held_to_the_time_that_everything_goes_by(off: timedelta, refusal: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"iss": ISSUER, "aud": "cart", "sub": str(uuid4()), "client_id": "c", "jti": "j", "scope": "", "roles": [], "ver": 1}
    forger = Forger(key, claims)

    async def judged() -> None:
        gate = Verifier(keys_of(ISSUER, forger.jwk), none_revoked(), issuer=ISSUER, audience="cart")
        await gate.verify(token)

    token = forger.token()
    await judged()
    go_by(datetime.now(UTC) - off)
    with pytest.raises(UnauthenticatedError, match=refusal):
        await judged()
