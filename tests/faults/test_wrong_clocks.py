"""A process on a machine whose clock is wrong."""

import asyncio
import os
import sys
from datetime import datetime, timedelta

import pytest

from libs.common.clock import TOLERATED, now
from tests.faults.outbox import ROOT, MakeToy
from tests.shared.clocks import wrong_by

WHAT_TIME_IT_IS = """
import asyncio, sys, time
from datetime import UTC, datetime
from libs.common.clock import now
from libs.common.database import Database

async def main():
    database = await Database.connect(sys.argv[1], application="toy", size=1)
    print(datetime.now(UTC).isoformat(), now().isoformat())
    await database.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", [300, -300])
async def test_a_process_whose_clock_is_wrong_goes_by_its_databases(make_toy: MakeToy, seconds: int) -> None:
    wrong, toy = wrong_by(seconds), make_toy()
    await toy.prepare()
    begun = now()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WHAT_TIME_IT_IS, toy.url("app")),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **wrong},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    ended = now()
    machines, ours = [datetime.fromisoformat(each) for each in out.decode().splitlines()[-1].split()]
    off = timedelta(seconds=seconds)
    assert begun + off - TOLERATED <= machines <= ended + off + TOLERATED, "it is wrong"
    assert begun - TOLERATED <= ours <= ended + TOLERATED
