"""Codes that change every 30 seconds, as RFC 6238 computes them, and in which steps they are taken."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import ConflictError, RejectedError
from services.identity.domain import second_factor
from services.identity.domain.second_factor import SecondFactor, Shown, code_of, digest_of, matching_step, step_at

SECRET = b"12345678901234567890"
OF_RFC_6238 = {
    59: "94287082",
    1_111_111_109: "07081804",
    1_111_111_111: "14050471",
    1_234_567_890: "89005924",
    2_000_000_000: "69279037",
    20_000_000_000: "65353130",
}
"""Appendix B, of which six digits are shown here."""
ID = UUID(int=1)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - a bound takes none


@pytest.mark.parametrize(("seconds", "code"), OF_RFC_6238.items())
def test_a_code_is_as_the_standard_has_it(seconds: int, code: str) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    assert code_of(SECRET, step_at(at)) == code[2:]
    assert matching_step(SECRET, code[2:], at) == step_at(at)


@given(at=MOMENTS, off=st.integers(-9, 9), secret=st.binary(min_size=20, max_size=20))
def test_a_code_is_taken_one_step_early_or_late_and_no_more(at: datetime, off: int, secret: bytes) -> None:
    around = {code_of(secret, step_at(at) + each): each for each in (-1, 0, 1)}
    code = code_of(secret, step_at(at + timedelta(seconds=30 * off)))
    expected = None if code not in around else step_at(at) + around[code]
    assert matching_step(secret, code, at) == expected
    assert (expected is not None) or abs(off) > 1
    if abs(off) > 1:
        assert expected is None or code in around


@given(steps=st.lists(st.integers(1, 9), max_size=20))
def test_no_step_is_taken_twice_and_none_before_one_that_was_taken(steps: list[int]) -> None:
    factor, taken = active(), list[int]()
    for step in steps:
        try:
            factor = second_factor.use(factor, Shown(enrolment=ID, step=step, digest=""))
        except RejectedError:
            assert step <= max([0, *taken])
        else:
            taken.append(step)
    assert taken == sorted(set(taken))


@given(shown=st.lists(st.integers(0, 12), max_size=30))
def test_a_recovery_code_is_good_once_however_it_is_written(shown: list[int]) -> None:
    factor, good = active(), set(range(10))
    for each in shown:
        text = [f"code-{each}", f"CODE{each}", f" co de - {each}"][each % 3]
        try:
            factor = second_factor.use(factor, Shown(enrolment=ID, step=None, digest=digest_of(ID, text)))
        except RejectedError:
            assert each not in good
        else:
            good.remove(each)
    assert len(factor.recovery) == len(good)


def test_what_was_judged_by_another_secret_or_is_not_confirmed_lets_nobody_in() -> None:
    shown = Shown(enrolment=UUID(int=2), step=5, digest=digest_of(ID, "code-1"))
    with pytest.raises(RejectedError):
        second_factor.use(active(), shown)
    begun = {"tenant_id": ID, "member_id": ID, "enrolment": ID, "sealed_secret": b"s"}
    pending = second_factor.begin(None, **begun)  # type: ignore[arg-type]  # four of two types, by name
    for each in (pending, second_factor.remove(active()), None):
        with pytest.raises(RejectedError):
            second_factor.use(each, Shown(enrolment=ID, step=5, digest=digest_of(ID, "code-1")))
        with pytest.raises(RejectedError):
            second_factor.demand(each, None, is_required=True)
        assert second_factor.demand(each, None, is_required=False) is None
    with pytest.raises(RejectedError):
        second_factor.demand(active(), None, is_required=False)
    with pytest.raises(ConflictError):
        second_factor.begin(active(), **begun)  # type: ignore[arg-type]  # as above


def active() -> SecondFactor:
    begun = second_factor.begin(None, tenant_id=ID, member_id=ID, enrolment=ID, sealed_secret=b"s")
    recovery = [digest_of(ID, f"code-{each}") for each in range(10)]
    confirmed = second_factor.confirm(begun, Shown(enrolment=ID, step=1, digest=""), recovery)
    return SecondFactor(
        tenant_id=ID, member_id=ID, enrolment=ID, state=confirmed.state, sealed_secret=b"s", recovery=confirmed.recovery
    )
