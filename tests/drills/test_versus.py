"""This code beside itself: two whole stacks at once, one driven, the other standing still."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.cli.bench.versus import OTHER, THIS
from deploy.local.state import ROOT, Home
from tests.shared.variables import without_ours


def environment(home: Path) -> Mapping[str, str]:
    """No servers of somebody else's."""
    return without_ours() | {"CARTWRIGHT_HOME": str(home), "PYTHONPATH": str(ROOT)}


def running(home: Path) -> list[psutil.Process]:
    """Every process of a stack, with those that it has under it."""
    found = []
    for pid, _ in Home(home).read().get("processes", {}).values():
        if psutil.pid_exists(pid):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def stands_still(home: Path) -> bool:
    found = running(home)
    return bool(found) and all(process.status() == psutil.STATUS_STOPPED for process in found)


@pytest.mark.long("two stacks, one after the other: three minutes")
@pytest.mark.timeout(3_600)
async def test_a_revision_beside_itself_takes_orders_in_turns_and_leaves_nothing_running(tmp_path: Path) -> None:
    options = ("--vs", "HEAD", "--clients", "2", "--seconds", "2", "--turns", "2", "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "deploy.cli", "bench", "orders", *options),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
    )
    homes, still = {THIS: tmp_path / "bench", OTHER: tmp_path / "beside"}, set[str]()

    async def look() -> None:
        while process.returncode is None:
            still.update(name for name, home in homes.items() if stands_still(home))
            await asyncio.sleep(0.1)

    try:
        (out, _), _ = await asyncio.gather(process.communicate(), look())
    finally:
        if process.returncode is None:
            process.terminate()  # its stacks go with it
    assert process.returncode == 0
    figures: dict[str, Any] = json.loads(out)
    assert figures["revisions"][THIS]["commit"] == figures["revisions"][OTHER]["commit"]
    assert {"cpu_at_2", "rate_at_2", "cpu_at_20_per_second", "final_call_p99_at_20_per_second"} <= figures["ratios"].keys()
    assert all(value > 0 for value in figures["ratios"].values())
    for name in (THIS, OTHER):
        told = figures["by_clients"]["2"][name]
        assert told["orders"] > 0
        assert {"postgres", "kafka", "checkout.worker"} <= told["cpu_ms_per_order"].keys()
        assert len(figures["by_clients"]["2"]["turns"]["cpu_ms_per_order"][name]) == 2
    assert still == {THIS, OTHER}, "each while the other was driven"
    assert not any(running(home) for home in homes.values())
