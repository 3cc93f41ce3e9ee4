"""Where the processor time of a run goes: seconds by process of the local stack, read before and after."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.state import Home

if TYPE_CHECKING:
    import psutil

OWN = "replay"


def cpu_seconds(home: Path) -> dict[str, float]:
    """Return the processor time that each process of the stack, and this one, has used so far."""
    import psutil

    used = {OWN: time.process_time()}
    for name, (pid, _) in Home(home).read().get("processes", {}).items():
        try:
            process = psutil.Process(pid)
            # Postgres is a family: its parent does little itself, but inherits the time of those that ended.
            used[name] = sum(_seconds(it) for it in (process, *process.children(recursive=True)))
        except psutil.NoSuchProcess:
            continue
    return used


def per_order(before: Mapping[str, float], after: Mapping[str, float], orders: int) -> str:
    """Tell in one line what an order cost, dearest process first."""
    # A process that has used less than before is another one: it was started anew meanwhile.
    begun = {name: seconds if seconds <= after.get(name, 0.0) else 0.0 for name, seconds in before.items()}
    spent = {name: (after[name] - begun[name]) * 1000 / orders for name in after if name in begun}
    parts = [f"{name} {spent[name]:.1f}" for name in sorted(spent, key=lambda name: -spent[name])]
    return f"CPU ms an order: {sum(spent.values()):.1f} in all; {', '.join(parts)}"


def _seconds(process: "psutil.Process") -> float:
    import psutil

    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
