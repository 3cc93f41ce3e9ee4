"""Which loopback port each part listens on: its default, or a free one when that is taken, remembered either way."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from services import SERVICES

DEFAULT_PORTS: Final = {
    "gateway": 8080,
    "gateway.ops": 8280,
    "postgres": 15432,
    "kafka": 19092,
    "kafka.controller": 19093,
    "kafka.sasl": 19094,
    "stripe": 12111,
    **{f"{service}.api": 8081 + n for n, service in enumerate(SERVICES)},
    **{f"{service}.ops": 8281 + n for n, service in enumerate(SERVICES)},
    **{f"{service}.worker": 8181 + n for n, service in enumerate(SERVICES)},
}

HOST: Final = "127.0.0.1"

# Below every system's range of ephemeral ports, so that no outgoing connection takes one before its owner listens.
_SPARE: Final = range(20_000, 32_000)


def choose_ports(
    names: Iterable[str], remembered: dict[str, int], say: Callable[[str], None], *, spread: bool = False
) -> dict[str, int]:
    """Return a free port for each name: the remembered one, else its default if it has one, else any.

    `spread` leaves the defaults alone, for stacks that several tests start at once.
    """
    chosen: dict[str, int] = {}
    for name in names:
        wanted = remembered.get(name) or (spare_port() if spread else DEFAULT_PORTS.get(name) or spare_port())
        port = wanted if is_free(wanted) else spare_port()
        if port != wanted:
            say(f"port {wanted} is taken: {name} listens on {port} instead")
        chosen[name] = port
    return chosen


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As servers do: connections that merely linger in TIME_WAIT after a restart do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def spare_port() -> int:
    """Return a free port, chosen at random, and nobody else's for as long as this process lives.

    Free is not enough: between the choice and the listening lie seconds, and twelve choices of a stack meet now and then.
    """
    while True:
        port = random.choice(_SPARE)  # noqa: S311 - not a secret
        if is_free(port) and _reserved(port):
            return port


def _reserved(port: int) -> bool:
    folder = Path(tempfile.gettempdir()) / f"cartwright-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    held = os.open(folder / str(port), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return False
    return True  # nobody closes it: the lock ends with the process
