"""Checkout, payments and the provider together: no order of messages, calls, people and time breaks a promise."""

import pytest

from tests.unit.joint.mistakes import MISTAKES, MOST_WALKS, Mistake, walks_until_found
from tests.unit.joint.walking import walk

LONG, BATCHES = 40_000, 8
SOME = (
    "a second try of a create is not read first",
    "a refund that failed late stays counted",
    "an exchange is booked the wrong way round",
    "stock is not given back when payments holds nothing",
)
"""What every build looks for; `--long` looks for all, each in a process of its own."""


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_walk_ends_with_one_order_and_its_money_or_with_neither(batch: int, request: pytest.FixtureRequest) -> None:
    count = (LONG if request.config.getoption("--long") else MOST_WALKS) // BATCHES
    for seed in range(batch * count, (batch + 1) * count):
        walk(seed)


def test_the_same_seed_walks_the_same_way() -> None:
    for seed in range(32):
        assert walk(seed).house.story == walk(seed).house.story


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_the_line_that_a_mistake_changes_is_still_there_once(mistake: Mistake) -> None:
    assert mistake.changed in mistake.made(mistake.path.read_text(encoding="utf-8"))


def test_the_walks_of_a_build_find_every_mistake(request: pytest.FixtureRequest) -> None:
    names = MISTAKES if request.config.getoption("--long") else SOME
    found = {name: walks_until_found(name) for name in names}
    print(found)
    assert [name for name, count in found.items() if count is None] == []
