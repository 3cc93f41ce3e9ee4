"""Passwords: hashed by Argon2id (RFC 9106) with OWASP's parameters, in a thread of their own that gives way to others."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from libs.common.errors import UnavailableError

ITERATIONS, MEMORY_KIB, LANES = 2, 19_456, 1
SALT_BYTES, HASH_BYTES = 16, 32
THREADS = 1
WAITING = 256
"""So many may wait for a thread, about eight seconds; whoever comes then is asked to come again."""
NICENESS = 10
"""How far the thread stands back: those who sign in wait for those who buy, and not the other way round."""

R = TypeVar("R")


class Passwords:
    """Makes and checks hashes. What has no hash to be checked takes as long as what has one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "passwords", _stand_back)
        self._waiting = 0
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """What may be kept of a password, in PHC form. Raises UnavailableError when too many wait."""
        return await self._run(lambda: _hashed(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether this is the password of which that is kept; None is nobody's, which nobody can tell by the time it takes."""
        return await self._run(lambda: self._is(stored, password))

    def _is(self, stored: str | None, password: str) -> bool:
        if stored is None:
            self._nobodys = self._nobodys or _hashed(os.urandom(HASH_BYTES).hex())
        try:
            Argon2id.verify_phc_encoded(password.encode(), stored or str(self._nobodys))
        except InvalidKey:
            return False
        return stored is not None

    async def _run(self, work: Callable[[], R]) -> R:
        if self._waiting >= WAITING:
            raise UnavailableError("too-many-passwords", "too many sign in at once; try again shortly", retry_after=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


def _hashed(password: str) -> str:
    kdf = Argon2id(salt=os.urandom(SALT_BYTES), length=HASH_BYTES, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY_KIB)
    return kdf.derive_phc_encoded(password.encode())


def _stand_back() -> None:
    """Linux counts niceness by thread; where it cannot be set, the pool's size is bound enough."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except OSError:
        return
