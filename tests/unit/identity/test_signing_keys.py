"""A signing key is published before it signs, and what is retired never signs again."""

from services.identity.domain.signing_key import TRANSITIONS, KeyState


def test_a_key_goes_from_next_to_active_to_retired_and_may_be_given_up_before_it_ever_signs() -> None:
    ways = {(start, to) for start, onward in TRANSITIONS.items() for to in onward}
    next_, active, retired = KeyState.NEXT, KeyState.ACTIVE, KeyState.RETIRED
    assert ways == {(next_, active), (next_, retired), (active, retired)}
    assert set(TRANSITIONS) == set(KeyState)
