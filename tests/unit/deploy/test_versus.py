"""Two revisions in turns: who comes when, and what is made of their figures."""

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.bench.revision import commit_of, unpacked
from deploy.cli.bench.side import demand_own_servers, told_in
from deploy.cli.bench.versus import OTHER, THIS, Figures, Load, loads_of, median_of, ratio, ratios_of, schedule
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.main import app
from deploy.local.state import ROOT


def pair(this: float, other: float) -> dict[str, Figures]:
    return {name: figures(cpu) for name, cpu in ((THIS, this), (OTHER, other))}


def figures(cpu: float) -> Figures:
    return {
        "orders_per_second": 1000 / cpu,
        "order_p50_ms": cpu * 4,
        "final_call_p50_ms": cpu * 2,
        "final_call_p99_ms": cpu * 3,
        "cpu_ms_per_order": {"all": cpu, "postgres": cpu / 4},
    }


def turns_of(load: Load, turns: int, loads: Sequence[Load]) -> list[tuple[str, str]]:
    return [order for each, order in schedule(loads, turns) if each is load]


def test_loads_are_closed_loops_and_then_a_fixed_rate() -> None:
    assert [load.name for load in loads_of([1, 8, 32], 5)] == ["1", "8", "32", "20_per_second"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_both_take_every_turn_of_a_load_and_come_first_as_often(count: int) -> None:
    loads = loads_of([*range(1, count + 1)], 5)
    for load in loads:
        orders = turns_of(load, 6, loads)
        assert sorted(orders) == [(OTHER, THIS)] * 3 + [(THIS, OTHER)] * 3
        assert all(before != after for before, after in itertools.pairwise(orders))


def test_a_load_follows_with_whoever_was_driven_last() -> None:
    loads = loads_of([1, 8, 32], 5)
    orders = [order for _, order in schedule(loads, 1)]
    assert all(before[-1] == after[0] for before, after in itertools.pairwise(orders))


def test_a_ratio_is_the_median_of_the_pairs_so_that_what_meets_both_of_a_pair_does_not_count() -> None:
    pairs = [pair(7, 10), pair(70, 100), pair(6, 10)]
    assert ratio(pairs, "cpu_ms_per_order", "all") == 0.7
    assert ratio(pairs, "orders_per_second") == round(10 / 7, 3)


def test_there_is_a_ratio_for_each_figure_that_a_change_is_judged_by() -> None:
    every = [pair(5, 10)]
    found = ratios_of({"1": every, "8": every, "32": every, "20_per_second": every})
    judged = {"cpu_at_1", "cpu_at_8", "cpu_at_32", "cpu_at_20_per_second", "final_call_p99_at_20_per_second"}
    assert {name: found[name] for name in judged} == dict.fromkeys(judged, 0.5)
    assert found["rate_at_8"] == found["rate_at_32"] == 2.0
    assert "rate_at_20_per_second" not in found, "which is given"


def test_a_median_is_taken_of_every_figure_and_of_a_process_in_those_turns_that_it_ran_in() -> None:
    turns = [figures(cpu) for cpu in (10, 40, 20)]
    turns[0]["cpu_ms_per_order"]["newer"] = 3.0
    found = median_of(turns)
    assert found["orders_per_second"] == 50.0
    assert found["cpu_ms_per_order"] == {"all": 20, "postgres": 5.0, "newer": 3.0}


def test_a_commit_is_laid_out_as_it_is_in_the_history_and_shares_the_packages_it_is_locked_to(tmp_path: Path) -> None:
    commit = commit_of("HEAD")
    found = unpacked(commit, tmp_path, lambda _: None)
    stored = subprocess.run(["git", "show", f"{commit}:pyproject.toml"], cwd=ROOT, capture_output=True, check=True)
    assert (found.folder / "pyproject.toml").read_bytes() == stored.stdout
    assert found.as_json() == {"commit": commit, "changed": False}
    same = (found.folder / "requirements" / "local.txt").read_bytes() == (ROOT / "requirements" / "local.txt").read_bytes()
    assert (found.python == Path(sys.executable)) == same


@pytest.mark.parametrize("name", ["no-such-revision", "--output=here", ""])
def test_what_names_no_commit_is_told_in_one_line(name: str) -> None:
    with pytest.raises(CommandError, match=f"git knows no commit {name!r}") as told:
        commit_of(name)
    assert told.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(told.value)


def test_servers_of_somebody_else_are_not_shared_by_two_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setenv("CARTWRIGHT_POSTGRES_ADMIN_URL", "postgresql://127.0.0.1:9")
    with pytest.raises(CommandError, match="unset CARTWRIGHT_POSTGRES_ADMIN_URL, CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS"):
        demand_own_servers()


def test_why_a_stack_does_not_start_is_told_in_one_line() -> None:
    log = "cartwright: making .venv\n 1.2 s  kafka is ready\ncartwright: kafka was not ready; the end of its log:\n{}\n"
    assert told_in(log) == "kafka was not ready"
    assert told_in("cartwright: unknown environment variable X: unset it\n") == "unknown environment variable X: unset it"
    assert told_in("Killed\n") == ""


def test_a_past_and_another_revision_are_not_asked_for_at_once() -> None:
    told = CliRunner().invoke(app, ["bench", "orders", "--vs", "HEAD", "--history", "5"])
    assert told.exit_code == ExitCode.USAGE
    assert told.stderr.count("\n") == 1
