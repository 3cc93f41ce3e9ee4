"""Where backups lie: a folder a history of the cluster, and in it base backups, the log, and how far that reaches.

SERIES/base/NAME.tar    what `pg_basebackup` gave
SERIES/base/NAME.json   what is known of it; without this it was never finished
SERIES/wal/SEGMENT      the log, and `SEGMENT.partial` as far as it was written
SERIES/reached          until when all that was committed is here
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from deploy.backup.errors import BackupError
from deploy.backup.sealed import Vault
from deploy.backup.segments import PARTIAL, Base, is_segment, superfluous, superfluous_segments
from libs.common.sealing import MasterKeys

_REACHED: Final = "reached"


class Store:
    """All backups of one cluster."""

    def __init__(self, folder: Path, keys: MasterKeys) -> None:
        """Touch nothing yet."""
        self.folder, self.vault = folder, Vault(folder, keys)

    def all_series(self) -> list[str]:
        """Every history that there is something of."""
        return sorted(each.name for each in self.folder.glob("*-*") if each.is_dir())

    def bases(self) -> list[Base]:
        """Every base backup that was finished, the oldest first."""
        return sorted(
            self._base(series, file.stem)
            for series in self.all_series()
            for file in (self.folder / series / "base").glob("*.json")
        )

    def segments(self, series: str) -> list[str]:
        """Names of the files of a history's log, in their order."""
        return sorted(file.name for file in (self.folder / series / "wal").glob("*") if is_segment(file.name))

    def reached(self, series: str) -> datetime | None:
        """Until when all that was committed in a history is here."""
        told = self._reached(series)
        return datetime.fromisoformat(told["until"]) if told else None

    def last_segment(self, series: str) -> str:
        """Where that moment's last word is; empty when nothing was reached."""
        return self._reached(series).get("segment", "")

    def note_reached(self, series: str, until: datetime, segment: str) -> None:
        """All that was committed until then is here, and lies in this segment or before it."""
        self.vault.write_json(f"{series}/{_REACHED}", {"until": until.isoformat(), "segment": segment}, until)

    def note_base(self, base: Base) -> None:
        """A base backup is whole."""
        told = {
            "ended_at": base.ended_at.isoformat(),
            "first_segment": base.first_segment,
            "segment_bytes": str(base.segment_bytes),
            "server_version": str(base.server_version),
        }
        self.vault.write_json(f"{base.series}/base/{base.name}.json", told, base.ended_at)

    def put_segment(self, series: str, file: Path, pieces: Iterator[bytes], at: datetime) -> None:
        """Store what there is of a segment; when it is whole, what was stored of its parts is not needed any more."""
        self.vault.seal(segment_file(series, file.name), pieces, at)
        if not file.name.endswith(PARTIAL):
            self.vault.delete(segment_file(series, file.name + PARTIAL))

    def prune(self, now: datetime, keep: timedelta) -> list[Base]:
        """Delete what is not needed to go back so far; answers the base backups that went."""
        bases = self.bases()
        gone = superfluous(bases, now, keep)
        for base in gone:
            self.vault.delete(f"{base.series}/base/{base.name}.json")  # it counts no longer, whatever happens then
            self.vault.delete(base_file(base))
        kept = [base for base in bases if base not in gone]
        for series in {base.series for base in bases}:
            of_it = [base for base in kept if base.series == series]
            for name in superfluous_segments(self.segments(series), of_it):
                self.vault.delete(segment_file(series, name))
            if not of_it:
                self.vault.delete(f"{series}/{_REACHED}")
        return gone

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one who writes here."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BackupError(f"{self.folder} cannot be written ({error.strerror})") from error
        with os.fdopen(lock):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BackupError(f"another process takes backups into {self.folder} already") from error
            self._tidy()
            yield

    def _tidy(self) -> None:
        """Delete what somebody was killed over: drafts, and base backups that were never finished."""
        for draft in self.folder.rglob("*.new"):
            draft.unlink()
        for archive in self.folder.glob("*/base/*.tar"):
            if not archive.with_suffix(".json").exists():
                archive.unlink()

    def _reached(self, series: str) -> dict[str, str]:
        is_there = (self.folder / series / _REACHED).exists()
        return self.vault.read_json(f"{series}/{_REACHED}") if is_there else {}

    def _base(self, series: str, name: str) -> Base:
        told = self.vault.read_json(f"{series}/base/{name}.json")
        return Base(
            ended_at=datetime.fromisoformat(told["ended_at"]),
            series=series,
            name=name,
            first_segment=told["first_segment"],
            segment_bytes=int(told["segment_bytes"]),
            server_version=int(told["server_version"]),
        )


def base_file(base: Base) -> str:
    """The name of a base backup's archive."""
    return f"{base.series}/base/{base.name}.tar"


def segment_file(series: str, name: str) -> str:
    """The name of a segment's file."""
    return f"{series}/wal/{name}"
