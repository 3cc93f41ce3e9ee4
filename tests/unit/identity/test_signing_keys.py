"""A signing key is published before it signs, believed while anything it signed lives, and never believed again."""

from datetime import timedelta

import pytest

from libs.common.clock import PLATFORM
from libs.common.errors import ConflictError
from services.identity.domain import access
from services.identity.domain.signing_key import (
    OUTLASTS,
    TRANSITIONS,
    KeyState,
    SigningKey,
    activate,
    demand_known,
    ended,
    is_due,
    over,
    retire,
    revoke,
)
from tests.unit.memory import NOW

SECOND, MONTH = timedelta(seconds=1), timedelta(days=30)


def _key(state: KeyState, **facts: object) -> SigningKey:
    given = {"kid": str(state), "jwk": {}, "sealed_private_key": b"sealed", "not_before": NOW, **facts}
    return SigningKey(tenant_id=PLATFORM, state=state, **given)  # type: ignore[arg-type]  # whatever a case says


def test_a_key_goes_from_next_to_active_to_retired_and_may_be_revoked_wherever_it_stands() -> None:
    ways = {(start, to) for start, onward in TRANSITIONS.items() for to in onward}
    next_, active, retired, revoked = KeyState
    assert ways == {(next_, active), (active, retired), *((each, revoked) for each in (next_, active, retired))}
    assert set(TRANSITIONS) == set(KeyState)


def test_a_next_key_signs_when_everybody_can_know_it_and_not_a_moment_before() -> None:
    key = _key(KeyState.NEXT, not_before=NOW + 10 * SECOND)
    demand_known(key, NOW + 10 * SECOND)
    with pytest.raises(ConflictError) as refused:
        demand_known(key, NOW + 9 * SECOND)
    assert refused.value.code == "signing-key-too-new"
    assert activate(key, NOW + 20 * SECOND).not_before == NOW + 20 * SECOND


def test_rotation_is_due_after_a_whole_period_and_when_the_next_one_is_known() -> None:
    active, following = _key(KeyState.ACTIVE), _key(KeyState.NEXT, not_before=NOW + MONTH + SECOND)
    assert not is_due([active, following], NOW + MONTH, MONTH)
    assert is_due([active, following], NOW + MONTH + SECOND, MONTH)
    assert not is_due([active, _key(KeyState.NEXT)], NOW + MONTH - SECOND, MONTH)
    assert is_due([active, _key(KeyState.NEXT)], NOW + MONTH, MONTH)
    assert not is_due([active], NOW + 2 * MONTH, MONTH)


def test_a_retired_key_is_believed_longer_than_any_token_it_can_have_signed_and_has_nothing_left_to_sign_with() -> None:
    retired = retire(_key(KeyState.ACTIVE), NOW)
    assert retired.sealed_private_key == b""
    longest = access.LIFETIME + timedelta(minutes=1)
    assert over([retired], NOW + longest) == [], "a process that cannot read goes on signing for a minute"
    assert ended([retired], NOW + OUTLASTS - SECOND) == []
    [end] = ended([retired], NOW + OUTLASTS)
    assert (end.state, end.not_after) == (KeyState.REVOKED, NOW + OUTLASTS)


@pytest.mark.parametrize("state", [KeyState.NEXT, KeyState.ACTIVE, KeyState.RETIRED])
def test_a_revoked_key_is_over_at_once_and_for_good(state: KeyState) -> None:
    revoked = revoke(_key(state), NOW)
    assert (revoked.state, revoked.not_after, revoked.sealed_private_key) == (KeyState.REVOKED, NOW, b"")
    for change in (revoke, retire, activate):
        with pytest.raises(ConflictError) as refused:
            change(revoked, NOW)
        assert refused.value.code == "signing-key-state"
