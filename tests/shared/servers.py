"""Debian's PostgreSQL and pgbouncer, as others run them: the server that is embedded here speaks no TLS."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from deploy.local.ports import HOST, spare_port
from deploy.local.postgres import unprivileged
from deploy.local.processes import Child, dying_with_parent
from tests.shared.certificates import Certified

SECRET = "a-secret-that-is-as-long-as-those-we-make"
_SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=100")


def binaries() -> Path:
    """Where the newest of Debian's servers is; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parents[1].name))
    if not found:
        pytest.skip("not proven: TLS to PostgreSQL, a standby, an administrator of another's (apt-get install postgresql)")
    return found[-1].parent


@dataclass(frozen=True)
class Server:
    """One that runs."""

    folder: Path
    port: int
    user: str = "postgres"

    def url(self, database: str = "postgres", /, **parameters: object) -> str:
        asked = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{self.user}:{SECRET}@{HOST}:{self.port}/{database}" + (f"?{asked}" if asked else "")


@asynccontextmanager
async def postgres(folder: Path, *, settings: Sequence[str] = (), access: Sequence[str] = ()) -> AsyncIterator[Server]:
    """A server of its own in this folder, or on what lies there."""
    programs, port, data = binaries(), spare_port(), folder / "data"
    if not data.exists():
        secret = folder / "secret"
        secret.write_text(SECRET)
        command = [*unprivileged(), str(programs / "initdb"), "-D", str(data), "-U", "postgres", f"--pwfile={secret}"]
        await asyncio.to_thread(
            subprocess.run,
            [*command, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    if access:
        (data / "pg_hba.conf").write_text("\n".join(access) + "\n")
    options = [word for setting in (*_SETTINGS, f"port={port}", *settings) for word in ("-c", setting)]
    command = [*unprivileged(), *dying_with_parent("INT"), str(programs / "postgres"), "-D", str(data), *options]
    child = Child("postgres", command, environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, log=folder / "log")
    await child.start()
    try:
        async with asyncio.timeout(120):
            while " ready" not in _status(data, child.pid):
                assert child.pid, child.log_tail()
                await asyncio.sleep(0.05)
        yield Server(folder, port)
    finally:
        await child.kill()


def with_tls(own: Certified) -> list[str]:
    """The settings of a server that shows this certificate."""
    return ["ssl=on", f"ssl_cert_file={own.certificate}", f"ssl_key_file={own.key}"]


async def manager_at(superuser: str) -> str:
    """An administrator as managed services give one, and his address."""
    admin = await asyncpg.connect(superuser)
    await admin.execute(f"CREATE ROLE manager LOGIN CREATEROLE CREATEDB PASSWORD '{SECRET}'")
    await admin.close()
    login, _, rest = superuser.rpartition("@")
    return f"{login.partition('//')[0]}//manager:{SECRET}@{rest}"


def _status(data: Path, pid: int | None) -> str:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return ""
    return f" {lines[7].strip()}" if len(lines) > 7 and lines[0] == str(pid) else ""


async def copied(folder: Path, url: str) -> None:
    """Make a standby of the server at this address, which follows it."""
    command = [str(binaries() / "pg_basebackup"), "-D", str(folder / "data"), "-R", "-X", "stream", "-c", "fast", "-d", url]
    await asyncio.to_thread(subprocess.run, [*unprivileged(), *command], check=True)


@asynccontextmanager
async def pgbouncer(server_port: int, folder: Path, users: dict[str, str], *, mode: str) -> AsyncIterator[int]:
    """A pool before the server, with the settings that Debian's package comes with; yields its port."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("not proven: the services' statements behind pgbouncer (apt-get install pgbouncer)")
    port = spare_port()
    (folder / "users.txt").write_text("".join(f'"{name}" "{secret}"\n' for name, secret in users.items()))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={HOST} port={server_port}\n[pgbouncer]\n"
        f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
        f"auth_file = {folder / 'users.txt'}\npool_mode = {mode}\ndefault_pool_size = 20\nmax_client_conn = 200\n"
    )
    command = [*unprivileged(), *dying_with_parent("INT"), program, str(folder / "pgbouncer.ini")]
    child = Child("pgbouncer", command, environment={"PATH": os.defpath}, log=folder / "pgbouncer.log")
    await child.start()
    try:
        async with asyncio.timeout(60):
            while not await _answers(port):
                assert child.pid, child.log_tail()
                await asyncio.sleep(0.05)
        yield port
    finally:
        await child.kill()


async def _answers(port: int) -> bool:
    try:
        await asyncpg.connect(f"postgresql://nobody@{HOST}:{port}/nowhere", timeout=5)
    except asyncpg.PostgresError:
        return True
    except OSError:
        return False
    return True
