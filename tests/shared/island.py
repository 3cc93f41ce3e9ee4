"""An island: processes behind a router of their own, which loses their packets when it is told to and tells nobody.

A connection that is refused, reset or closed says so at once. Here nothing is said: whoever waits for an answer waits. Servers
need not know of it: what listens on this machine's 127.0.0.1 is reached from the island under that very address.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import asyncpg
import pytest

Way = Literal["both ways", "there", "back"]
"""Whose packets are lost: everybody's, those to a port, or those from it."""
SELECTORS: Final[dict[Way, tuple[str, ...]]] = {"both ways": ("dport", "sport"), "there": ("dport",), "back": ("sport",)}
ESTABLISHED: Final = "01"
ISLANDS: Final = 256
ADMITTED: Final = "host all,replication all 10.213.0.0/16 scram-sha-256"


@dataclass(frozen=True)
class Island:
    """Two namespaces: the processes' own, and the router's that lies between it and everybody else."""

    number: int

    @property
    def address(self) -> str:
        """Where it is, for whoever is not on it."""
        return f"10.213.{self.number}.6"

    @property
    def command(self) -> tuple[str, ...]:
        """What stands before the command of a process that is to run on it."""
        return ("ip", "netns", "exec", self._own)

    @contextmanager
    def cut_off(self, *ports: int, way: Way = "both ways") -> Iterator[None]:
        """Lose the packets to or from these ports."""
        rules = [("ipproto", "tcp", selector, str(port), "blackhole") for port in ports for selector in SELECTORS[way]]
        for rule in rules:
            _ip("-n", self._router, "rule", "add", *rule)
        try:
            yield
        finally:
            for rule in rules:
                _ip("-n", self._router, "rule", "del", *rule)

    def connections(self, port: int) -> int:
        """How many connections its processes have to this port, as far as they know."""
        table = subprocess.run([*self.command, "cat", "/proc/net/tcp"], check=True, capture_output=True, text=True).stdout
        found = [line.split() for line in table.splitlines()[1:]]
        return sum(each[2].endswith(f":{port:04X}") and each[3] == ESTABLISHED for each in found)

    @property
    def _own(self) -> str:
        return f"cartwright-island-{self.number}"

    @property
    def _router(self) -> str:
        return f"cartwright-router-{self.number}"

    def _rise(self) -> None:
        net, shore = f"10.213.{self.number}", f"cwshore{self.number}"
        _ip("netns", "add", self._own)
        _ip("netns", "add", self._router)
        _ip("link", "add", shore, "type", "veth", "peer", "name", "shore", "netns", self._router)
        _ip("link", "add", "router", "netns", self._own, "type", "veth", "peer", "name", "island", "netns", self._router)
        for where, device, place in (
            ((), shore, f"{net}.1/30"),
            (("-n", self._router), "shore", f"{net}.2/30"),
            (("-n", self._router), "island", f"{net}.5/30"),
            (("-n", self._own), "router", f"{self.address}/30"),
        ):
            _ip(*where, "addr", "add", place, "dev", device)
            _ip(*where, "link", "set", device, "up")
        # No namespace has a loopback that is up but the first, so that 127.0.0.1 is elsewhere.
        routed = ("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        for name in (self._own, self._router):
            _ip("netns", "exec", name, *routed)
        _ip("netns", "exec", self._router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{shore}.route_localnet=1"], check=True, capture_output=True)
        _ip("route", "add", f"{net}.4/30", "via", f"{net}.2")
        _ip("-n", self._router, "route", "add", "127.0.0.0/8", "via", f"{net}.1")
        for place in ("127.0.0.0/8", "default"):
            _ip("-n", self._own, "route", "add", place, "via", f"{net}.5")

    def _sink(self) -> None:
        for name in (self._own, self._router):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", f"cwshore{self.number}")


def reached(place: Island, shore: str, isle: str) -> None:
    """Have an island be reached by the two ends of a device, of which the one is moved to it."""
    net = f"10.213.{place.number}"
    _ip("link", "set", isle, "netns", place._own)
    _ip("addr", "add", f"{net}.5", "peer", place.address, "dev", shore)
    _ip("link", "set", shore, "up")
    _ip("-n", place._own, "addr", "add", place.address, "peer", f"{net}.5", "dev", isle)
    _ip("-n", place._own, "link", "set", isle, "up")
    _ip("netns", "exec", place._own, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{shore}.route_localnet=1"], check=True, capture_output=True)
    for somewhere in ("127.0.0.0/8", "default"):
        _ip("-n", place._own, "route", "add", somewhere, "dev", isle)


async def let_in(admin_url: str) -> None:
    """Have the embedded PostgreSQL let in who comes from an island: by itself it knows nobody but 127.0.0.1."""
    admin = await asyncpg.connect(admin_url)
    try:
        _admit(Path(await admin.fetchval("SHOW hba_file")))
        await admin.execute("SELECT pg_reload_conf()")
    finally:
        await admin.close()


def _admit(rules: Path) -> None:
    if ADMITTED not in rules.read_text():
        with rules.open("a") as file:
            file.write(f"\n{ADMITTED}\n")


@contextmanager
def mute() -> Iterator[int]:
    """The port of a server that takes no connection and refuses none, on 127.0.0.1: as many wait as may."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as held:
        for _ in range(2):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])


@contextmanager
def island(unproven: str, *, routed: bool = True) -> Iterator[Island]:
    """One that nobody else has; where there can be none the test is skipped, and it is told what is `unproven` then.

    Unless it is `routed` nothing leads to it yet.
    """
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip(f"not proven: {unproven} (it takes root, and the program `ip`)")
    taken = {line.split()[0] for line in _ip("netns", "list").splitlines()}
    for number in range(os.getpid(), os.getpid() + ISLANDS):
        found = Island(number % ISLANDS)
        if found._own in taken:
            continue
        try:
            if routed:
                found._rise()
            else:
                _ip("netns", "add", found._own)
            yield found
        finally:
            found._sink()
        return
    pytest.skip(f"not proven: {unproven} (all islands are taken)")


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
