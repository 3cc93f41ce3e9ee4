"""The state directory: what one stack remembers between runs, and the lock that says it is running."""

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from deploy.local.errors import StackError

ROOT: Final = Path(__file__).resolve().parents[2]
"""The repository (or the folder of an installed package): the import root of every child process."""

_MARK: Final = ".cartwright-state"
_NESTED: Final = frozenset({"test", "bench", "beside"})
"""State directories of their own."""
_LEFT_BY_OTHERS: Final = frozenset({_MARK, "lock"}) | _NESTED
_FOLDERS: Final = ("logs", "secrets", "tenants")
_PASSABLE: Final = 0o710
_NEEDED_BYTES: Final = 1 << 30
_PATIENCE_SECONDS: Final = 0.5


def default_home() -> Path:
    """`CARTWRIGHT_HOME`, else `.cartwright` in this clone: two clones never share a stack."""
    chosen = os.environ.get("CARTWRIGHT_HOME")
    if chosen:
        return Path(chosen).expanduser().resolve()
    return (ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()) / ".cartwright"


class Home:
    """One state directory: databases, broker data, logs, secrets and `state.json`."""

    def __init__(self, path: Path) -> None:
        """Name the directory; nothing is touched before `prepare`."""
        self.path = path.resolve()
        self.logs = self.path / "logs"

    def prepare(self) -> None:
        """Make the directory, refusing one that holds somebody else's files, or a disk about to be full."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            strangers = {entry.name for entry in self.path.iterdir()} - _LEFT_BY_OTHERS
            if strangers and not (self.path / _MARK).exists():
                raise StackError(
                    f"{self.path} is not empty and no state directory of Cartwright's: set CARTWRIGHT_HOME to another one"
                )
            (self.path / _MARK).touch(mode=0o600)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self._close_to_others()
        except OSError as error:
            raise StackError(f"{self.path} cannot be written ({error.strerror}): set CARTWRIGHT_HOME") from error
        require_disk(self.path)

    def _close_to_others(self) -> None:
        """Leave what lies here to its owner: logs tell of people, and the rest of secrets. Whatever the umask is, or was.

        The databases' and the broker's own folders look after what is in them. Root's Postgres may run as `nobody`, whose
        group then may pass through here, and no more.
        """
        mine = os.geteuid()
        for folder in (self.path, *(self.path / name for name in _FOLDERS)):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry.name not in _NESTED and not entry.is_symlink() and entry.stat().st_uid == mine:
                    entry.chmod(0o700 if entry.is_dir() else 0o600)
        if self.path.stat().st_mode & 0o777 != _PASSABLE:
            self.path.chmod(0o700)

    def let_pass(self, group: int) -> None:
        """Let processes of this group reach what is theirs in here."""
        around = [self.path.parent] if (self.path.parent / _MARK).exists() else []
        for folder in (*around, self.path):
            os.chown(folder, -1, group)
            folder.chmod(_PASSABLE)

    def purge(self) -> bool:
        """Delete everything this stack has stored, and return whether there was anything."""
        if not self.path.exists():
            return False
        if not (self.path / _MARK).exists():
            raise StackError(f"{self.path} holds no state of Cartwright's: nothing was deleted")
        shutil.rmtree(self.path, ignore_errors=True)
        return True

    def log(self, process: str) -> Path:
        """Where a process's output is appended."""
        return self.logs / f"{process}.log"

    def secret_file(self, name: str) -> Path:
        """Where a secret lies."""
        return self.path / "secrets" / name

    def secret(self, name: str, make: Callable[[], str] = secrets.token_urlsafe) -> str:
        """Return a secret, made on first use and readable by its owner alone."""
        file = self.secret_file(name)
        if not file.exists():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            _write_whole(file, make(), mode=0o600)
        return file.read_text()

    def replace_secret(self, name: str, value: str) -> None:
        """Put another in a secret's place; whoever reads it gets the old one or the new."""
        _write_whole(self.secret_file(name), value, mode=0o600)

    def read(self) -> dict[str, Any]:
        """Return what was last recorded; empty before the first start."""
        try:
            recorded: dict[str, Any] = json.loads((self.path / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return recorded

    def record(self, **changes: object) -> None:
        """Replace some members of `state.json`; a reader sees the old file or the new one."""
        _write_whole(self.path / "state.json", json.dumps(self.read() | changes, indent=2) + "\n", mode=0o600)

    def want_copies(self, copies: Mapping[str, int]) -> None:
        """Ask whoever runs this stack for so many processes of these kinds; it is told by a signal to look."""
        _write_whole(self.path / "copies.json", json.dumps(copies), mode=0o600)

    def wanted_copies(self) -> dict[str, int]:
        """Return what was last asked for."""
        try:
            wanted: dict[str, int] = json.loads((self.path / "copies.json").read_text())
        except FileNotFoundError:
            return {}
        return wanted

    def have_cells(self, cells: Iterable[str]) -> tuple[str, ...]:
        """Add cells to those of this stack, which it has for good: what is in them is there. Returns all of them."""
        known = (*dict.fromkeys([*self.read().get("cells", ()), *cells]),)
        if known:
            self.record(cells=known)
        return known

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Own the stack for as long as the context lasts; the kernel lets go of it if this process is killed."""
        with os.fdopen(os.open(self.path / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+") as lock:
            # Some patience, because whoever asks for the `holder` has the lock for a moment.
            if not _taken_in_time(lock):
                raise StackError(
                    f"the stack in {self.path} is already being run by process {self.holder()}: "
                    "wait for it, or stop it with ./cartwright down"
                )
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def holder(self) -> int | None:
        """Return the pid of the process that runs this stack, or None when nobody does."""
        try:
            with (self.path / "lock").open("r") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(lock.read() or 0) or None
        except FileNotFoundError:
            pass
        return None


def _taken_in_time(lock: IO[str]) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        else:
            return True


def appending(log: Path) -> IO[bytes]:
    """A log to write on, which nobody else may read."""
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def require_disk(path: Path) -> None:
    """Stop before the databases do: below 1 GiB of free space Postgres and Kafka would fail half-way."""
    free = shutil.disk_usage(path).free
    if free < _NEEDED_BYTES:
        raise StackError(
            f"only {free >> 20} MiB are free on the disk of {path}, and the stack needs 1024: "
            "free some, or set CARTWRIGHT_HOME to a directory on another disk"
        )


def _write_whole(file: Path, text: str, *, mode: int) -> None:
    """Write beside the file and rename, so that no reader and no crash ever sees half of it."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        out.write(text)
    draft.replace(file)
