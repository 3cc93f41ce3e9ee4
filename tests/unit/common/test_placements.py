from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import UnavailableError
from libs.common.placements import Placements

SHOP, OTHER = UUID(int=1), UUID(int=2)


@given(st.dictionaries(st.integers(1, 9), st.sampled_from(["main", "east", "west"]), min_size=1), st.randoms())
def test_the_latest_word_on_where_a_tenant_is_counts_however_late_and_often_the_others_come(
    words: dict[int, str], chance: Any
) -> None:
    heard = [*words, *words]
    chance.shuffle(heard)
    placements = Placements()
    for version in heard:
        placements.learn(SHOP, version, words[version])
    cell = words[max(words)]
    assert (placements.cell(SHOP), placements.cell(OTHER)) == (cell, "main")
    assert {*placements.cells()} == {cell} - {"main"}


def test_until_all_was_heard_nobody_knows_who_is_elsewhere() -> None:
    placements = Placements(follows=True)
    placements.learn(SHOP, 1, "main")
    with pytest.raises(UnavailableError, match="tenants-unavailable"):
        placements.demand_whole()
    placements.read_to_its_end()
    placements.demand_whole()
