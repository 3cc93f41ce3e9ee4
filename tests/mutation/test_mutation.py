"""That a mutant is what it says, that it is found whatever moves around it, and that it can be noticed and not be noticed."""

import ast
from pathlib import Path

import pytest

from tests.mutation.areas import AREAS, files
from tests.mutation.sites import ROOT, mutants_of

MODULE = '''
"""A shop."""
LIMIT = 3
CLAIM = """UPDATE t SET tries = tries + 1 WHERE due_at <= now() FOR UPDATE SKIP LOCKED"""
OPEN = frozenset({"a", "b"})


def sell(stock: int, count: int, sold: list[int], log: object) -> int:
    """Sell so many."""
    if count > stock and not sold:
        raise ValueError(f"{count} of {stock}, {1 + 1}")
    sold.append(count)
    log.info("sold", count=count + 1)
    return stock - count
'''
EXPECTED = {
    "LIMIT: 3 -> 4",
    "CLAIM: DATE t SET tries = tries + 1 WHERE due_at -> DATE t SET tries = tries WHERE due_at",
    "sell: count > stock -> count >= stock",
    "sell: count > stock -> count <= stock",
    "sell: count > stock and (not sold) -> count > stock or not sold",
    "sell: not sold -> sold",
    "sell: raise ValueError(f'{count} of {stock}, {1 + 1}') -> left out",
    "sell: sold.append(count) -> left out",
    "sell: stock - count -> stock + count",
    "OPEN: {'a', 'b'} -> without 'a'",
}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    path.write_text(MODULE)
    return path


def _told(path: Path) -> set[str]:
    return {f"{mutant.where}: {mutant.what}" for mutant in mutants_of(path)}


def test_what_could_be_written_otherwise_is_changed_and_what_is_only_told_to_people_is_not(module: Path) -> None:
    told = _told(module)
    assert told >= EXPECTED
    assert not [each for each in told if "1 + 1 ->" in each or "log" in each or "A shop" in each]


def test_a_mutant_keeps_its_name_when_the_lines_around_it_move(module: Path) -> None:
    before = _told(module)
    module.write_text(MODULE.replace("LIMIT", "import os\n\nMOST = os.sep\nLIMIT"))
    assert _told(module) == before


def test_every_mutant_compiles_and_is_another_program(module: Path) -> None:
    for place, mutant in enumerate(mutants_of(module)):
        before = compile(mutant.tree, "shop.py", "exec")
        again = mutants_of(module)[place]
        again.apply()
        assert compile(ast.fix_missing_locations(again.tree), "shop.py", "exec") != before, mutant.what


def test_the_code_that_is_tested_by_it_is_there_and_has_enough_lines_to_be_wrong() -> None:
    paths = [*files([])]
    assert {area.code for area in AREAS if not any(area.covers(path) for path in paths)} == set()
    assert all(path.is_relative_to(ROOT) for path in paths)
    assert sum(len(mutants_of(path)) for path in paths) > 300
