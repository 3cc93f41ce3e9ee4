"""Back to a moment: a base backup and the log behind it, laid out, verified and recovered, before anything takes its place.

Nothing that is there is changed until the restored cluster has recovered and been shut down in order. Then it takes the place of
the one before, which is kept beside it.
"""

import asyncio
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from deploy.backup.errors import BackupError
from deploy.backup.sealed import Reading
from deploy.backup.segments import PARTIAL, Base, base_for, following, run_from
from deploy.backup.store import Store, base_file, segment_file
from deploy.local.errors import ProcessError
from deploy.local.ports import spare_port
from deploy.local.postgres import EmbeddedPostgres, binaries
from deploy.local.replicated import PRIMARY, SERVERS
from deploy.local.state import Home, require_disk

MAJOR: Final = 18
"""Of the PostgreSQL that recovers here: it can do so for no other."""
REPLACED: Final = "postgres.replaced-"
_RECOVERY_SECONDS: Final = 7 * 24 * 3600.0
_NOT_REACHED: Final = "recovery ended before configured recovery target was reached"
_LAST_COMMIT: Final = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_SAID: Final = re.compile(r"(?:FATAL|PANIC|ERROR):\s+(.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a moment is made of."""

    to: datetime | None
    base: Base
    segments: tuple[str, ...]
    reached: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What became of it."""

    base: Base
    data: Path
    last_commit: str | None
    """The time of the last transaction that is in it, as the server's log has it."""
    seconds: float
    replaced: Path | None


def planned(store: Store, to: datetime | None) -> Plan:
    """What is needed to go back to a moment, or to the latest there is. Raises BackupError when it is not there."""
    bases = store.bases()
    if not bases:
        raise BackupError(f"there is no backup in {store.folder}")
    usable = [base for base in bases if to is not None or _is_whole(store, base)]
    base = base_for(usable, to)
    if not usable:
        raise BackupError(f"no backup in {store.folder} has its log up to its end")
    if base is None:
        raise BackupError(f"there is no way back to before the oldest backup, which ended at {_shown(bases[0].ended_at)}")
    reached = store.reached(base.series)
    if reached is None or (to is not None and reached < to):
        until = _shown(reached) if reached else "nowhere"
        raise BackupError(f"what is stored of that history reaches until {until}: --to latest is as far as that")
    segments = _needed(store, base, to)
    return Plan(to=to, base=base, segments=segments, reached=reached)


async def restore(store: Store, home: Home, plan: Plan, say: Callable[[str], None], into: Path | None = None) -> Restored:
    """Lay it out in a folder, or in the place of the stack's own database, which is kept beside. Nobody may run the stack."""
    if plan.base.server_version != MAJOR:
        raise BackupError(f"it is a backup of PostgreSQL {plan.base.server_version}, and only {MAJOR} can be recovered here")
    begun = time.monotonic()
    draft = into or home.path / "postgres.restoring"
    _make_room(draft, is_new=into is not None)
    try:
        await asyncio.to_thread(_lay_out, store, plan, draft, say)
        last_commit = await _recover(store, home, plan, draft, say, is_ours=into is None)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    replaced = None if into else _take_its_place(home, draft)
    return Restored(
        base=plan.base,
        data=into or home.path / SERVERS[0],
        last_commit=last_commit,
        seconds=time.monotonic() - begun,
        replaced=replaced,
    )


def replaced_ones(home: Home) -> list[Path]:
    """The clusters that a restored one has taken the place of, and that nobody has deleted yet."""
    return sorted(home.path.glob(f"{REPLACED}*"))


def _is_whole(store: Store, base: Base) -> bool:
    """Whether its log reaches to its end: without that it is half of a copy."""
    reached = store.reached(base.series)
    return reached is not None and reached >= base.ended_at


def _needed(store: Store, base: Base, to: datetime | None) -> tuple[str, ...]:
    """The log from the base backup on, as far as it takes to have the moment in it. Raises BackupError where it has a gap."""
    there, found = {*store.segments(base.series)}, list[str]()
    for name in run_from(base.first_segment, there, base.segment_bytes):
        found.append(name)
        if to is not None and _suffices(store, base, name, to):
            return tuple(found)
    plain = [name.removesuffix(PARTIAL) for name in found]
    if not plain or plain[-1] < max(store.last_segment(base.series), *(name.removesuffix(PARTIAL) for name in there)):
        missing = following(plain[-1], base.segment_bytes) if plain else base.first_segment
        raise BackupError(f"the log has a gap: {store.folder / segment_file(base.series, missing)} is missing")
    return tuple(found)


def _suffices(store: Store, base: Base, name: str, to: datetime) -> bool:
    """Whether all until then lies in this segment or before it: what was stored before it reaches so far."""
    return store.vault.at(segment_file(base.series, name)) >= to


def _make_room(draft: Path, *, is_new: bool) -> None:
    if is_new and draft.exists() and any(draft.iterdir()):
        raise BackupError(f"{draft} is not empty")
    shutil.rmtree(draft, ignore_errors=True)  # of an attempt that was interrupted
    draft.mkdir(mode=0o700, parents=True)
    require_disk(draft)


def _lay_out(store: Store, plan: Plan, draft: Path, say: Callable[[str], None]) -> None:
    pieces = store.vault.opened(base_file(plan.base))
    try:
        with tarfile.open(fileobj=Reading(pieces), mode="r|") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian's Python 3.11 has none
            for member in archive:
                member.uid, member.gid = os.geteuid(), os.getegid()  # whoever it belonged to where it came from
                archive.extract(member, draft, numeric_owner=True)
    except tarfile.TarError as error:
        raise BackupError(f"{base_file(plan.base)} is damaged: {error}") from error
    for _ in pieces:  # to its end, where it is known that nothing was cut off
        pass
    _verify(draft)
    _stand_alone(draft)
    say(f"the base backup that ended at {_shown(plan.base.ended_at)} is laid out and verified")
    for name in plan.segments:
        file = draft / "pg_wal" / name.removesuffix(PARTIAL)
        with file.open("wb") as out:
            file.chmod(0o600)
            for piece in store.vault.opened(segment_file(plan.base.series, name)):
                out.write(piece)
    say(f"{len(plan.segments)} segments of the log are beside it")


def _stand_alone(draft: Path) -> None:
    """Have it wait for no standby, and follow nobody: who stood beside it does not know it."""
    written = draft / "postgresql.auto.conf"
    lines = written.read_text().splitlines(keepends=True)
    written.write_text("".join(line for line in lines if not line.startswith(("synchronous_standby_names", "primary_"))))


def _verify(draft: Path) -> None:
    """Hold every file to the list of checksums that the server made."""
    options = ("--no-parse-wal", "--exit-on-error", "--quiet")
    done = subprocess.run((binaries() / "pg_verifybackup", *options, draft), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupError(f"the base backup is not what was copied: {(done.stderr or done.stdout).strip().splitlines()[0]}")


async def _recover(store: Store, home: Home, plan: Plan, draft: Path, say: Callable[[str], None], *, is_ours: bool) -> str | None:
    """Have a server read the log up to the moment, end the history there and begin another; answers the last commit's time."""
    later = _later_timelines(store, plan.base, draft)
    (draft / "recovery.signal").touch(mode=0o600)
    settings = {
        "restore_command": "false",  # all there is of the log lies in its place already
        "recovery_target_timeline": "current",
        "hot_standby": "off",
    }
    target = {"recovery_target_time": plan.to.isoformat(), "recovery_target_action": "promote"} if plan.to else {}
    try:
        said = await _run_once(home, draft, {**settings, **target}, is_ours=is_ours)
    except ProcessError as error:
        if _NOT_REACHED not in error.log_tail:
            raise _in_one_line(home, error) from error
        # Nothing was committed after that moment: all there is, is how it was.
        try:
            said = await _run_once(home, draft, settings, is_ours=is_ours)
        except ProcessError as again:
            raise _in_one_line(home, again) from again
    if (draft / "recovery.signal").exists():
        raise BackupError(f"PostgreSQL did not come to the end of its recovery; see {home.log('restore')}")
    for each in (*later, *(draft / name for name in ("backup_label.old", "backup_manifest"))):
        each.unlink(missing_ok=True)
    say("it is recovered")
    return next(iter(_LAST_COMMIT.findall(said)[-1:]), None)


async def _run_once(home: Home, data: Path, settings: dict[str, str], *, is_ours: bool) -> str:
    """Start a server on these files until it has recovered, and stop it; answers what it logged.

    Raises BackupError when it is to be ours, and does not let us in.
    """
    log = home.log("restore")
    log.unlink(missing_ok=True)
    server = EmbeddedPostgres(home, spare_port(), name="restore", data=data, settings=settings, start_seconds=_RECOVERY_SECONDS)
    try:
        await server.start()
        if is_ours:
            await _demand_ours(home, server.admin_url)
    finally:
        await server.stop()
    return log.read_text(errors="replace")


async def _demand_ours(home: Home, admin_url: str) -> None:
    """A backup of another server, or of ours with another password, would take the place of what can be opened."""
    import asyncpg

    try:
        await (await asyncpg.connect(admin_url, timeout=10)).close()
    except asyncpg.InvalidPasswordError as error:
        secret = home.secret_file("postgres-admin")
        raise BackupError(f"it is a backup of another server, or {secret} is not the one it had: put that back") from error


def _later_timelines(store: Store, base: Base, draft: Path) -> list[Path]:
    """Mark every history that was begun after this one, so that PostgreSQL gives the next one a number that nobody has had."""
    cluster, _, timeline = base.series.partition("-")
    known = [int(series.partition("-")[2], 16) for series in store.all_series() if series.partition("-")[0] == cluster]
    marks = [draft / "pg_wal" / f"{number:08X}.history" for number in range(int(timeline, 16) + 1, max(known) + 1)]
    for mark in marks:
        mark.touch(mode=0o600)
    return marks


def _in_one_line(home: Home, error: ProcessError) -> BackupError:
    said = _SAID.findall(error.log_tail)
    return BackupError(f"PostgreSQL cannot recover it: {said[0] if said else error}; see {home.log('restore')}")


def _take_its_place(home: Home, draft: Path) -> Path | None:
    """All of what was there goes aside: of a cluster its standby too, and the word which of them is the primary."""
    present = [home.path / name for name in (*SERVERS, PRIMARY) if (home.path / name).exists()]
    replaced = home.path / f"{REPLACED}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}" if present else None
    if replaced:
        replaced.mkdir(mode=0o700)
        for each in present:
            each.rename(replaced / each.name)
    draft.rename(home.path / SERVERS[0])
    return replaced


def _shown(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
